# SPDX-License-Identifier: Apache-2.0
"""Publish messages the moment they are made, in real time, with /clock."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from spike_perception.bags.message_writer import MessageWriter
from spike_perception.nodes.message_types import message_class
from spike_perception.nodes.publishing import CLOCK_PERIOD_S, publish
from spike_perception.nodes.stamps import to_stamp

if TYPE_CHECKING:
    from rclpy.publisher import Publisher
    from typing_extensions import Self

DRAIN_S = 2.0


class LivePublisher(MessageWriter):
    """Publishes each message when its time has come, as a context manager with its own node.

    Time runs as the wall clock does, and more slowly where messages are not made fast enough: what
    was lost is not caught up. Messages of types that are not installed are left out.

    Args:
        name: of the node.

    Attributes:
        skipped: topics left out, with their types.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.skipped: dict[str, str] = {}
        self._publishers: dict[str, Publisher[Any]] = {}
        self._begun: tuple[float, int] | None = None  # wall clock [s] and stamp [ns]

    def __enter__(self) -> Self:
        rclpy.init(args=[])
        self._node = rclpy.create_node(self._name)
        self._clock = self._node.create_publisher(Clock, "/clock", 10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        told_to_stop = not rclpy.ok()
        if kind is None:
            for publisher in self._publishers.values():
                publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=DRAIN_S))
        self._node.destroy_node()
        rclpy.try_shutdown()
        if told_to_stop and isinstance(error, Exception):
            # By SIGTERM, which each part of rclpy reports by an exception of its own.
            raise KeyboardInterrupt from error

    def serialized(
        self, topic: str, stamp_ns: int, message_type: str, data: bytes | memoryview
    ) -> None:
        """Publish one message when its time has come."""
        publisher = self._publisher(topic, message_type)
        self._wait_until(stamp_ns)
        if publisher is None:
            return
        publish(publisher, bytes(data))
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def _publisher(self, topic: str, message_type: str) -> Publisher[Any] | None:
        if topic not in self._publishers and topic not in self.skipped:
            kind = message_class(message_type)
            if kind is None:
                self.skipped[topic] = message_type
                self._node.get_logger().warning(
                    f"{topic} is left out: {message_type} is not installed here"
                )
                return None
            profile = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
            if topic == "/tf_static":
                profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
            self._publishers[topic] = self._node.create_publisher(kind, topic, profile)
        return self._publishers.get(topic)

    def _wait_until(self, stamp_ns: int) -> None:
        """Sleep until ``stamp_ns`` is due, ticking the clock on the way."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now, stamp_ns
        began, first_ns = self._begun
        due = began + (stamp_ns - first_ns) / 1e9
        if now > due:
            self._begun = began + now - due, first_ns
        while now < due:
            self._tick(stamp_ns - int((due - now) * 1e9))
            time.sleep(min(CLOCK_PERIOD_S, due - now))
            now = time.monotonic()
        self._tick(stamp_ns)

    def _tick(self, time_ns: int) -> None:
        self._clock.publish(Clock(clock=to_stamp(time_ns)))
