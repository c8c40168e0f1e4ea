# SPDX-License-Identifier: Apache-2.0
"""Make ROS 2 messages without ROS: images, clouds, events, odometry and transforms as CDR."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.sensing.event_stream import EventPacket
from spike_perception.sensing.points import DATATYPE

NANOSECONDS = 1_000_000_000


class MessageWriter(ABC):
    """Makes messages; where they go is up to :meth:`serialized`.

    Attributes:
        counts: messages written, by topic.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    @cached_property
    def _types(self) -> Any:
        from rosbags.typesys import Stores, get_typestore

        return get_typestore(Stores.ROS2_JAZZY)

    @abstractmethod
    def serialized(
        self, topic: str, stamp_ns: int, message_type: str, data: bytes | memoryview
    ) -> None:
        """Write one message that is CDR already; its type is ROS's own or made known before."""

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

    def point_cloud(
        self, topic: str, stamp_ns: int, frame_id: str, points: NDArray[np.float32]
    ) -> None:
        """Write one unorganised ``sensor_msgs/PointCloud2`` of fields x, y, z.

        Args:
            topic: topic name.
            stamp_ns: time of the scan (ns).
            frame_id: frame of the sensor.
            points: float32 ``[N, 3]``, finite (m).

        Raises:
            InputError: ``invalid_points`` for another shape or type.
        """
        if points.dtype != np.float32 or points.ndim != 2 or points.shape[1] != 3:
            raise InputError(
                "invalid_points",
                f"points are {points.dtype}{list(points.shape)}; allowed is float32 [N, 3]",
            )
        data = np.ascontiguousarray(points, "<f4").view(np.uint8).reshape(-1)
        kind = DATATYPE[points.dtype]
        fields = [
            self._message(
                "sensor_msgs/msg/PointField", name=name, offset=4 * k, datatype=kind, count=1
            )
            for k, name in enumerate("xyz")
        ]
        self._write(
            topic,
            stamp_ns,
            "sensor_msgs/msg/PointCloud2",
            header=self._header(stamp_ns, frame_id),
            height=1,
            width=len(points),
            fields=fields,
            is_bigendian=False,
            point_step=12,
            row_step=data.size,
            data=data,
            is_dense=True,
        )

    def event_packet(
        self, topic: str, time_ns: int, stamp_ns: int, frame_id: str, packet: EventPacket
    ) -> None:
        """Write one ``spike_perception_msgs/EventPacket``.

        Args:
            topic: topic name.
            time_ns: when the packet is complete (ns): the time of recording.
            stamp_ns: time of its first event (ns), its header's stamp.
            frame_id: optical frame of the camera.
            packet: the other fields.
        """
        from spike_perception.bags.events import DEFINITIONS, PACKET_TYPES

        message_type = PACKET_TYPES[1]
        self.define({message_type: DEFINITIONS[message_type]})
        self._write(
            topic,
            time_ns,
            message_type,
            header=self._header(stamp_ns, frame_id),
            height=packet.height,
            width=packet.width,
            seq=packet.seq,
            time_base=packet.time_base,
            encoding=packet.encoding,
            is_bigendian=packet.is_bigendian,
            events=np.frombuffer(packet.events, np.uint8),
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
    ) -> None:
        """Write one transform on ``/tf``.

        Args:
            stamp_ns: time of the transform (ns).
            frame_id: parent frame.
            child_frame_id: child frame.
            translation: origin of the child in the parent, x, y, z (m).
            rotation: orientation of the child in the parent, unit quaternion x, y, z, w.
        """
        self._transforms("/tf", stamp_ns, frame_id, {child_frame_id: (translation, rotation)})

    def static_transforms(
        self,
        stamp_ns: int,
        frame_id: str,
        children: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    ) -> None:
        """Write transforms that hold for all time as one message on ``/tf_static`` (latched).

        Args:
            stamp_ns: time of the message (ns).
            frame_id: parent frame.
            children: translation and rotation, as :meth:`transform` takes them, by child frame.
        """
        self._transforms("/tf_static", stamp_ns, frame_id, children)

    def _transforms(
        self,
        topic: str,
        stamp_ns: int,
        frame_id: str,
        children: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    ) -> None:
        transforms = [
            self._message(
                "geometry_msgs/msg/TransformStamped",
                header=self._header(stamp_ns, frame_id),
                child_frame_id=child,
                transform=self._message(
                    "geometry_msgs/msg/Transform",
                    translation=self._vector("geometry_msgs/msg/Vector3", translation),
                    rotation=self._quaternion(rotation),
                ),
            )
            for child, (translation, rotation) in children.items()
        ]
        self._write(topic, stamp_ns, "tf2_msgs/msg/TFMessage", transforms=transforms)

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

    def _write(self, topic: str, stamp_ns: int, message_type: str, **fields: Any) -> None:
        message = self._message(message_type, **fields)
        data = self._types.serialize_cdr(message, message_type)
        self.serialized(topic, stamp_ns, message_type, data)

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
