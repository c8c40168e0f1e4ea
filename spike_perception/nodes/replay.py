# SPDX-License-Identifier: Apache-2.0
"""Play a bag through rclpy, with /clock."""

from __future__ import annotations

import argparse
import struct
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from spike_perception.bags.raw import RawBag, RawMessage
from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.nodes.stamps import to_stamp

SENSOR_TYPES = (
    "event_camera_msgs/msg/EventPacket",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/PointCloud2",
    "spike_perception_msgs/msg/EventPacket",
)
CLOCK_PERIOD_S = 0.01
SETTLE_S = 0.5


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bag", type=Path, help="ROS 1 .bag, or ROS 2 bag (sqlite3 or MCAP)")
    parser.add_argument("--rate", type=float, default=1.0, help="times real time; 0: unpaced")
    parser.add_argument("--loop", action="store_true", help="play again and again")
    parser.add_argument("--topics", nargs="+", default=[], help="only these; without: all")
    parser.add_argument(
        "--remap",
        nargs="+",
        default=[],
        metavar="FROM:=TO",
        help="publish topic FROM under the name TO",
    )
    parser.add_argument("--no-clock", action="store_true", help="do not publish /clock")
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="S",
        help="wait up to S seconds for a subscriber of a sensor topic before starting, and with "
        "--lockstep for as many as there are TOPICs",
    )
    parser.add_argument(
        "--lockstep",
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="after each sensor message, wait for the answer of the same stamp on every TOPIC",
    )
    parser.add_argument(
        "--listeners",
        type=int,
        default=0,
        metavar="N",
        help="with --wait and --lockstep: wait for N subscribers of each TOPIC (a recorder)",
    )
    parser.add_argument(
        "--answer-timeout", type=float, default=5.0, metavar="S", help="give an answer up after S"
    )
    add_json(parser)


def message_class(message_type: str) -> type | None:
    """The Python class of ``package/msg/Name``, or None where it is not installed."""
    package, _, name = message_type.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


def header_stamp_ns(data: bytes) -> int:
    """Stamp [ns] of a CDR message that begins with a ``std_msgs/Header``.

    Raises:
        InputError: ``no_header`` if the message is too short to have one.
    """
    if len(data) < 12:
        raise InputError(
            "no_header",
            f"a message of {len(data)} bytes has no header; --lockstep compares header stamps",
        )
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


class Answers:
    """Stamps of what arrives on an answer topic."""

    def __init__(self, node: Node, topic: str, timeout_s: float, listeners: int) -> None:
        self._node = node
        self.topic = topic
        self._timeout_s = timeout_s
        self._listeners = listeners
        self._subscribed = False
        self._stamps: set[int] = set()
        self.unanswered = 0

    def _subscribe(self) -> None:
        """Subscribe once the topic appears: its type is only known then."""
        for name, types in self._node.get_topic_names_and_types():
            if name == self.topic and (kind := message_class(types[0])) is not None:
                self._node.create_subscription(
                    kind, name, lambda data: self._stamps.add(header_stamp_ns(data)), 10, raw=True
                )
                self._subscribed = True

    def ready(self) -> bool:
        """Whether somebody publishes answers that we, and as many others as asked for, hear."""
        if not self._subscribed:
            self._subscribe()
        return (
            self._subscribed
            and self._node.count_publishers(self.topic) > 0
            and self._node.count_subscribers(self.topic) > self._listeners
        )

    def wait_for(self, stamp: int) -> None:
        """Spin until the answer of ``stamp`` [ns] has come, or the timeout has passed."""
        deadline = time.monotonic() + self._timeout_s
        if not self._subscribed:  # played without --wait
            self._subscribe()
        while stamp not in self._stamps and time.monotonic() < deadline:
            rclpy.spin_once(self._node, timeout_sec=0.05)
        if stamp not in self._stamps:
            self.unanswered += 1
        self._stamps.clear()


