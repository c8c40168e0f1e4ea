# SPDX-License-Identifier: Apache-2.0
"""The demo: a simulated robot drives a loop twice, recognises places and names what it senses.

Four nodes: one recognises places, three name what camera, LiDAR and event camera sense. One whose
weights are not there is left out, and the demo says so.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from spike_perception.bags.event_replay import open_recording
from spike_perception.bags.reader import BagReader
from spike_perception.cli import add_json, emit
from spike_perception.config import Value
from spike_perception.deploy.shipped import MODELS, VOCABULARIES, shipped_file
from spike_perception.errors import InputError
from spike_perception.evaluation.answers import Answers, Judged, judge, read_answers
from spike_perception.evaluation.bag_names import NamedBag, judge_played
from spike_perception.evaluation.class_answers import ClassAnswers, JudgedClasses
from spike_perception.evaluation.demo_classes import (
    ClassifierFiles,
    find_classifier,
    judge_recorded,
    table_rows,
    tell,
)
from spike_perception.evaluation.demo_scans import (
    event_rows,
    find_events,
    find_lidar,
    lidar_rows,
    seen_by_class,
    seen_rows,
    tell_classes,
    tell_events,
)
from spike_perception.evaluation.drive_report import tell_drive
from spike_perception.evaluation.launchable import CAMERA, EVENTS, LIDAR, PLACES, Launchable
from spike_perception.evaluation.node_parameters import resolve
from spike_perception.evaluation.provenance import provenance
from spike_perception.evaluation.replayed import COMMAND, Started, hearing, play_through
from spike_perception.evaluation.report import Report, open_report, shown
from spike_perception.evaluation.session import LOGS, RosSession, clear

# Right within this distance [m].
WITHIN_M = 1.0
# What the demo sets apart from the node's defaults.
EXCLUSION_S = 20.0
PARAMETERS: dict[str, Value] = {
    "pose.source": "odometry",
    "pose.wait_s": 1.0,
    "map.mode": "both",
    "decision.exclusion_s": EXCLUSION_S,
}
# Slower than the sensors', so that two cores drive and play two laps within three minutes [Hz].
LIDAR_RATE = 1.0
EVENTS_RATE = 20.0

Found = TypeVar("Found")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for everything")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated drive")
    parser.add_argument("--world", default="loop", help="simulated world")
    parser.add_argument("--drive", default="two_laps", help="route through it")
    parser.add_argument("--descriptor", default="", help="name; without: the node's default")
    for option, default, what in (
        ("--bundle", "camera", "camera encoder"),
        ("--bank", "word_bank", "its word bank"),
        ("--points-bundle", "points", "encoder of the LiDAR's objects"),
        ("--points-bank", "points_bank", "its word bank"),
        ("--events-bundle", "events", "encoder of events"),
        ("--events-pack", "digits", "its vocabulary"),
    ):
        parser.add_argument(option, default=default, help=f"{what}: shipped name or file")
    add_json(parser)


@dataclass
class Driven:
    """A drive, and what its nodes answered.

    Attributes:
        drive: bag of the drive.
        nodes: the nodes that were played to, by name.
        left_out: why others were not, by name.
        answers: bag of their answers.
        files: what the camera classifier ran; None without it.
    """

    drive: Path
    nodes: dict[str, Started] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    answers: Path = Path()
    files: ClassifierFiles | None = None

    def attempt(self, launched: Launchable, find: Callable[[], Found]) -> Found | None:
        """What ``find`` returns; if a file or answers are missing, the node is left out."""
        if launched.node in self.left_out:
            return None
        try:
            return find()
        except InputError as error:
            if error.reason not in ("file_missing", "no_answers"):
                raise
            self.left_out[launched.node] = str(error)
            print(f"{launched.node} is left out: {error}", file=sys.stderr)
            return None


def run(arguments: argparse.Namespace) -> int:
    """Simulate, recognise over DDS, judge and report."""
    out: Path = arguments.out
    clear(out, "drive", "map.db*")
    started = time.monotonic()
    driven = Driven(out / "drive")
    _simulate(arguments, driven, out)
    simulated = time.monotonic()
    _play(arguments, driven, out)
    judged = _judge(driven)
    page, lines = _report(arguments, driven, judged, started, simulated)
    width = max(len(label) for label, _ in lines)
    text = [f"{label:<{width}}  {value}" for label, value in lines]
    emit(arguments, judged.result, "\n".join([*text, f"report: {page}"]))
    return 0


def _simulate(arguments: argparse.Namespace, driven: Driven, out: Path) -> None:
    """Write the drive, with those sensors only whose classifiers are there."""
    sensors = ["camera"]
    for launched, sensor, files in (
        (LIDAR, "lidar", ((arguments.points_bundle, MODELS), (arguments.points_bank, MODELS))),
        (
            EVENTS,
            "events",
            ((arguments.events_bundle, MODELS), (arguments.events_pack, VOCABULARIES)),
        ),
    ):
        if driven.attempt(launched, partial(_shipped, files)):
            sensors.append(sensor)
    words = ["simulate", arguments.world, "--drive", arguments.drive, "-o", str(driven.drive)]
    words += ["--seed", str(arguments.seed), "--sensors", ",".join(sensors)]
    words += ["--lidar.rate", str(LIDAR_RATE), "--events.rate", str(EVENTS_RATE)]
    with RosSession(out / LOGS) as session:
        session.run("simulate", COMMAND, words)


def _shipped(files: Sequence[tuple[str, str]]) -> list[Path]:
    return [shipped_file(name, folder) for name, folder in files]


def _play(arguments: argparse.Namespace, driven: Driven, out: Path) -> None:
    """Play the drive through the nodes whose weights are there."""
    drive = driven.drive
    chosen = [f"descriptor.name={arguments.descriptor}"] if arguments.descriptor else []
    wanted = [(PLACES, resolve(PLACES, chosen, {**PARAMETERS, "map.path": str(out / "map.db")}))]
    driven.files = driven.attempt(
        CAMERA, lambda: find_classifier(arguments.bundle, arguments.bank, drive)
    )
    for launched, parameters in (
        (CAMERA, driven.files and driven.files.parameters()),
        (
            LIDAR,
            driven.attempt(
                LIDAR, lambda: find_lidar(arguments.points_bundle, arguments.points_bank, drive)
            ),
        ),
        (
            EVENTS,
            driven.attempt(
                EVENTS, lambda: find_events(arguments.events_bundle, arguments.events_pack)
            ),
        ),
    ):
        if parameters:
            wanted.append((launched, resolve(launched, [], parameters)))
    with open_recording(drive) as bag:
        for launched, parameters in wanted:
            if node := hearing(bag, launched, parameters):
                driven.nodes[launched.node] = node
    driven.answers = play_through(drive, list(driven.nodes.values()), out).answers


@dataclass(frozen=True)
class JudgedDrive:
    """Answers of all nodes, judged; None for a node that was left out.

    Attributes:
        result: figures by their JSON name.
        answers: of the place recogniser.
        places: these, judged.
        camera: names and judgement of the camera classifier.
        lidar: of the LiDAR classifier.
        events: of the event classifier.
        seen: see :func:`~spike_perception.evaluation.demo_scans.seen_by_class`.
    """

    result: dict[str, Any]
    answers: Answers
    places: Judged
    camera: tuple[ClassAnswers, JudgedClasses] | None
    lidar: NamedBag | None
    events: NamedBag | None
    seen: dict[str, dict[str, Any]]


def _judge(driven: Driven) -> JudgedDrive:
    answers = read_answers(driven.answers)
    with BagReader(driven.drive) as bag:
        truth = list(bag.poses("/ground_truth/odom"))
        sent = sum(1 for _ in bag.messages("/camera/image_raw"))
    places = judge(answers, truth, WITHIN_M, EXCLUSION_S)
    files = driven.files
    camera = judge_recorded(files, driven.drive, driven.answers) if files else None

    def named(launched: Launchable) -> NamedBag | None:
        node = driven.nodes.get(launched.node)
        if node is None:
            return None
        return driven.attempt(launched, lambda: judge_played(driven.drive, node, driven.answers))

    lidar, events = named(LIDAR), named(EVENTS)
    seen = seen_by_class(driven.drive, camera[1] if camera else None, lidar)
    result = {
        **places.figures,
        **(camera[1].figures if camera else {"class_frames": None}),
        "images": sent,
        "unanswered": sent - len(answers.stamp_ns),
        "lidar": lidar.figures if lidar else None,
        "events": events.figures if events else None,
        "seen": seen,
        "left_out": driven.left_out,
        "parameters": PARAMETERS,
        **provenance(),
    }
    return JudgedDrive(result, answers, places, camera, lidar, events, seen)


def _report(
    arguments: argparse.Namespace,
    driven: Driven,
    judged: JudgedDrive,
    started: float,
    simulated: float,
) -> tuple[Path | None, list[tuple[str, str]]]:
    """Write the report; returns its page and the lines of the printed table."""
    result, drive = judged.result, driven.drive
    report = open_report(
        arguments.out,
        "A robot recognises places and names what it senses",
        f"Laps of the world “{arguments.world}” through {len(driven.nodes)} ROS 2 nodes "
        f"({', '.join(driven.nodes)}), as they would come from a robot; "
        f"{result['images']:,} camera images.",
    )
    tell_drive(report, result, judged.places, drive, "/camera/image_raw", judged.answers.stamp_ns)
    rows = _rows(result)
    if driven.files and judged.camera:
        tell(report, driven.files, *judged.camera, drive)
        rows += table_rows(judged.camera[1])
    if judged.lidar:
        judged.lidar.tell(report)
        rows += lidar_rows(judged.lidar)
    tell_classes(report, judged.seen)
    rows += seen_rows(judged.seen)
    if judged.events:
        tell_events(report, judged.events, arguments.events_pack)
        rows += event_rows(judged.events)
    if driven.left_out:
        report.table("Nodes left out", ["node", "why"], list(driven.left_out.items()))
    result["seconds_simulating"] = simulated - started
    result["seconds"] = time.monotonic() - started
    rows.append(("seconds, simulating / in all", _seconds(result)))
    return _configuration(report, result), rows


def _seconds(result: dict[str, Any]) -> str:
    return f"{result['seconds_simulating']:.0f} / {result['seconds']:.0f}"


def _rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("images sent / unanswered", f"{result['images']:,} / {result['unanswered']:,}"),
        ("places stored", f"{result['places']:,}"),
        ("queries with a true place", f"{result['queries_matchable']:,}"),
        (f"accepted, right within {result['within_m']:g} m", f"{result['accepted_right']:,}"),
        ("accepted, wrong", f"{result['accepted'] - result['accepted_right']:,}"),
        ("recall@1, before rejection", shown(result["recall_at_1_matchable"])),
        ("recall, accepted and right", shown(result["recall"])),
        ("precision of what is accepted", shown(result["precision"])),
        (
            "latency p50 / p95",
            f"{result['latency_p50_ms']:.1f} / {result['latency_p95_ms']:.1f} ms",
        ),
    ]


def _configuration(report: Report, result: dict[str, Any]) -> Path | None:
    report.table(
        "Configuration",
        ["setting", "value"],
        [
            *result["parameters"].items(),
            *result.get("class_parameters", {}).items(),
            ("command line", result["command_line"]),
            *result["versions"].items(),
            *result["machine"].items(),
        ],
        folded=True,
    )
    return report.write(result)
