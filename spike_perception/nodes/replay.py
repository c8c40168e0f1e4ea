# SPDX-License-Identifier: Apache-2.0
"""Play a bag or an AEDAT4 file through rclpy, with /clock."""

from __future__ import annotations

import argparse
import math
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rosgraph_msgs.msg import Clock
from tqdm import tqdm
from visualization_msgs.msg import MarkerArray

from spike_perception.bags.event_replay import Recording, open_recording
from spike_perception.bags.events import PACKET_TYPES
from spike_perception.bags.raw import RawMessage
from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.nodes.message_types import message_class
from spike_perception.nodes.publishing import CLOCK_PERIOD_S, publish
from spike_perception.nodes.stamps import stamp_ns, to_stamp

CLOUD_TYPE = "sensor_msgs/msg/PointCloud2"
MARKERS_TYPE = "visualization_msgs/msg/MarkerArray"
# Each message is answered by itself.
FRAME_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image", CLOUD_TYPE)
SENSOR_TYPES = (*FRAME_TYPES, *PACKET_TYPES)
# Drivers' packets go out as our own type of the same fields where theirs is not installed.
STAND_IN = dict.fromkeys(PACKET_TYPES, PACKET_TYPES[1])
SETTLE_S = 0.5
# Windows of events are answered, not packets: how far a stream may run ahead of its answers [ns].
AHEAD_NS = 1_000_000_000
# A scan has an answer for each of its objects; the answers of others must not push out any.
ANSWERS_DEPTH = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bag", type=Path, help="bag of ROS 1 or 2, or an .aedat4 file")
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
        help="wait up to S seconds for a subscriber of a sensor topic before starting; with "
        "--lockstep for one of every sensor topic played and for the nodes that answer",
    )
    parser.add_argument(
        "--lockstep",
        nargs="+",
        default=[],
        metavar="TOPIC",
        help="after each image or cloud that a node publishing on TOPIC hears, wait for its answer "
        "of the same stamp and frame_id; of a node that draws boxes (a MarkerArray), for the boxes "
        "of that cloud, which come last and for a cloud without objects too. Event packets, whose "
        "windows are answered, wait while answers of their frame_id lie "
        f"{AHEAD_NS / 1e9:g} s behind. A topic on which several nodes answer is given once for "
        "each, so that --wait waits for all",
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


def header_frame_id(data: bytes) -> bytes:
    """The frame_id of a CDR message that begins with a ``std_msgs/Header``; empty if cut short.

    As rclpy hands it on, and so as it stands in an answer: up to the first NUL, and with U+FFFD for
    what is no UTF-8.
    """
    (size,) = (
        struct.unpack_from("<I" if data[1] & 1 else ">I", data, 12) if len(data) > 15 else (0,)
    )
    return data[16 : 16 + size].partition(b"\0")[0].decode(errors="replace").encode()


class Answers:
    """Stamps and frames of what arrives on an answer topic.

    Where clouds are answered, also stamps of the boxes that are drawn of them: a cloud without
    objects has no answer, but its boxes clear those before; and both may be in a fixed frame.
    """

    def __init__(
        self, node: Node, topic: str, timeout_s: float, listeners: int, answering: int = 1
    ) -> None:
        self._node = node
        self.topic = topic
        self._timeout_s = timeout_s
        self._listeners = listeners
        self._answering = answering
        self._subscribed = False
        self._heard: set[str] = set()
        self._arrived: set[tuple[int, bytes]] = set()
        self._drawn: dict[str, set[int]] = {}
        self._newest: dict[bytes, int] = {}
        self.unanswered = 0

    def _subscribe(self) -> None:
        """Subscribe once the topic appears: its type is only known then."""
        for name, types in self._node.get_topic_names_and_types():
            if name == self.topic and (kind := message_class(types[0])) is not None:
                self._node.create_subscription(kind, name, self._hear, ANSWERS_DEPTH, raw=True)
                self._subscribed = True

    def _hear(self, data: bytes) -> None:
        stamp, frame = header_stamp_ns(data), header_frame_id(data)
        self._arrived.add((stamp, frame))
        self._newest[frame] = max(stamp, self._newest.get(frame, stamp))

    def ready(self, sensors: Iterable[str]) -> bool:
        """Whether all who answer hear a sensor, and we and as many others as asked for hear them.

        Nodes make their publishers before they listen, so both are looked for.
        """
        if not self._subscribed:
            self._subscribe()
        asked = {node for sensor in sensors for node in self._asked(sensor)}
        return (
            self._subscribed
            and len(asked) >= self._answering
            and self._node.count_subscribers(self.topic) > self._listeners
        )

    def answers(self, sensor: str) -> bool:
        """Whether a node that publishes here subscribes to the topic ``sensor``."""
        if sensor not in self._heard and self._asked(sensor):
            self._heard.add(sensor)
        return sensor in self._heard

    def _asked(self, sensor: str) -> set[tuple[str, str]]:
        """Namespaces and names of the nodes that publish here and subscribe to ``sensor``."""
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        subscribers = self._node.get_subscriptions_info_by_topic(sensor)
        return _nodes(publishers) & _nodes(subscribers)

    def boxes(self, cloud: str) -> list[set[int]]:
        """Stamps [ns] of the boxes drawn by each node that answers the clouds of a topic here.

        Subscribes where that has not been done. Nodes that draw none are left out.
        """
        if self._timeout_s <= 0:  # nobody draws for one who waits for nothing
            return []
        asked = self._asked(cloud)
        topics = [
            topic
            for topic, types in self._node.get_topic_names_and_types()
            if MARKERS_TYPE in types
            and asked & _nodes(self._node.get_publishers_info_by_topic(topic))
        ]
        for topic in topics:
            if topic not in self._drawn:
                self._drawn[topic] = set()
                hear = partial(_add_stamp, self._drawn[topic])
                self._node.create_subscription(MarkerArray, topic, hear, 10)
        return [self._drawn[topic] for topic in topics]

    def wait_for(self, stamp: int, frame: bytes, boxes: Iterable[set[int]] = ()) -> None:
        """Spin until the answer to a message has come, or the timeout has passed.

        Args:
            stamp: of the message and its answer [ns].
            frame: their frame_id.
            boxes: :meth:`boxes` of a cloud: those of its stamp are then the end of its answer.
        """
        drawn = list(boxes)
        if not self._subscribed:  # played without --wait
            self._subscribe()

        def answered() -> bool:
            if drawn:
                return all(stamp in each for each in drawn)
            return (stamp, frame) in self._arrived

        _spin_until(self._node, answered, self._timeout_s)
        if not answered():
            self.unanswered += 1
        self._forget()

    def _forget(self) -> None:
        """What has arrived answers nothing that comes later."""
        self._arrived.clear()
        for each in self._drawn.values():
            each.clear()

    def keep_up(self, frame: bytes, stamp: int) -> None:
        """Spin until the answers to a stream have come near enough to what was sent of it.

        Given up when none has come for as long as an answer is waited for: a stream without events
        closes no window.

        Args:
            frame: frame_id of its messages and of their answers.
            stamp: of the message sent last [ns].
        """
        if not self._subscribed:  # played without --wait
            self._subscribe()
        newest = self._newest.setdefault(frame, stamp)
        deadline = time.monotonic() + self._timeout_s
        while abs(stamp - newest) > AHEAD_NS:
            if stamp < newest or time.monotonic() > deadline:  # begun again, or silent
                newest = self._newest[frame] = stamp
            else:
                rclpy.spin_once(self._node, timeout_sec=0.05)
                if self._newest[frame] > newest:
                    newest = self._newest[frame]
                    deadline = time.monotonic() + self._timeout_s
        self._forget()


def _nodes(ends: Iterable[TopicEndpointInfo]) -> set[tuple[str, str]]:
    """Namespaces and names of the nodes that have these ends of a topic."""
    return {(each.node_namespace, each.node_name) for each in ends}


def _add_stamp(stamps: set[int], boxes: MarkerArray) -> None:
    """Add the stamp [ns] of the boxes of one scan: that of the first marker, which clears."""
    stamps.update(stamp_ns(each.header.stamp) for each in boxes.markers[:1])


class Player:
    """Publishes a bag's messages at their times."""

    def __init__(self, node: Node, bag: Recording, arguments: argparse.Namespace) -> None:
        self._node = node
        self._bag = bag
        self._rate: float = arguments.rate
        self._named = bool(arguments.topics)
        self._sent = dict.fromkeys(self._chosen(arguments.topics), 0)
        self._publishers: dict[str, Publisher[Any]] = {}
        self.skipped: dict[str, str] = {}
        renamed = _remappings(arguments.remap)
        for topic in list(self._sent):
            name = bag.topics[topic]
            kind = message_class(name) or message_class(STAND_IN.get(name, name))
            if kind is None:
                self.skipped[topic] = name
                del self._sent[topic]
                continue
            profile = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
            if name in PACKET_TYPES:  # none may push out one that is still on its way
                profile.history = HistoryPolicy.KEEP_ALL
            if bag.latched(topic):
                profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
            self._publishers[topic] = node.create_publisher(
                kind, renamed.get(topic, topic), profile
            )
        self._sensors = [t for t in self._sent if bag.topics[t] in SENSOR_TYPES]
        self._frames = {t for t in self._sensors if bag.topics[t] in FRAME_TYPES}
        self._clouds = {t for t in self._sensors if bag.topics[t] == CLOUD_TYPE}
        self._clock = None if arguments.no_clock else node.create_publisher(Clock, "/clock", 10)
        self._answers = [
            Answers(node, topic, arguments.answer_timeout, arguments.listeners, answering)
            for topic, answering in Counter(arguments.lockstep).items()
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
        """Wait until a sensor topic has a subscriber and, in lockstep, all answer.

        Sensor topics named by ``--topics`` must then all be heard; of a whole bag some may be for
        nodes that do not run.

        Raises:
            InputError: ``no_answers`` if in lockstep somebody was not there in time.
        """
        sensors = [self._publishers[topic] for topic in self._sensors]
        names = [each.topic_name for each in sensors]

        def ready() -> bool:
            # Every one is asked: each subscribes when its topic appears.
            present = [answers.ready(names) for answers in self._answers]
            for topic in self._clouds:
                for answers in self._answers:
                    answers.boxes(self._publishers[topic].topic_name)
            heard = [each.get_subscription_count() > 0 for each in sensors]
            needed = [*present, *heard] if self._named and present else present
            return any(heard) and all(needed)

        if _spin_until(self._node, ready, seconds):
            # What this process has discovered, the others may take a moment longer to.
            _spin_until(self._node, lambda: False, SETTLE_S)
        elif seconds > 0 and self._answers:
            topics = ", ".join(answers.topic for answers in self._answers)
            silent = [each.topic_name for each in sensors if not each.get_subscription_count()]
            raise InputError(
                "no_answers",
                f"after {seconds:g} s not everybody listens that shall answer on {topics}"
                + (f"; nobody hears {', '.join(silent)}" if silent else "")
                + "; see what the nodes say, leave topics out by --topics, or give --wait more "
                "time",
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
                self._await(message)
                # Waiting for an answer stops the bag's time.
                started += time.monotonic() - before

    def _await(self, message: RawMessage) -> None:
        """Wait for all who answer this message."""
        topic, data = message.topic, message.data
        stamp, frame = header_stamp_ns(data), header_frame_id(data)
        for answers in self._askers(topic):
            if topic in self._clouds:
                boxes = answers.boxes(self._publishers[topic].topic_name)
                answers.wait_for(stamp, frame, boxes)
            elif topic in self._frames:
                answers.wait_for(stamp, frame)
            else:
                answers.keep_up(frame, stamp)

    def _askers(self, topic: str) -> list[Answers]:
        """The topics of answers whose nodes hear this sensor topic."""
        name = self._publishers[topic].topic_name
        return [each for each in self._answers if each.answers(name)]

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
        publish(self._publishers[message.topic], message.data)
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
    if not 0 <= arguments.rate < math.inf:
        raise InputError("invalid_rate", f"--rate is {arguments.rate}; allowed is 0 or more")
    with open_recording(arguments.bag) as bag:
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
