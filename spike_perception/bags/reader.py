# SPDX-License-Identifier: Apache-2.0
"""Images, clouds and poses of ROS 1 bags and ROS 2 bags (sqlite3, MCAP), read without ROS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spike_perception.errors import InputError
from spike_perception.sensing.image import (
    ImageError,
    RgbImage,
    decode_compressed,
    image_from_message_fields,
)
from spike_perception.sensing.points import (
    CloudLayout,
    Field,
    Points,
    PointsError,
    points_from_message_fields,
)

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys.store import Typestore
    from typing_extensions import Self

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
POINT_TYPES = ("sensor_msgs/msg/PointCloud2",)
POSE_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)


@dataclass(frozen=True)
class StampedImage:
    """One image of a bag: header stamp (ns), optical frame, and uint8 ``[H, W, 3]`` RGB."""

    stamp_ns: int
    frame_id: str
    image: RgbImage


@dataclass(frozen=True)
class StampedPoints:
    """One cloud of a bag: header stamp (ns), the sensor's frame, and its finite points."""

    stamp_ns: int
    frame_id: str
    points: Points


@dataclass(frozen=True)
class StampedPose:
    """One pose of a bag.

    Attributes:
        stamp_ns: header stamp (ns).
        frame_id: frame that the pose is expressed in.
        position: float64 ``[3]``, x, y, z (m).
        orientation: float64 ``[4]``, unit quaternion x, y, z, w.
    """

    stamp_ns: int
    frame_id: str
    position: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]


