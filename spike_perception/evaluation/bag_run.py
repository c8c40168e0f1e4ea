# SPDX-License-Identifier: Apache-2.0
"""One configuration of ``evaluate bag``: map the reference, play the bag, judge the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.bags.event_replay import open_recording
from spike_perception.config import Value
from spike_perception.errors import InputError
from spike_perception.evaluation import metrics
from spike_perception.evaluation.answers import judge, read_answers, statuses
from spike_perception.evaluation.bag_classes import threshold_curve
from spike_perception.evaluation.bag_energy import node_energy
from spike_perception.evaluation.bag_images import BagImages, MapImages
from spike_perception.evaluation.bag_names import judge_played
from spike_perception.evaluation.bag_places import (
    CANDIDATES,
    Reference,
    bag_reference,
    is_topic,
    judge_places,
    make_truth,
    map_reference,
    read_poses,
    tell_places,
    tell_statuses,
)
from spike_perception.evaluation.bag_report import tell_run
from spike_perception.evaluation.drive_report import tell_drive
from spike_perception.evaluation.heard import (
    Times,
    answers_id,
    drops,
    end_to_end_s,
    latest,
    positions,
    read_diagnostics,
    read_times,
)
from spike_perception.evaluation.launchable import PLACES
from spike_perception.evaluation.places import descriptor_figures
from spike_perception.evaluation.replayed import Played, Started, hearing, play_through
from spike_perception.evaluation.report import Report
from spike_perception.places.map import PlaceMap

__all__ = ["CANDIDATES", "NodeResult", "Question", "is_map", "map_descriptor", "play", "tell"]

SQLITE = b"SQLite format 3\0"
TRUE_POSES = "/ground_truth/odom"

Seconds = npt.NDArray[np.float64]
Maps = dict[str, dict[str, Any]]
"""Maps made of the reference, by the parameters that they depend on."""


@dataclass(frozen=True)
class Question:
    """What is asked of every configuration alike.

    Attributes:
        bag: the bag that is played.
        reference: a bag, a place map, or None.
        ground_truth: of places, as the command line has it.
        labels: file of the true words, or empty.
        labelled: the node whose words these are.
        tolerance: frames before and after the true one that count as right.
        within_m: with poses: distance of a true match (m).
        realtime: whether the bag goes at its own pace.
    """

    bag: Path
    reference: Path | None
    ground_truth: str
    labels: str
    labelled: str
    tolerance: int
    within_m: float
    realtime: bool


@dataclass(frozen=True)
class NodeResult:
    """What one node did in one run.

    Attributes:
        figures: every figure by its JSON name.
        end_to_end_s: float64 ``[A]``, NaN where it is not known.
        curve: precision over recall; None without ground truth.
        tell: adds the judged answers to a report.
    """

    figures: dict[str, Any]
    end_to_end_s: Seconds
    curve: metrics.PrecisionRecall | None
    tell: Callable[[Report], None]


@dataclass(frozen=True)
class Heard:
    """Answers of one node as far as nodes do not differ.

    Attributes:
        stamp_ns: int64 ``[A]``, stamps of the answers.
        heard_ns: int64 ``[A]``, when each was heard.
        latency_ms: float64 ``[A]``, by the node itself.
        content: what was answered, to compare runs.
    """

    stamp_ns: npt.NDArray[np.int64]
    heard_ns: npt.NDArray[np.int64]
    latency_ms: npt.NDArray[np.float64]
    content: tuple[Any, ...]


def is_map(path: Path) -> bool:
    """Whether a reference is a place map: an SQLite file that is not a bag's."""
    if not path.is_file() or path.suffix == ".db3":
        return False
    with path.open("rb") as file:
        return file.read(len(SQLITE)) == SQLITE


def map_descriptor(path: Path) -> str:
    """Name of the descriptor that made a map."""
    with PlaceMap.open(path, read_only=True) as place_map:
        return place_map.descriptor.name


def play(
    question: Question, nodes: Sequence[Started], out: Path, maps: Maps, stack: ExitStack
) -> dict[str, NodeResult]:
    """Run one configuration.

    Args:
        question: what is asked.
        nodes: its nodes.
        out: folder for what is recorded.
        maps: maps of the reference that are there already; a new one is added.
        stack: closes, in the end, what the report reads from.

    Raises:
        InputError: whatever is wrong with bags, parameters and ground truth.
    """
    out.mkdir(parents=True, exist_ok=True)
    mapped: Mapping[str, Any] = {}
    if question.reference is not None and any(each.launched is PLACES for each in nodes):
        nodes, mapped = _with_map(question.reference, nodes, out, maps)
    elif not question.reference:
        _remove_map(out / "map.db")
    played = play_through(question.bag, nodes, out, realtime=question.realtime)
    return {
        each.launched.node: _node_result(question, each, played, mapped, stack) for each in nodes
    }


