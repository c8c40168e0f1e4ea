# SPDX-License-Identifier: Apache-2.0
"""The demo: a simulated robot drives a loop twice, recognises places and names what it sees.

Two nodes hear the same camera: one recognises places, one names objects. Without the weights of
the second the demo says so and goes on with places alone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.bags.reader import BagReader
from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.evaluation import figures, metrics
from spike_perception.evaluation.answers import Judged, judge, read_answers
from spike_perception.evaluation.demo_classes import (
    ClassifierFiles,
    find_classifier,
    judge_recorded,
    table_rows,
    tell,
)
from spike_perception.evaluation.provenance import provenance
from spike_perception.evaluation.report import Frame, Report, Strip, Verdict, open_report, shown
from spike_perception.evaluation.session import RosSession
from spike_perception.places.types import Status

COMMAND = "spike_perception.cli"
# Right within this distance [m].
WITHIN_M = 1.0
# What the demo sets apart from the node's defaults.
PARAMETERS = {
    "autostart": "true",
    "use_sim_time": "true",
    "image.reliability": "reliable",
    "pose.source": "odometry",
    "pose.wait_s": "1.0",
    "map.mode": "both",
    "decision.exclusion_s": "20.0",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for everything")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated drive")
    parser.add_argument("--world", default="loop", help="simulated world")
    parser.add_argument("--drive", default="two_laps", help="route through it")
    parser.add_argument("--descriptor", default="", help="name; without: the node's default")
    parser.add_argument("--bundle", default="camera", help="camera encoder: shipped name or file")
    parser.add_argument("--bank", default="word_bank", help="its word bank: shipped name or file")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Simulate, recognise over DDS, judge and report."""
    out: Path = arguments.out
    for name in ("drive", "answers"):
        shutil.rmtree(out / name, ignore_errors=True)
    for path in out.glob("map.db*"):
        path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    files = _drive(arguments, out)
    simulated = time.monotonic()
    answers = read_answers(out / "answers")
    with BagReader(out / "drive") as bag:
        truth = list(bag.poses("/ground_truth/odom"))
        sent = sum(1 for _ in bag.messages("/camera/image_raw"))
    exclusion_s = float(PARAMETERS["decision.exclusion_s"])
    judged = judge(answers, truth, WITHIN_M, exclusion_s)
    classes = judge_recorded(files, out / "drive", out / "answers") if files else None
    result = {
        **judged.figures,
        **(classes[1].figures if classes else {"class_frames": None}),
        "images": sent,
        "unanswered": sent - len(answers.stamp_ns),
        "seconds": simulated - started,
        "parameters": PARAMETERS,
        **provenance(),
    }
    report = open_report(
        out,
        "A robot recognises places" + (" and names what it sees" if files else ""),
        f"Two laps of the world “{arguments.world}”, the second in other light: {sent:,} camera "
        f"images through {'two ROS 2 nodes' if files else 'a ROS 2 node'}, as they would come from "
        "a robot.",
    )
    _tell(report, result, judged, out / "drive", answers.stamp_ns)
    if files and classes:
        tell(report, files, *classes, out / "drive")
    page = _configuration(report, result)
    rows = [*_rows(result), *(table_rows(classes[1]) if classes else [])]
    width = max(len(label) for label, _ in rows)
    lines = [f"{label:<{width}}  {value}" for label, value in rows]
    emit(arguments, result, "\n".join([*lines, f"report: {page}"]))
    return 0


def _drive(arguments: argparse.Namespace, out: Path) -> ClassifierFiles | None:
    """Write the drive, then run nodes, recorder and replay as processes of their own.

    Returns:
        What the classifier ran, None if there are no weights for it.
    """
    with RosSession(out / "logs") as session:
        simulate = ["simulate", arguments.world, "--drive", arguments.drive]
        session.run(
            "simulate",
            COMMAND,
            [*simulate, "-o", str(out / "drive"), "--seed", str(arguments.seed)],
        )
        files = _find_classifier(arguments, out / "drive")
        parameters = {**PARAMETERS, "map.path": str(out / "map.db")}
        if arguments.descriptor:
            parameters["descriptor.name"] = arguments.descriptor
        nodes = {"place_recognizer": ("/place_match", parameters)}
        if files:
            nodes["camera_classifier"] = ("/object_class", files.parameters())
        for name, (_, values) in nodes.items():
            overrides = [part for k, v in values.items() for part in ("-p", f"{k}:={v}")]
            session.start(name, f"spike_perception.nodes.{name}", ["--ros-args", *overrides])
        topics = [topic for topic, _ in nodes.values()]
        session.start(
            "record", COMMAND, ["record", "-o", str(out / "answers"), "--topics", *topics]
        )
        session.run(
            "replay",
            COMMAND,
            [
                *("replay", str(out / "drive"), "--rate", "0", "--wait", "60"),
                *("--lockstep", *topics, "--listeners", "1"),
            ],
        )
        for name in ("record", *nodes):
            if status := session.stop(name):
                raise InputError(
                    "process_failed",
                    f"{name} ended with status {status}, see {out / 'logs' / f'{name}.log'}",
                )
    return files