class BagReader:
    """A bag opened for reading, as a context manager.

    Args:
        path: a ROS 1 ``.bag``, a ROS 2 bag folder, or the ``.mcap`` or ``.db3`` file inside one.

    Raises:
        InputError: on entering: ``bag_missing`` or ``bag_unreadable``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> Self:
        from rosbags.highlevel import AnyReader

        if not self.path.exists():
            raise InputError("bag_missing", f"there is no bag at {self.path}")
        path = self.path
        if path.suffix == ".db3" and (path.parent / "metadata.yaml").is_file():
            path = path.parent
        try:
            self._reader: AnyReader = AnyReader([path], default_typestore=self._typestore())
            self._reader.open()
        # A damaged file breaks the parsers below rosbags in their own ways.
        except Exception as error:
            raise InputError(
                "bag_unreadable",
                f"{self.path} is no readable ROS 1 or ROS 2 bag: {error}",
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.close()

    @property
    def topics(self) -> dict[str, str]:
        """Name to message type (``package/msg/Name``) of every topic in the bag."""
        return {c.topic: c.msgtype for c in self._reader.connections}

    @property
    def duration_ns(self) -> int:
        """Time from the first to the last message (ns)."""
        return int(self._reader.duration)

    def image_topic(self, topic: str = "") -> str:
        """The image topic named, or the only one if none is named.

        Raises:
            InputError: ``topic_missing`` or ``topic_ambiguous``; both list what there is.
        """
        return self._choose(topic, IMAGE_TYPES, "image")

    def point_topic(self, topic: str = "") -> str:
        """The topic of point clouds named, or the only one if none is named.

        Raises:
            InputError: ``topic_missing`` or ``topic_ambiguous``; both list what there is.
        """
        return self._choose(topic, POINT_TYPES, "point cloud")

    def pose_topic(self, topic: str = "") -> str:
        """The odometry or pose topic named, or the only one if none is named.

        Raises:
            InputError: ``topic_missing`` or ``topic_ambiguous``; both list what there is.
        """
        return self._choose(topic, POSE_TYPES, "odometry or pose")

    def images(self, topic: str = "") -> Iterator[StampedImage]:
        """Yield the images of one topic, raw or compressed, in order of recording.

        Raises:
            InputError: as :meth:`image_topic`; a reason of
                :class:`~spike_perception.sensing.image.ImageError` for an image that cannot be
                used, its message naming topic and stamp; ``bag_unreadable`` for damaged data.
        """
        topic = self.image_topic(topic)
        for stamp_ns, message in self.messages(topic):
            try:
                if hasattr(message, "encoding"):
                    image = image_from_message_fields(
                        message.height,
                        message.width,
                        message.encoding,
                        message.is_bigendian,
                        message.step,
                        message.data,
                    )
                else:
                    image = decode_compressed(message.data, message.format)
            except ImageError as error:
                raise ImageError(
                    error.reason, f"{self.path}, {topic}, stamp {stamp_ns} ns: {error}"
                ) from error
            yield StampedImage(stamp_ns, message.header.frame_id, image)

    def points(self, topic: str = "") -> Iterator[StampedPoints]:
        """Yield the point clouds of one topic in order of recording.

        Raises:
            InputError: as :meth:`point_topic`; a reason of
                :class:`~spike_perception.sensing.points.PointsError` for a cloud that cannot be
                used, its message naming topic and stamp; ``bag_unreadable`` for damaged data.
        """
        topic = self.point_topic(topic)
        for stamp_ns, message in self.messages(topic):
            layout = CloudLayout(
                message.height,
                message.width,
                [Field(f.name, f.offset, f.datatype, f.count) for f in message.fields],
                message.is_bigendian,
                message.point_step,
                message.row_step,
            )
            try:
                points = points_from_message_fields(layout, message.data)
            except PointsError as error:
                raise PointsError(
                    error.reason, f"{self.path}, {topic}, stamp {stamp_ns} ns: {error}"
                ) from error
            yield StampedPoints(stamp_ns, message.header.frame_id, points)

    def poses(self, topic: str = "") -> Iterator[StampedPose]:
        """Yield the poses of one topic in order of recording.

        Raises:
            InputError: as :meth:`pose_topic`; ``bag_unreadable`` for damaged data.
        """
        for stamp_ns, message in self.messages(self.pose_topic(topic)):
            pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
            p, q = pose.position, pose.orientation
            yield StampedPose(
                stamp_ns,
                message.header.frame_id,
                np.array([p.x, p.y, p.z], np.float64),
                np.array([q.x, q.y, q.z, q.w], np.float64),
            )

    def texts(self, topic: str) -> Iterator[str]:
        """Yield the texts of one topic of ``std_msgs/String``, in order of recording.

        Raises:
            InputError: ``bag_unreadable`` for damaged data.
        """
        for message in self._messages(topic):
            yield str(message.data)

    def messages(self, topic: str) -> Iterator[tuple[int, Any]]:
        """Yield header stamp (ns) and message of every message with a header on ``topic``.

        Raises:
            InputError: ``bag_unreadable`` for damaged data.
        """
        for message in self._messages(topic):
            stamp = message.header.stamp
            yield stamp.sec * 1_000_000_000 + stamp.nanosec, message

    def _typestore(self) -> Typestore:
        """Definitions for bags that hold none, as ROS 2 bags in sqlite3 may."""
        from rosbags.typesys import Stores, get_typestore

        return get_typestore(Stores.ROS2_JAZZY)

    def _messages(self, topic: str) -> Iterator[Any]:
        for message_type, data in self._data(topic):
            try:
                message = self._reader.deserialize(data, message_type)
            except Exception as error:
                raise self._damaged(topic, error) from error
            yield message

    def _data(self, topic: str) -> Iterator[tuple[str, bytes]]:
        """Type and bytes of every message on ``topic``."""
        connections = [c for c in self._reader.connections if c.topic == topic]
        if not connections:  # which rosbags takes for all of them
            return
        messages = self._reader.messages(connections)
        while True:
            try:
                connection, _, data = next(messages)
            except StopIteration:
                return
            except Exception as error:
                raise self._damaged(topic, error) from error
            yield connection.msgtype, data

    def _damaged(self, topic: str, error: Exception) -> InputError:
        return InputError("bag_unreadable", f"{self.path} is damaged at topic {topic}: {error}")

    def _choose(self, topic: str, types: tuple[str, ...], kind: str) -> str:
        valid = sorted(name for name, type_ in self.topics.items() if type_ in types)
        listed = ", ".join(valid) or "none"
        if topic and topic not in valid:
            raise InputError(
                "topic_missing", f"{self.path} has no {kind} topic {topic}; there are: {listed}"
            )
        if not topic and len(valid) != 1:
            raise InputError(
                "topic_ambiguous" if valid else "topic_missing",
                f"{self.path} has {len(valid)} {kind} topics; name one of: {listed}",
            )
        return topic or valid[0]