def tell(report: Report, found: Mapping[str, Mapping[str, NodeResult]]) -> None:
    """Tell of the first run node by node, and of all runs what the computer saw."""
    base = next(iter(found.values()))
    for each in base.values():
        each.tell(report)
    several = len(found) > 1
    shown = {
        f"{node}, {label}" if several else node: each
        for label, nodes in found.items()
        for node, each in nodes.items()
    }
    tell_run(
        report,
        {name: each.figures for name, each in shown.items()},
        {name: each.end_to_end_s for name, each in shown.items()},
    )


def _remove_map(path: Path) -> None:
    for each in path.parent.glob(f"{path.name}*"):
        each.unlink()


def _with_map(
    reference: Path, nodes: Sequence[Started], out: Path, maps: Maps
) -> tuple[list[Started], dict[str, Any]]:
    """The nodes, of which the place recogniser localises in the reference's map."""
    found: dict[str, Any] = {"map": reference, "map_seconds": None}
    moved = []
    for each in nodes:
        if each.launched is not PLACES:
            moved.append(each)
            continue
        if not is_map(reference):
            key = _what_makes_a_map(each.parameters)
            if key not in maps:
                maps[key] = _map_bag(reference, each, out)
            found = maps[key]
        values = {"map.mode": "localisation", "map.path": str(found["map"])}
        moved.append(replace(each, parameters={**each.parameters, **values}))
    return moved, found


def _what_makes_a_map(parameters: Mapping[str, Value]) -> str:
    """Parameters that a map depends on: not how it is searched."""
    searched = ("decision.", "sequence.", "map.path", "map.mode")
    kept = {name: value for name, value in parameters.items() if not name.startswith(searched)}
    return repr(sorted(kept.items()))


def _map_bag(reference: Path, node: Started, out: Path) -> dict[str, Any]:
    """Play the reference to the node in mapping mode."""
    folder = out / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "map.db"
    _remove_map(path)
    values = {**node.parameters, "map.mode": "mapping", "map.path": str(path)}
    with open_recording(reference) as bag:
        mapping = hearing(bag, PLACES, values)
    if mapping is None:
        raise InputError("topic_missing", f"{reference} has no images to make a map of")
    played = play_through(reference, [mapping], folder)
    seconds = float(read_answers(played.answers).latency_ms.sum()) / 1e3
    return {"map": path, "map_seconds": seconds, "topic": mapping.topic}


def _node_result(
    question: Question,
    node: Started,
    played: Played,
    mapped: Mapping[str, Any],
    stack: ExitStack,
) -> NodeResult:
    times = read_times(question.bag, node.topic)
    judged = _places if node.launched is PLACES else _names
    try:
        found = judged(question, node, played, times, mapped, stack)
    except InputError as error:
        if error.reason != "no_answers":
            raise
        found = _silence()  # what it says of its drops tells why
    common, seconds = _common(question, node, played, times, found.heard)
    return NodeResult({**found.figures, **common}, seconds, found.curve, found.tell)


def _silence() -> Judged:
    """Of a node that answered nothing."""
    none = np.empty(0, np.int64)
    heard = Heard(none, none, np.empty(0), ())
    return Judged(heard, {"ground_truth": "none"}, None, lambda _: None)


def _common(
    question: Question, node: Started, played: Played, times: Times, heard: Heard
) -> tuple[dict[str, Any], Seconds]:
    """What is told of every node."""
    launched, frames = node.launched, node.launched.frames
    at = (positions if frames else latest)(times.stamp_ns, heard.stamp_ns)
    seconds = end_to_end_s(times, played.clock, at, heard.heard_ns)
    messages, answered = len(times.stamp_ns), len(np.unique(at[at >= 0]))
    said = read_diagnostics(played.answers, launched.node)
    dropped = drops(said)
    # A scan without objects has no answer on the topic, and none is missing.
    scans = said.get("objects", {}).get("scans")
    empty = max(0, min(int(scans), messages) - answered) if scans is not None else None
    unanswered = messages - answered - (empty or 0) if frames else None
    words = int(said.get("vocabulary", {}).get("words", 0))
    spent = node_energy(question.bag, node, times, words)
    start, end = (heard.heard_ns.min(), heard.heard_ns.max()) if len(heard.heard_ns) else (0, 0)
    return {
        "messages": messages,
        "answers": len(heard.stamp_ns),
        "unanswered": unanswered,
        "without_objects": empty,
        "drops": dropped,
        "unexplained": max(0, (unanswered or 0) - sum(dropped.values())),
        **_prefixed("latency_", heard.latency_ms / 1e3),
        **_prefixed("end_to_end_", seconds[np.isfinite(seconds)]),
        **played.usage.figures(launched.node, int(start), int(end), len(heard.stamp_ns)),
        "energy": spent,
        "energy_mj": spent["student_mj"] if spent else None,
        "diagnostics": said,
        "answers_id": answers_id((heard.stamp_ns, *heard.content)),
        "config": dict(node.parameters),
    }, seconds


