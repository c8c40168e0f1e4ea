# SPDX-License-Identifier: Apache-2.0
"""Write ROS 2 bags without ROS: images, odometry and transforms as CDR in MCAP or sqlite3."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

STORAGES = ("mcap", "sqlite3")
NANOSECONDS = 1_000_000_000


class BagWriter:
    """A new ROS 2 bag, written as a context manager.

    The bag is built in a hidden folder beside its destination and moved there when the block ends
    well, so that a bag that exists is complete; when the block raises, nothing is left behind,
    unless ``keep_partial`` asks for what there is.
    Connections appear with the first message of their topic. Every message is logged at its own
    stamp (ns); callers write in order of time.

    Args:
        path: folder of the new bag; must not exist.
        storage: "mcap" or "sqlite3".
        keep_partial: keep the bag even if the block raises.

    Raises:
        InputError: ``unknown_storage``, ``output_exists`` or ``output_unwritable``.
    """

    def __init__(
        self, path: str | Path, storage: str = "mcap", *, keep_partial: bool = False
    ) -> None:
        if storage not in STORAGES:
            raise InputError(
                "unknown_storage",
                f"bag storage is {storage!r}; allowed is one of {', '.join(STORAGES)}",
            )
        self.path = Path(path)
        self.storage = storage
        self._keep_partial = keep_partial
        self.counts: dict[str, int] = {}
        self._connections: dict[str, tuple[str, Any]] = {}

    def __enter__(self) -> Self:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        if self.path.exists():
            raise InputError(
                "output_exists", f"{self.path} exists; give another path or remove it first"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = Path(tempfile.mkdtemp(prefix=".bag-", dir=self.path.parent))
        except OSError as error:
            raise InputError(
                "output_unwritable", f"cannot write a bag at {self.path}: {error.strerror}"
            ) from error
        self._types = get_typestore(Stores.ROS2_JAZZY)
        plugin = StoragePlugin.MCAP if self.storage == "mcap" else StoragePlugin.SQLITE3
        self._writer = Writer(self._scratch / self.path.name, version=9, storage_plugin=plugin)
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._writer.close()
            if kind is None or self._keep_partial:
                (self._scratch / self.path.name).rename(self.path)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def image(self, topic: str, stamp_ns: int, frame_id: str, pixels: NDArray[np.uint8]) -> None:
        """Write one ``sensor_msgs/Image``.

        Args:
            topic: topic name.
            stamp_ns: time of exposure (ns).
            frame_id: optical frame of the camera (REP-103).
            pixels: ``[height, width, 3]`` RGB (rgb8) or ``[height, width]`` grey (mono8), uint8.

        Raises:
            InputError: ``invalid_image`` for another shape or type, or no pixels.
        """
        grey = pixels.ndim == 2
        shaped = grey or (pixels.ndim == 3 and pixels.shape[2] == 3)
        if pixels.dtype != np.uint8 or not shaped or pixels.size == 0:
            raise InputError(
                "invalid_image",
                f"image is {pixels.dtype}{list(pixels.shape)}; "
                "allowed is uint8 [H, W, 3] or [H, W]",
            )
        height, width = pixels.shape[:2]
        self._write(
            topic,
            stamp_ns,
            "sensor_msgs/msg/Image",
            header=self._header(stamp_ns, frame_id),
            height=height,
            width=width,
            encoding="mono8" if grey else "rgb8",
            is_bigendian=0,
            step=width if grey else 3 * width,
            data=np.ascontiguousarray(pixels).reshape(-1),
        )

    def compressed_image(
        self, topic: str, stamp_ns: int, frame_id: str, encoded: bytes, encoding: str
    ) -> None:
        """Write one ``sensor_msgs/CompressedImage``; ``encoding`` is "jpeg" or "png"."""
        self._write(
            topic,
            stamp_ns,
            "sensor_msgs/msg/CompressedImage",
            header=self._header(stamp_ns, frame_id),
            format=encoding,
            data=np.frombuffer(encoded, np.uint8),
        )

    def camera_info(
        self,
        topic: str,
        stamp_ns: int,
        frame_id: str,
        size: tuple[int, int],
        focal_px: float,
    ) -> None:
        """Write one ``sensor_msgs/CameraInfo`` of an ideal pinhole camera.

        Args:
            topic: topic name.
            stamp_ns: time of exposure (ns).
            frame_id: optical frame of the camera.
            size: (width, height) in pixels.
            focal_px: focal length (px); the principal point is the image centre.
        """
        width, height = size
        cx, cy, f = (width - 1) / 2, (height - 1) / 2, focal_px
        roi = self._message(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        )
        self._write(
            topic,
            stamp_ns,
            "sensor_msgs/msg/CameraInfo",
            header=self._header(stamp_ns, frame_id),
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=np.array([f, 0, cx, 0, f, cy, 0, 0, 1], np.float64),
            r=np.eye(3).reshape(-1),
            p=np.array([f, 0, cx, 0, 0, f, cy, 0, 0, 0, 1, 0], np.float64),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def odometry(
        self,
        topic: str,
        stamp_ns: int,
        frame_id: str,
        child_frame_id: str,
        translation: Sequence[float],
        rotation: Sequence[float],
        linear: Sequence[float] = (0.0, 0.0, 0.0),
        angular: Sequence[float] = (0.0, 0.0, 0.0),
        pose_variance: Sequence[float] = (0.0,) * 6,
        twist_variance: Sequence[float] = (0.0,) * 6,
    ) -> None:
        """Write one ``nav_msgs/Odometry``.

        Args:
            topic: topic name.
            stamp_ns: time of the pose (ns).
            frame_id: frame of the pose.
            child_frame_id: frame that the pose is of, and the twist is in.
            translation: x, y, z (m).
            rotation: unit quaternion x, y, z, w.
            linear: velocity x, y, z (m/s) in the child frame.
            angular: velocity about x, y, z (rad/s) in the child frame.
            pose_variance: diagonal of the pose covariance (m², rad²).
            twist_variance: diagonal of the twist covariance.
        """
        pose = self._message(
            "geometry_msgs/msg/Pose",
            position=self._vector("geometry_msgs/msg/Point", translation),
            orientation=self._quaternion(rotation),
        )
        twist = self._message(
            "geometry_msgs/msg/Twist",
            linear=self._vector("geometry_msgs/msg/Vector3", linear),
            angular=self._vector("geometry_msgs/msg/Vector3", angular),
        )
        self._write(
            topic,
            stamp_ns,
            "nav_msgs/msg/Odometry",
            header=self._header(stamp_ns, frame_id),
            child_frame_id=child_frame_id,
            pose=self._message(
                "geometry_msgs/msg/PoseWithCovariance",
                pose=pose,
                covariance=np.diag(np.asarray(pose_variance, np.float64)).reshape(-1),
            ),
            twist=self._message(
                "geometry_msgs/msg/TwistWithCovariance",
                twist=twist,
                covariance=np.diag(np.asarray(twist_variance, np.float64)).reshape(-1),
            ),
        )

    def transform(
        self,
        stamp_ns: int,
        frame_id: str,
        child_frame_id: str,
        translation: Sequence[float],
        rotation: Sequence[float],
        *,
        static: bool = False,
    ) -> None:
        """Write one transform on ``/tf``, or on ``/tf_static`` (latched) if ``static``.

        Args:
            stamp_ns: time of the transform (ns).
            frame_id: parent frame.
            child_frame_id: child frame.
            translation: origin of the child in the parent, x, y, z (m).
            rotation: orientation of the child in the parent, unit quaternion x, y, z, w.
            static: whether it holds for all time.
        """
        transform = self._message(
            "geometry_msgs/msg/Transform",
            translation=self._vector("geometry_msgs/msg/Vector3", translation),
            rotation=self._quaternion(rotation),
        )
        stamped = self._message(
            "geometry_msgs/msg/TransformStamped",
            header=self._header(stamp_ns, frame_id),
            child_frame_id=child_frame_id,
            transform=transform,
        )
        self._write(
            "/tf_static" if static else "/tf",
            stamp_ns,
            "tf2_msgs/msg/TFMessage",
            transforms=[stamped],
        )

    def clock(self, stamp_ns: int) -> None:
        """Write one ``rosgraph_msgs/Clock`` on ``/clock``."""
        self._write("/clock", stamp_ns, "rosgraph_msgs/msg/Clock", clock=self._time(stamp_ns))

    def text(self, topic: str, stamp_ns: int, text: str) -> None:
        """Write one ``std_msgs/String``."""
        self._write(topic, stamp_ns, "std_msgs/msg/String", data=text)

    def define(self, definitions: Mapping[str, str]) -> None:
        """Make message types known that are not of ROS itself.

        Args:
            definitions: ``package/msg/Name`` to the text of its ``.msg`` file.
        """
        from rosbags.typesys import get_types_from_msg

        for name, text in definitions.items():
            if name not in self._types.fielddefs:
                self._types.register(get_types_from_msg(text, name))

    def declare(self, topic: str, message_type: str) -> None:
        """Declare a topic before its first message, so that it is in the bag even without one.

        Raises:
            InputError: ``type_unknown`` if the type's definition is not at hand,
                ``topic_type_changed`` if the topic carries another type.
        """
        self._connection(topic, message_type)

    def serialized(
        self, topic: str, stamp_ns: int, message_type: str, data: bytes | memoryview
    ) -> None:
        """Write one message that is CDR already; its type is ROS's own or made known before."""
        connection = self._connection(topic, message_type)
        self._writer.write(connection, stamp_ns, data)
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def _write(self, topic: str, stamp_ns: int, message_type: str, **fields: Any) -> None:
        message = self._message(message_type, **fields)
        data = self._types.serialize_cdr(message, message_type)
        self.serialized(topic, stamp_ns, message_type, data)

    def _connection(self, topic: str, message_type: str) -> Any:
        if topic not in self._connections:
            try:
                self._types.generate_msgdef(message_type, ros_version=2)
            except KeyError as error:
                raise InputError(
                    "type_unknown", f"{topic} is of type {message_type}; no definition of {error}"
                ) from error
            connection = self._writer.add_connection(
                topic,
                message_type,
                typestore=self._types,
                offered_qos_profiles=[_latched()] if topic == "/tf_static" else [],
            )
            self._connections[topic] = message_type, connection
        known, connection = self._connections[topic]
        if known != message_type:
            raise InputError(
                "topic_type_changed", f"{topic} carries {known}; {message_type} was given"
            )
        return connection

    def _message(self, message_type: str, **fields: Any) -> Any:
        return self._types.types[message_type](**fields)

    def _time(self, stamp_ns: int) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, NANOSECONDS)
        return self._message("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        return self._message("std_msgs/msg/Header", stamp=self._time(stamp_ns), frame_id=frame_id)

    def _vector(self, message_type: str, xyz: Sequence[float]) -> Any:
        x, y, z = (float(v) for v in xyz)
        return self._message(message_type, x=x, y=y, z=z)

    def _quaternion(self, xyzw: Sequence[float]) -> Any:
        x, y, z, w = (float(v) for v in xyzw)
        return self._message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def _latched() -> Any:
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        1,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
