# SPDX-License-Identifier: Apache-2.0
"""Plays a bag's sensors round and round, spoils them, and watches what the nodes make of it.

A process of its own: ``python -m spike_perception.nodes.fault_player BAG --json FILE``.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image, PointCloud2

from spike_perception.bags.raw import RawBag
from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.nodes.faults import (
    CLOUD_FAULTS,
    EVENT_FAULTS,
    IMAGE_FAULTS,
    Fault,
    Spoil,
    Spoiled,
)
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception_msgs.msg import EventPacket, ObjectClass, PlaceMatch

# A fault lasts until every node has answered it, at most so long; then all is well for a while [s].
LONGEST_S = 20.0
# After the last fault, answers are waited for at most so long [s].
LATE_S = 30.0
REST_S = 0.5
# One round of all faults may take so much longer than what was asked for [s].
OVERTIME_S = 240.0
# Nodes that have not answered clean messages after so long will not [s].
START_S = 180.0
WARM_ANSWERS = 3
# A pause between the end of a round of the bag and the next [ns].
SEAM_NS = 10_000_000
LONGEST_WAIT_NS = 20_000_000
Script = Generator[None, None, None]
ENDED = object()


@dataclass(frozen=True)
class Kind:
    """A kind of sensor: its message type, its faults and who listens."""

    message: type[Any]
    package: str
    faults: tuple[Fault, ...]
    nodes: tuple[str, ...]

    @property
    def type(self) -> str:
        """Name of the message type."""
        return f"{self.package}/msg/{self.message.__name__}"


KINDS = (
    Kind(Image, "sensor_msgs", IMAGE_FAULTS, ("camera_classifier", "place_recognizer")),
    Kind(PointCloud2, "sensor_msgs", CLOUD_FAULTS, ("lidar_classifier",)),
    Kind(EventPacket, "spike_perception_msgs", EVENT_FAULTS, ("dvs_classifier",)),
)
# ObjectClass.source -> node.
SOURCES = {"camera": "camera_classifier", "lidar": "lidar_classifier", "events": "dvs_classifier"}
# Node -> the parameter that names its file.
FILES = {
    "camera_classifier": "model.bundle",
    "lidar_classifier": "model.bundle",
    "dvs_classifier": "model.bundle",
    "place_recognizer": "map.path",
}
BAD_FILE = ("truncated_file", "bad_header", "too_large", "map_corrupt", "not_a_map")


class Watch:
    """What the nodes answer and what they tell of themselves."""

    def __init__(self, node: Node) -> None:
        self.counters: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.answers: Counter[str] = Counter()
        self.stamps: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=2000))
        self._last: dict[tuple[str, str], int] = {}
        node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 100)
        node.create_subscription(ObjectClass, "/object_class", self._named, 1000)
        node.create_subscription(
            PlaceMatch, "/place_match", lambda m: self._answered("place_recognizer", m), 1000
        )

    def _named(self, message: ObjectClass) -> None:
        if (node := SOURCES.get(message.source)) is not None:
            self._answered(node, message)

    def _answered(self, node: str, message: Any) -> None:
        self.answers[node] += 1
        self.stamps[node].append(stamp_ns(message.header.stamp))

    def _diagnose(self, message: DiagnosticArray) -> None:
        """Sum the counters up, over all the times that a node was configured."""
        for status in message.status:
            node = status.name.partition(":")[0]
            if status.level == DiagnosticStatus.STALE:
                self.counters[node]["stale"] += 1
            for each in status.values:
                if not each.value.isdecimal():
                    continue
                key, value = (status.name, each.key), int(each.value)
                before = self._last.get(key, 0)
                self._last[key] = value
                reason = each.key.removeprefix("dropped ").removeprefix("refused ")
                self.counters[node][reason] += value - before if value >= before else value


@dataclass
class Injected:
    """One fault, as one node met it."""

    fault: str
    node: str
    messages: int = 0
    answered_by: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Open:
    """A fault that a node has not answered yet; a node that lags behind may still do so."""

    met: Injected
    begun_s: float
    answer: Callable[[], str | None]


@dataclass
class Sensor:
    """A topic of the bag, played round and round."""

    topic: str
    kind: Kind
    messages: list[tuple[int, bytes]]
    publisher: Any
    round_ns: int
    nodes: tuple[str, ...]
    script: Script | None = None
    spoil: Spoil | None = None
    spoiled: set[int] = field(default_factory=set)
    spoiled_count: int = 0
    sent: int = 0

    def due_ns(self) -> int:
        """When the next message is due, after the start [ns]."""
        rounds, index = divmod(self.sent, len(self.messages))
        return rounds * self.round_ns + self.messages[index][0]

    def send(self, now_ns: int, answered_ns: int) -> None:
        """Publish the next message, or what the fault makes of it.

        Args:
            now_ns: its stamp [ns].
            answered_ns: stamp of the last message that every node has answered [ns].
        """
        data = self.messages[self.sent % len(self.messages)][1]
        if self.spoil is None and not self.topic_counts:
            self.publisher.publish(stamped(data, now_ns))
        else:
            message: Any = deserialize_message(data, self.kind.message)
            message.header.stamp = to_stamp(now_ns)
            if self.topic_counts:
                message.seq, message.time_base = self.sent, now_ns
            for each in self._spoilt(message, answered_ns):
                self.publisher.publish(each)
        self.sent += 1

    def go_on(self) -> None:
        """Go on with the faults until the next thing to wait for."""
        if self.script is not None and next(self.script, ENDED) is ENDED:
            self.script = None

    @property
    def topic_counts(self) -> bool:
        """Whether the messages have a number and a time base, which must not begin anew."""
        return self.kind.faults is EVENT_FAULTS

    def _spoilt(self, message: Any, answered_ns: int) -> list[Any]:
        if self.spoil is None:
            return [message]
        published = self.spoil(Spoiled(message, answered_ns))
        self.spoiled_count += max(1, len(published))
        self.spoiled |= {stamp_ns(each.header.stamp) for each in published}
        return published


def stamped(data: bytes, now_ns: int) -> bytes:
    """A CDR message that begins with a header, with another stamp [ns]."""
    changed = bytearray(data)
    struct.pack_into("<iI" if data[1] & 1 else ">iI", changed, 4, *divmod(now_ns, 1_000_000_000))
    return bytes(changed)


def read_sensors(bag: RawBag, node: Node, names: Iterable[str]) -> list[Sensor]:
    """The sensors of a bag that the nodes listen to.

    Raises:
        InputError: ``topic_missing`` if a node has no sensor in the bag.
    """
    sensors = []
    for kind in KINDS:
        nodes = tuple(name for name in kind.nodes if name in names)
        if not nodes:
            continue
        topics = [name for name, given in bag.topics.items() if given == kind.type][:1]
        recorded = list(bag.raw(topics))
        if not recorded:
            raise InputError(
                "topic_missing",
                f"{bag.path} has no messages of type {kind.type} for {', '.join(nodes)}",
            )
        (topic,), first = topics, recorded[0].time_ns
        sensors.append(
            Sensor(
                topic,
                kind,
                [(each.time_ns - first, each.data) for each in recorded],
                node.create_publisher(kind.message, topic, QoSProfile(depth=100)),
                recorded[-1].time_ns - first + SEAM_NS,
                nodes,
            )
        )
    return sensors


class FaultPlayer:
    """Plays sensors and, once all nodes answer, one fault after the other on each of them."""

    def __init__(self, node: Node, sensors: list[Sensor], folder: Path) -> None:
        self._node = node
        self._watch = Watch(node)
        self._sensors = sensors
        self._folder = folder
        self._started_ns: int | None = None
        self._open: list[Open] = []
        self._rounds: dict[str, list[float]] = {}
        self.injected: list[Injected] = []

    def warm_up(self) -> None:
        """Wait until every node says that it hears nothing, then until it answers.

        Raises:
            InputError: ``no_diagnostics`` or ``no_answer`` from a node in :data:`START_S` each.
        """
        names = [name for sensor in self._sensors for name in sensor.nodes]
        met = [Injected("missing_topic", name) for name in names]
        begun = time.monotonic()
        self._require("no_diagnostics", names, lambda n: self._watch.counters[n]["stale"] > 0)
        for each in met:
            each.answered_by, each.seconds = "stale", time.monotonic() - begun
        self.injected += met
        self._started_ns = time.time_ns()
        self._require("no_answer", names, lambda n: self._watch.answers[n] >= WARM_ANSWERS)

    def _require(self, reason: str, names: list[str], good: Callable[[str], bool]) -> None:
        """Go on until all is good with every node; what is not in time is an error."""
        self._until(lambda: all(map(good, names)), time.monotonic() + START_S)
        if late := [name for name in names if not good(name)]:
            raise InputError(
                reason,
                f"{reason.replace('_', ' ')} from {', '.join(late)} in {START_S:.0f} s; see its "
                "log, and whether this computer is busy with something else",
            )

    def run(self, seconds: float) -> None:
        """Play with faults: each of them once at least, and a fault that has begun to its end."""
        end = time.monotonic() + seconds
        for sensor in self._sensors:
            self._rounds |= {name: [time.time()] for name in sensor.nodes}
            sensor.script = self._script(sensor, end)
        self._until(lambda: all(e.script is None for e in self._sensors), end + OVERTIME_S)
        self._started_ns = None  # nothing is sent any more: who lags behind can catch up
        self._until(lambda: not self._open, time.monotonic() + LATE_S)

    def result(self) -> dict[str, Any]:
        """Faults as they were met, messages sent, answers, and counters of /diagnostics.

        ``rounds_s``: when each node began its first round of all faults, its second and so on,
        and when the last one ended (s since 1970).
        """
        return {
            "rounds_s": self._rounds,
            "faults": [vars(each) for each in self.injected],
            "sent": {each.topic: each.sent for each in self._sensors},
            "answers": dict(self._watch.answers),
            "counters": {
                node: {reason: count for reason, count in sorted(counter.items()) if count}
                for node, counter in self._watch.counters.items()
            },
        }

    # Playing.

    def _until(self, done: Callable[[], bool], deadline: float) -> None:
        while not done() and time.monotonic() < deadline:
            self._tick()

    def _tick(self) -> None:
        """Send what is due, go on with the faults, and hear the nodes for a moment."""
        wait_ns = LONGEST_WAIT_NS
        if self._started_ns is not None:
            for sensor in self._sensors:
                if time.time_ns() - self._started_ns >= sensor.due_ns():
                    sensor.send(time.time_ns(), self._answered_ns(sensor))
                sensor.go_on()
            due = min(sensor.due_ns() for sensor in self._sensors)
            wait_ns = min(wait_ns, max(0, due - (time.time_ns() - self._started_ns)))
        rclpy.spin_once(self._node, timeout_sec=wait_ns / 1e9)
        for each in self._open:
            each.met.answered_by = each.answer()
            each.met.seconds = time.monotonic() - each.begun_s
        self._open = [each for each in self._open if each.met.answered_by is None]

    def _answered_ns(self, sensor: Sensor) -> int:
        return min(
            (stamps[-1] for n in sensor.nodes if (stamps := self._watch.stamps[n])), default=0
        )

    # Faults.

    def _script(self, sensor: Sensor, end: float) -> Script:
        while True:
            for fault in sensor.kind.faults:
                yield from self._spoil(sensor, fault)
                yield from self._rest(REST_S)
            for name in sensor.nodes:
                yield from self._trouble(name)
            for name in sensor.nodes:
                self._rounds[name].append(time.time())
            if time.monotonic() >= end:
                return

    def _rest(self, seconds: float) -> Script:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            yield

    def _spoil(self, sensor: Sensor, fault: Fault) -> Script:
        met = [Injected(fault.name, name) for name in sensor.nodes]
        before = {name: self._watch.counters[name].copy() for name in sensor.nodes}
        self.injected += met
        sensor.spoil, sensor.spoiled_count = fault.spoil, 0
        begun = time.monotonic()
        spoiled = sensor.spoiled = set()
        for each in met:
            self._open.append(
                Open(
                    each, begun, partial(self._answer, spoiled, fault, each.node, before[each.node])
                )
            )
        while time.monotonic() < begun + LONGEST_S and any(e.answered_by is None for e in met):
            yield
            for each in met:
                each.messages = sensor.spoiled_count
        sensor.spoil = None

    def _answer(
        self, spoiled: set[int], fault: Fault, node: str, before: Counter[str]
    ) -> str | None:
        """By what a node has answered a fault, None if it has not yet."""
        if not fault.reasons:
            return "answer" if spoiled & set(self._watch.stamps[node]) else None
        return self._risen(node, before, fault.reasons)

    def _risen(self, node: str, before: Counter[str], reasons: Iterable[str]) -> str | None:
        now = self._watch.counters[node]
        return next((reason for reason in reasons if now[reason] > before[reason]), None)

    # Trouble beside messages: lifecycle and files.

    def _trouble(self, name: str) -> Script:
        """Stop a node at work, configure it twice, and give it files it cannot use."""
        stopped = self._met("deactivate_at_work", name)
        yield from self._change(name, Transition.TRANSITION_DEACTIVATE)
        yield from self._change(name, Transition.TRANSITION_ACTIVATE)
        if (yield from self._comes_back(name)):
            stopped.answered_by = "answer"
        twice = self._met("double_configure", name)
        if not (yield from self._change(name, Transition.TRANSITION_CONFIGURE)):
            twice.answered_by = "transition refused"
        what = FILES[name].partition(".")[0].replace("model", "weights")
        if what == "weights":
            missing = self._folder / "none.safetensors"
            yield from self._bad_file(name, f"{what}_missing", missing, ("file_missing",))
        corrupt = self._folder / f"{name}.safetensors"
        corrupt.write_bytes(b"x" * 1000)
        yield from self._bad_file(name, f"{what}_corrupt", corrupt, BAD_FILE)

    def _bad_file(self, name: str, fault: str, path: Path, reasons: tuple[str, ...]) -> Script:
        """Configure a node with a bad file, then with its own: it must refuse, and come back."""
        met = self._met(fault, name)
        before = self._watch.counters[name].copy()
        yield from self._change(name, Transition.TRANSITION_DEACTIVATE)
        yield from self._change(name, Transition.TRANSITION_CLEANUP)
        good = yield from self._set_file(name, str(path))
        yield from self._change(name, Transition.TRANSITION_CONFIGURE)
        until = time.monotonic() + LATE_S
        while (refused := self._risen(name, before, reasons)) is None and time.monotonic() < until:
            yield
        yield from self._set_file(name, good)
        yield from self._change(name, Transition.TRANSITION_CONFIGURE)
        yield from self._change(name, Transition.TRANSITION_ACTIVATE)
        if (yield from self._comes_back(name)):
            met.answered_by = refused

    def _met(self, fault: str, name: str) -> Injected:
        self.injected.append(Injected(fault, name))
        return self.injected[-1]

    def _comes_back(self, name: str) -> Generator[None, None, bool]:
        """Whether a node answers within :data:`LATE_S`."""
        before, until = self._watch.answers[name], time.monotonic() + LATE_S
        while self._watch.answers[name] == before and time.monotonic() < until:
            yield
        return self._watch.answers[name] > before

    def _call(self, kind: Any, service: str, request: Any) -> Generator[None, None, Any]:
        client: Any = self._node.create_client(kind, service)
        while not client.service_is_ready():
            yield
        future = client.call_async(request)
        while not future.done():
            yield
        self._node.destroy_client(client)
        return future.result()

    def _change(self, name: str, transition: int) -> Generator[None, None, bool]:
        """Ask for a lifecycle transition; returns whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        answer = yield from self._call(ChangeState, f"/{name}/change_state", request)
        return bool(answer.success)

    def _set_file(self, name: str, path: str) -> Generator[None, None, str]:
        """Set the parameter that names a node's file; returns what it was."""
        wanted = GetParameters.Request(names=[FILES[name]])
        before = yield from self._call(GetParameters, f"/{name}/get_parameters", wanted)
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=path)
        changed = SetParameters.Request(parameters=[Parameter(name=FILES[name], value=value)])
        yield from self._call(SetParameters, f"/{name}/set_parameters", changed)
        return str(before.values[0].string_value)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bag", type=Path, help="bag with the sensors' topics")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long, with faults")
    parser.add_argument("--nodes", nargs="+", choices=sorted(FILES), default=sorted(FILES))
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Play with faults and write what came of it."""
    with RawBag(arguments.bag) as bag, tempfile.TemporaryDirectory() as folder:
        rclpy.init(args=[])
        node = rclpy.create_node("fault_player")
        try:
            sensors = read_sensors(bag, node, arguments.nodes)
            player = FaultPlayer(node, sensors, Path(folder))
            player.warm_up()
            player.run(arguments.seconds)
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    emit(arguments, player.result(), f"{len(player.injected)} faults")
    return 0


def main() -> None:
    """Entry point of ``python -m``."""
    parser = argparse.ArgumentParser(prog="fault_player", description=__doc__)
    configure(parser)
    try:
        sys.exit(run(parser.parse_args()))
    except InputError as error:
        print(f"fault_player: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