def _find_classifier(arguments: argparse.Namespace, drive: Path) -> ClassifierFiles | None:
    try:
        return find_classifier(arguments.bundle, arguments.bank, drive)
    except InputError as error:
        if error.reason != "file_missing":
            raise
        print(f"objects are not named, only places recognised: {error}", file=sys.stderr)
        return None


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


def _tell(
    report: Report,
    result: dict[str, Any],
    judged: Judged,
    drive: Path,
    stamps: npt.NDArray[np.int64],
) -> None:
    report.headline("Recall", result["recall"], f"accepted and right within {WITHIN_M:g} m")
    report.headline("Precision", result["precision"], "of what was accepted")
    report.headline("Recall@1", result["recall_at_1_matchable"], "before rejection")
    report.headline("Places", result["places"], "stored on the way")
    report.headline(
        "Latency", f"{result['latency_p50_ms']:.1f} ms", f"p95 {result['latency_p95_ms']:.1f} ms"
    )
    matched = np.where(judged.accepted, judged.matches.place, -1)
    report.figure(
        "Drive and matches",
        "trajectory",
        lambda figure, palette: figures.draw_trajectory(
            figure, palette, judged.place, judged.query, matched, judged.right
        ),
        note="True positions from above. A line joins each accepted query and its place.",
        size=(7.5, 6.0),
    )
    curves = {"all queries": metrics.precision_recall(judged.matches)}
    report.figure(
        "Precision and recall",
        "precision_recall",
        lambda figure, palette: figures.draw_precision_recall(figure, palette, curves),
        note="Of the best candidate of every query, by score, before the node's own rejection.",
    )
    report.figure(
        "Scores of right and wrong candidates",
        "scores",
        lambda figure, palette: figures.draw_scores(figure, palette, judged.matches, None),
    )
    report.table(
        "Answers by status",
        ["status", "queries"],
        [(Status[name.upper()].name, n) for name, n in result["statuses"].items() if n],
        note="Statuses as in spike_perception_msgs/msg/PlaceMatch.",
    )
    report.strips(
        "A few of the answers",
        "answers",
        _strips(judged, drive, stamps),
        note="The query (second lap), the place the node named, and its verdict.",
    )


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


def _strips(judged: Judged, drive: Path, stamps: npt.NDArray[np.int64]) -> Iterator[Strip]:
    """Wrong answers first, then right ones spread over the drive."""
    wrong = np.flatnonzero(judged.accepted & ~judged.right)[:4]
    right = np.flatnonzero(judged.right)
    spread = right[np.linspace(0, len(right) - 1, 6).astype(int)] if len(right) else right
    chosen = [int(each) for each in (*wrong, *spread)]
    wanted = {int(stamps[k]) for k in chosen}
    wanted |= {int(judged.place_stamp_ns[judged.matches.place[k]]) for k in chosen}
    with BagReader(drive) as bag:
        images = {each.stamp_ns: each.image for each in bag.images() if each.stamp_ns in wanted}
    for k in chosen:
        place = int(judged.matches.place[k])
        apart = float(np.linalg.norm(judged.query[k] - judged.place[place]))
        verdict: Verdict = "right" if judged.right[k] else "wrong"
        yield Strip(
            f"query {k}, place {place}: {verdict}, {apart:.2f} m apart",
            (
                Frame(images[int(stamps[k])], f"query {k}"),
                Frame(images[int(judged.place_stamp_ns[place])], f"place, {apart:.2f} m", verdict),
            ),
        )
