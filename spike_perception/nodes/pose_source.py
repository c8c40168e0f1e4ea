# SPDX-License-Identifier: Apache-2.0
"""Where the robot was when an image was taken, from odometry or from tf."""

from __future__ import annotations

import bisect
import importlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.nodes.stamps import stamp_ns
from spike_perception.places.types import Pose


@dataclass(frozen=True)
class PoseConfig:
    """Where poses come from."""

    source: str = setting(
        "none",
        "none: places have no pose; odometry: nav_msgs/Odometry on pose.topic; tf: transform from "
        "pose.robot_frame to pose.fixed_frame",
        choices=("none", "odometry", "tf"),
        fixed=True,
    )
    topic: str = setting("/odom", "odometry topic", fixed=True)
    fixed_frame: str = setting("map", "frame of the poses, with source tf", fixed=True)
    robot_frame: str = setting("base_link", "frame that moves, with source tf", fixed=True)
    max_gap_s: float = setting(
        0.2, "a pose farther from the image's stamp is not used (s)", minimum=0.0, maximum=60.0
    )
    wait_s: float = setting(
        0.0,
        "with source odometry: wait so long for odometry as new as the image, instead of taking "
        "the latest (s)",
        minimum=0.0,
        maximum=5.0,
    )


class PoseSource(Protocol):
    """Poses by stamp."""

    def at(self, stamp: int) -> Pose | None:
        """Pose at ``stamp`` [ns], or None if none is known close enough.

        Raises:
            InputError: ``invalid_pose`` if the source sent numbers that are none.
        """

    def configure(self, config: PoseConfig) -> None:
        """Take changed settings."""

    def clear(self) -> None:
        """Forget every pose (the clock jumped)."""

    def interrupt(self) -> None:
        """Let nobody wait for a pose until the next :meth:`clear`."""

    def close(self) -> None:
        """Stop listening for good."""