def _prefixed(prefix: str, seconds: Seconds) -> dict[str, float | None]:
    return {f"{prefix}{key}": v for key, v in metrics.percentiles_ms(seconds).items()}


@dataclass(frozen=True)
class Judged:
    """Answers of one node, judged: see :class:`NodeResult`."""

    heard: Heard
    figures: dict[str, Any]
    curve: metrics.PrecisionRecall | None
    tell: Callable[[Report], None]


def _places(
    question: Question,
    node: Started,
    played: Played,
    times: Times,
    mapped: Mapping[str, Any],
    stack: ExitStack,
) -> Judged:
    answers = read_answers(played.answers)
    heard = Heard(
        answers.stamp_ns,
        answers.heard_ns,
        answers.latency_ms,
        (answers.status, answers.place_id, answers.score, answers.candidates),
    )
    if not mapped:
        return _one_drive(question, node, answers, heard)
    place_map = stack.enter_context(PlaceMap.open(mapped["map"], read_only=True))
    topic = question.ground_truth if is_topic(question.ground_truth) else ""
    poses = read_poses(question.bag, topic, times.stamp_ns)
    reference = _reference(question, mapped, place_map, topic, stack)
    queries = len(times.stamp_ns)
    if not question.ground_truth and queries != reference.count:
        why = f"none: {queries} images, {reference.count} places; give --ground-truth"
        return _unjudged(answers, heard, why)
    truth, words = make_truth(
        question.ground_truth, reference, queries, poses, question.tolerance, question.within_m
    )
    length = int(node.parameters["sequence.length"])
    judged = judge_places(answers, times, reference, truth, poses, length)
    figures = {
        **judged.result.figures,
        "map_seconds": mapped["map_seconds"],
        "places": len(place_map),
        **descriptor_figures(place_map.descriptor),
        "sequence": length,
        "tolerance": question.tolerance,
        "ground_truth": words,
        "reference": str(question.reference),
        "query": str(question.bag),
    }
    pictures = stack.enter_context(BagImages(question.bag, node.topic, times))

    shown = {**figures, "config": node.parameters}
    return Judged(
        heard,
        figures,
        metrics.precision_recall(judged.result.final),
        lambda report: tell_places(report, shown, judged, reference, pictures),
    )


def _reference(
    question: Question,
    mapped: Mapping[str, Any],
    place_map: PlaceMap,
    topic: str,
    stack: ExitStack,
) -> Reference:
    if question.reference is None or "topic" not in mapped:
        return map_reference(place_map, MapImages(place_map))
    times = read_times(question.reference, mapped["topic"])
    pictures = stack.enter_context(BagImages(question.reference, mapped["topic"], times))
    poses = read_poses(question.reference, topic, times.stamp_ns)
    return bag_reference(place_map, times, pictures, poses)


def _unjudged(answers: Any, heard: Heard, why: str) -> Judged:
    """Places where the truth is not known."""
    figures = {"ground_truth": why, "statuses": statuses(answers)}
    return Judged(heard, figures, None, lambda report: tell_statuses(report, figures))


def _one_drive(question: Question, node: Started, answers: Any, heard: Heard) -> Judged:
    """Mapping and recognising at once: judged by the true poses, where the bag has them."""
    topic = question.ground_truth if is_topic(question.ground_truth) else TRUE_POSES
    with open_recording(question.bag) as bag:
        there = topic in bag.topics
        poses = list(bag.poses(topic)) if there and hasattr(bag, "poses") else []
    if not poses:
        if question.ground_truth:
            raise InputError("topic_missing", f"{question.bag} holds no pose on {topic}")
        return _unjudged(answers, heard, "none")
    exclusion_s = float(node.parameters["decision.exclusion_s"])
    judged = judge(answers, poses, question.within_m, exclusion_s)
    figures = {
        **judged.figures,
        "ground_truth": f"earlier places within {question.within_m:g} m, by {topic}",
    }

    return Judged(
        heard,
        figures,
        metrics.precision_recall(judged.matches),
        lambda report: tell_drive(
            report, figures, judged, question.bag, node.topic, answers.stamp_ns
        ),
    )


def _names(
    question: Question,
    node: Started,
    played: Played,
    times: Times,
    mapped: Mapping[str, Any],  # noqa: ARG001  # as of places
    stack: ExitStack,  # noqa: ARG001
) -> Judged:
    named = judge_played(
        question.bag,
        node,
        played.answers,
        question.labels if question.labelled == node.launched.node else "",
        times,
    )
    answers, judged = named.answers, named.judged.judged
    heard = Heard(
        answers.stamp_ns,
        answers.heard_ns,
        answers.latency_ms,
        (answers.names, answers.unknown, answers.score),
    )
    curve = threshold_curve(judged) if judged else None
    return Judged(heard, named.figures, curve, named.tell)