class Player:
    """Publishes a bag's messages at their times."""

    def __init__(self, node: Node, bag: RawBag, arguments: argparse.Namespace) -> None:
        self._node = node
        self._bag = bag
        self._rate: float = arguments.rate
        self._sent = dict.fromkeys(self._chosen(arguments.topics), 0)
        self._publishers: dict[str, Publisher[Any]] = {}
        self.skipped: dict[str, str] = {}
        renamed = _remappings(arguments.remap)
        for topic in list(self._sent):
            kind = message_class(bag.topics[topic])
            if kind is None:
                self.skipped[topic] = bag.topics[topic]
                del self._sent[topic]
                continue
            profile = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
            if bag.latched(topic):
                profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
            self._publishers[topic] = node.create_publisher(
                kind, renamed.get(topic, topic), profile
            )
        self._sensors = [t for t in self._sent if bag.topics[t] in SENSOR_TYPES]
        self._clock = None if arguments.no_clock else node.create_publisher(Clock, "/clock", 10)
        self._answers = [
            Answers(node, topic, arguments.answer_timeout, arguments.listeners)
            for topic in arguments.lockstep
        ]

    def _chosen(self, topics: list[str]) -> list[str]:
        if missing := [topic for topic in topics if topic not in self._bag.topics]:
            raise InputError(
                "topic_missing",
                f"{self._bag.path} has no topic {', '.join(missing)}; there are "
                f"{', '.join(self._bag.topics)}",
            )
        return topics or [topic for topic in self._bag.topics if topic != "/clock"]

    def wait(self, seconds: float) -> None:
        """Wait until a sensor topic has a subscriber; in lockstep, one for each topic of answers.

        Nodes make their publishers before they listen, so both are waited for.

        Raises:
            InputError: ``no_answers`` if in lockstep nobody was there in time.
        """
        listeners = max(1, len(self._answers))

        def ready() -> bool:
            counts = [self._publishers[topic].get_subscription_count() for topic in self._sensors]
            # Every one is asked: each subscribes when its topic appears.
            answered = [answers.ready() for answers in self._answers]
            return max(counts, default=0) >= listeners and all(answered)

        if _spin_until(self._node, ready, seconds):
            # What this process has discovered, the others may take a moment longer to.
            _spin_until(self._node, lambda: False, SETTLE_S)
        elif seconds > 0 and self._answers:
            topics = ", ".join(answers.topic for answers in self._answers)
            raise InputError(
                "no_answers",
                f"after {seconds:g} s images are not yet heard, and answered on {topics}, by "
                "everybody that is asked for; see what the nodes say, or give --wait more time",
            )

    def play(self) -> None:
        """Publish every message once."""
        started = time.monotonic()
        first_ns: int | None = None
        for message in self._progress(self._bag.raw(self._sent)):
            first_ns = message.time_ns if first_ns is None else first_ns
            if self._rate > 0:
                self._pace(first_ns, message.time_ns, started)
            elif self._clock is not None:
                self._tick(message.time_ns)
            self._publish(message)
            if self._answers and message.topic in self._sensors:
                before = time.monotonic()
                for answers in self._answers:
                    answers.wait_for(header_stamp_ns(message.data))
                # Waiting for an answer stops the bag's time.
                started += time.monotonic() - before

    def result(self) -> dict[str, Any]:
        """What was played: messages by topic, types that are not installed, missing answers."""
        return {
            "published": self._sent,
            "skipped": self.skipped,
            "unanswered": sum(each.unanswered for each in self._answers) if self._answers else None,
        }

    def _progress(self, messages: Iterator[RawMessage]) -> Iterator[RawMessage]:
        total = self._bag.duration_ns / 1e9
        with tqdm(total=round(total, 1), unit="s", desc=self._bag.path.name, disable=None) as bar:
            first_ns: int | None = None
            for message in messages:
                first_ns = message.time_ns if first_ns is None else first_ns
                bar.update(round((message.time_ns - first_ns) / 1e9, 1) - bar.n)
                yield message

    def _pace(self, first_ns: int, now_ns: int, started: float) -> None:
        """Sleep until ``now_ns`` of the bag's time is due, ticking the clock on the way."""
        while True:
            elapsed = time.monotonic() - started
            due = (now_ns - first_ns) / 1e9 / self._rate
            if self._clock is not None:
                self._tick(min(now_ns, first_ns + int(elapsed * self._rate * 1e9)))
            if elapsed >= due:
                return
            time.sleep(min(CLOCK_PERIOD_S, due - elapsed))

    def _tick(self, time_ns: int) -> None:
        if self._clock is not None:
            self._clock.publish(Clock(clock=to_stamp(time_ns)))

    def _publish(self, message: RawMessage) -> None:
        publisher = self._publishers[message.topic]
        while True:
            try:
                publisher.publish(message.data)
                break
            except RCLError:
                if not rclpy.ok():
                    raise
                time.sleep(CLOCK_PERIOD_S)  # the reliable queue is full: let it drain
        self._sent[message.topic] += 1


def _remappings(pairs: list[str]) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for pair in pairs:
        old, separator, new = pair.partition(":=")
        if not (old and separator and new):
            raise InputError("invalid_remap", f"--remap takes FROM:=TO, not {pair!r}")
        renamed[old] = new
    return renamed


def _spin_until(node: Node, condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        rclpy.spin_once(node, timeout_sec=0.05)
    return False


def run(arguments: argparse.Namespace) -> int:
    """Play the bag; returns 0 when it was played to its end."""
    if arguments.rate < 0:
        raise InputError("invalid_rate", f"--rate is {arguments.rate}; allowed is 0 or more")
    with RawBag(arguments.bag) as bag:
        rclpy.init(args=[])
        node = None
        try:
            node = rclpy.create_node("replay")
            player = Player(node, bag, arguments)
            for topic, kind in player.skipped.items():
                node.get_logger().warning(f"{topic} is left out: {kind} is not installed here")
            player.wait(arguments.wait)
            player.play()
            while arguments.loop and any(player.result()["published"].values()):
                player.play()
            # What is still queued goes out before the publishers go.
            for publisher in node.publishers:
                publisher.wait_for_all_acked(rclpy.duration.Duration(seconds=2))
        except Exception as error:
            if rclpy.ok():
                raise
            # Told to stop by SIGTERM, which each part of rclpy reports by an exception of its own.
            raise KeyboardInterrupt from error
        finally:
            if node is not None:
                node.destroy_node()
            rclpy.try_shutdown()
    result = player.result()
    lines = [f"{count:8d}  {topic}" for topic, count in result["published"].items()]
    emit(arguments, result, "\n".join(lines))
    return 0