class NoPoses:
    """The null object: no pose is ever known."""

    def at(self, stamp: int) -> None:
        """None."""

    def configure(self, config: PoseConfig) -> None:
        """Nothing to change."""

    def clear(self) -> None:
        """Nothing to forget."""

    def interrupt(self) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Nothing to stop."""


class OdometryPoses:
    """Keeps the latest odometry and interpolates between neighbours.

    Thread-safe: the executor adds, the worker asks.
    """

    def __init__(self, config: PoseConfig, refused: Callable[[InputError], None]) -> None:
        """Keep poses.

        Args:
            config: gaps and patience.
            refused: told of each message that was left out.
        """
        self.configure(config)
        self._refused = refused
        self._interrupted = False
        self._arrived = threading.Condition()
        self._track: deque[tuple[int, Pose]] = deque(maxlen=512)

    def configure(self, config: PoseConfig) -> None:
        """Take changed gaps and patience."""
        self._max_gap_ns = int(config.max_gap_s * 1e9)
        self._wait_s = config.wait_s

    def add(self, message: Any) -> None:
        """Callback for ``nav_msgs/Odometry``."""
        position, orientation = message.pose.pose.position, message.pose.pose.orientation
        try:
            pose = Pose(
                (position.x, position.y, position.z),
                (orientation.x, orientation.y, orientation.z, orientation.w),
                message.header.frame_id,
            )
        except InputError as error:
            self._refused(error)
            return
        stamp = stamp_ns(message.header.stamp)
        with self._arrived:
            if self._track and stamp <= self._track[-1][0]:
                if self._track[-1][0] - stamp < self._max_gap_ns:
                    return  # late by a little: its neighbours are there already
                self._track.clear()
            self._track.append((stamp, pose))
            self._arrived.notify_all()

    def at(self, stamp: int) -> Pose | None:
        """Pose at ``stamp`` [ns]: linear between the two nearest messages."""
        with self._arrived:
            self._arrived.wait_for(
                lambda: self._interrupted or (bool(self._track) and self._track[-1][0] >= stamp),
                self._wait_s,
            )
            track = list(self._track)
        place = bisect.bisect_left(track, stamp, key=lambda each: each[0])
        beside = track[max(0, place - 1) : place + 1]
        near = [each for each in beside if abs(each[0] - stamp) <= self._max_gap_ns]
        if not near:
            return None
        if len(near) == 1:
            return near[0][1]
        (before_ns, before), (after_ns, after) = near
        return _between(before, after, (stamp - before_ns) / (after_ns - before_ns))

    def clear(self) -> None:
        """Forget every pose."""
        with self._arrived:
            self._track.clear()
            self._interrupted = False

    def interrupt(self) -> None:
        """Wake who waits: no odometry will come."""
        with self._arrived:
            self._interrupted = True
            self._arrived.notify_all()

    def close(self) -> None:
        """Nothing to stop: the node holds the subscription."""


def _between(before: Pose, after: Pose, share: float) -> Pose:
    """Linear in position; normalised linear in rotation, which is exact enough between samples."""
    turned = sum(a * b for a, b in zip(before.orientation, after.orientation, strict=True)) < 0
    sign = -1.0 if turned else 1.0
    position = tuple(
        a + share * (b - a) for a, b in zip(before.position, after.position, strict=True)
    )
    orientation = tuple(
        a + share * (sign * b - a)
        for a, b in zip(before.orientation, after.orientation, strict=True)
    )
    return Pose(position, orientation, before.frame_id)  # type: ignore[arg-type]


class Transforms:
    """Transforms of tf2_ros, which is part of every ROS install but not of the wheels."""

    def __init__(self, node: Node, wanted: str) -> None:
        """Listen to tf.

        Args:
            node: its executor delivers the transforms.
            wanted: the setting that asks for tf, for the message where there is none.

        Raises:
            InputError: ``tf_missing``.
        """
        try:
            tf2_ros = importlib.import_module("tf2_ros")
        except ImportError as error:
            raise InputError(
                "tf_missing",
                f"{wanted}, but tf2_ros cannot be imported ({error}); install it "
                "(apt install ros-$ROS_DISTRO-tf2-ros-py) or change that setting",
            ) from error
        self._failure: type[Exception] = tf2_ros.TransformException
        # Given the node, it would offer a service that outlives it, and its own answer to a jump
        # of the node's clock fails in some releases; the node clears it itself.
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def pose(self, moving: str, fixed: str, stamp: int, wait_s: float = 0.0) -> Pose | None:
        """Pose of one frame in another at ``stamp`` [ns], or None if tf does not know it.

        Args:
            moving: frame whose pose is asked for.
            fixed: frame that it is given in.
            stamp: time [ns].
            wait_s: how long to wait for tf to know it [s]; not in the executor's thread.
        """
        if stamp <= 0:  # to tf 0 is the latest, and rclpy has no time before it
            return None
        try:
            transform = self._buffer.lookup_transform(
                fixed, moving, Time(nanoseconds=stamp), Duration(nanoseconds=int(wait_s * 1e9))
            ).transform
        except self._failure:
            return None
        position, rotation = transform.translation, transform.rotation
        return Pose(
            (position.x, position.y, position.z),
            (rotation.x, rotation.y, rotation.z, rotation.w),
            fixed,
        )

    def clear(self) -> None:
        """Forget every transform: tf2's own buffer does not on a backward jump."""
        self._buffer.clear()

    def close(self) -> None:
        """Unsubscribe: the node would hold the subscriptions for ever."""
        self._listener.unregister()


class TfPoses:
    """Asks tf."""

    def __init__(self, node: Node, config: PoseConfig) -> None:
        self._config = config
        self._transforms = Transforms(node, "pose.source is tf")

    def at(self, stamp: int) -> Pose | None:
        """Pose of the robot frame in the fixed frame at ``stamp`` [ns]."""
        return self._transforms.pose(self._config.robot_frame, self._config.fixed_frame, stamp)

    def configure(self, config: PoseConfig) -> None:
        """Nothing to change: tf interpolates by itself."""

    def clear(self) -> None:
        """Forget every transform."""
        self._transforms.clear()

    def interrupt(self) -> None:
        """Nobody waits."""

    def close(self) -> None:
        """Stop listening."""
        self._transforms.close()
