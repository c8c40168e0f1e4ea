# SPDX-License-Identifier: Apache-2.0
"""Play a bag through perception nodes as a robot would run them, and record what they answer."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spike_perception.bags.event_replay import Recording, open_recording
from spike_perception.bags.events import PACKET_TYPES
from spike_perception.bags.reader import IMAGE_TYPES, POINT_TYPES
from spike_perception.config import Value
from spike_perception.errors import InputError
from spike_perception.evaluation.heard import Times, read_times
from spike_perception.evaluation.launchable import EVENTS, Launchable
from spike_perception.evaluation.session import RosSession
from spike_perception.evaluation.usage import UsageSampler

COMMAND = "spike_perception.cli"
SENSOR_TYPES = (*IMAGE_TYPES, *POINT_TYPES, *PACKET_TYPES)
COMPRESSED = "/compressed"
# Nodes load their networks, and may have to export them, before they listen; a busy computer takes
# long for it [s].
WAIT_S = 180.0
# Nodes tell of themselves every second; what they say at the end is heard too [s].
LINGER_S = 1.3
# A node that has taken less than this of a core for so long has nothing left to answer.
IDLE_PERCENT = 5.0
LONGEST_WORK_S = 600.0
# The replay keeps the event queue short; how long it takes to work off is no reason to drop [s].
PATIENCE_S = 600.0
REFUSED = "cannot configure: "


@dataclass(frozen=True)
class Started:
    """A node as it is to be started.

    Attributes:
        launched: the node.
        parameters: its parameters by dotted name.
        topic: the bag's topic of its sensor.
    """

    launched: Launchable
    parameters: Mapping[str, Value]
    topic: str


@dataclass(frozen=True)
class Played:
    """What came of playing a bag.

    Attributes:
        answers: bag (MCAP) of what the nodes answered and said of themselves.
        clock: ``/clock`` as the recorder heard it.
        usage: what the nodes took of the computer.
    """

    answers: Path
    clock: Times
    usage: UsageSampler


def sensor_topic(bag: Recording, launched: Launchable, wanted: str) -> str | None:
    """The bag's topic that a node can hear: the wanted one, or the only one of its types.

    Returns:
        None if the bag has none.

    Raises:
        InputError: ``topic_ambiguous`` if there are several and none is the wanted one.
    """
    found = sorted(topic for topic, kind in bag.topics.items() if kind in launched.types)
    for topic in (wanted, f"{wanted}{COMPRESSED}"):
        if topic in found:
            return topic
    if len(found) > 1:
        raise InputError(
            "topic_ambiguous",
            f"{bag.path} has several topics for {launched.node}: {', '.join(found)}; choose with "
            f"--set {launched.node}/{launched.sensor}.topic=TOPIC",
        )
    return found[0] if found else None


def hearing(
    bag: Recording,
    launched: Launchable,
    parameters: Mapping[str, Value],
    *,
    realtime: bool = False,
) -> Started | None:
    """A node that hears this bag: by its parameters, or by the only topic that there is.

    Args:
        bag: the bag.
        launched: the node.
        parameters: its parameters by dotted name.
        realtime: whether the bag goes at its own pace; otherwise it waits, and no event packet is
            dropped for its age.

    Returns:
        None if the bag has nothing for it.
    """
    wanted = f"{launched.sensor}.topic"
    topic = sensor_topic(bag, launched, str(parameters[wanted]))
    if topic is None:
        return None
    set_here: dict[str, Value] = {wanted: topic, f"{launched.sensor}.reliability": "reliable"}
    if bag.topics[topic] == "sensor_msgs/msg/CompressedImage":
        set_here[wanted] = topic.removesuffix(COMPRESSED)
        set_here[f"{launched.sensor}.transport"] = "compressed"
    if launched is EVENTS and not realtime:
        set_here["events.queue_s"] = PATIENCE_S
    return Started(launched, {**parameters, **set_here}, topic)


def play_through(
    bag: Path, nodes: Sequence[Started], out: Path, *, realtime: bool = False
) -> Played:
    """Start nodes and a recorder as processes of their own, and play the bag to them.

    Args:
        bag: the bag.
        nodes: the nodes, at least one.
        out: folder; ``answers``, ``logs`` and the nodes' parameters are written there anew.
        realtime: play at the bag's own pace, so that a node that is too slow drops messages;
            otherwise the bag waits for each answer.

    Raises:
        InputError: ``node_refused`` if a node cannot be configured, ``process_failed`` if a
            process fails or does not end well.
    """
    answers, logs = out / "answers", out / "logs"
    for each in (answers, logs):
        shutil.rmtree(each, ignore_errors=True)
    # A topic as often as there are nodes that answer on it.
    heard = sorted(node.launched.answers for node in nodes)
    told = [node.launched.vocabulary for node in nodes if node.launched.vocabulary]
    recorded = [*dict.fromkeys(heard), *told, "/clock", "/diagnostics"]
    processes = [node.launched.node for node in nodes]
    with RosSession(logs) as session:
        # The recorder is there first: it must know the nodes before they are played to.
        session.start("record", COMMAND, ["record", "-o", str(answers), "--topics", *recorded])
        for node in nodes:
            parameters = {**node.parameters, "autostart": True, "use_sim_time": True}
            session.start_node(node.launched.node, node.launched.module, parameters)
        with UsageSampler({name: session.pid(name) for name in processes}) as usage:
            session.run(
                "replay",
                COMMAND,
                replay_arguments(bag, nodes, recorded, heard, realtime=realtime),
                lambda: _require_configured(session, processes),
            )
            _settle(session, usage, processes)
        for name in ("record", *processes):
            if status := session.stop(name):
                raise InputError(
                    "process_failed",
                    f"{name} ended with status {status}, see {logs / f'{name}.log'}",
                )
    return Played(answers, read_times(answers, "/clock"), usage)


def replay_arguments(
    bag: Path,
    nodes: Sequence[Started],
    recorded: Sequence[str],
    heard: Sequence[str],
    *,
    realtime: bool,
) -> list[str]:
    """Arguments of the replay: all topics but those of other sensors and of the nodes' answers."""
    listened = {node.topic for node in nodes}
    with open_recording(bag) as opened:
        topics = [
            topic
            for topic, kind in opened.topics.items()
            if topic in listened or (kind not in SENSOR_TYPES and topic not in recorded)
        ]
    # A node subscribes to TOPIC/compressed, whatever the bag calls it.
    renamed = [
        f"{node.topic}:={node.topic}{COMPRESSED}"
        for node in nodes
        if node.parameters.get(f"{node.launched.sensor}.transport") == "compressed"
        and not node.topic.endswith(COMPRESSED)
    ]
    # Either way everybody is waited for first; in real time no answer is waited for afterwards.
    paced = ["--rate", "1", "--answer-timeout", "0"] if realtime else ["--rate", "0"]
    return [
        *("replay", str(bag), "--topics", *topics, *paced),
        *(("--remap", *renamed) if renamed else ()),
        *("--wait", f"{WAIT_S:g}", "--lockstep", *heard, "--listeners", "1"),
    ]


def _settle(session: RosSession, usage: UsageSampler, names: Sequence[str]) -> None:
    """Wait until no node works any more: the last event windows are answered after the replay."""
    deadline = time.monotonic() + LONGEST_WORK_S
    time.sleep(LINGER_S)
    while time.monotonic() < deadline:
        session.require_alive()
        if all(usage.recent_percent(name, LINGER_S) < IDLE_PERCENT for name in names):
            return
        time.sleep(LINGER_S / 4)


def _require_configured(session: RosSession, names: Sequence[str]) -> None:
    for name in names:
        _, refused, why = session.log(name).partition(REFUSED)
        if refused:
            raise InputError("node_refused", f"{name} cannot be configured: {why.splitlines()[0]}")
