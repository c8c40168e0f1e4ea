# SPDX-License-Identifier: Apache-2.0
"""Judge and report what a place recogniser answered to a bag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.bags.reader import BagReader
from spike_perception.errors import InputError
from spike_perception.evaluation import figures, ground_truth, metrics
from spike_perception.evaluation.answers import (
    SAME_HEADING,
    Answers,
    decision_figures,
    poses_at,
)
from spike_perception.evaluation.bag_images import Pictures
from spike_perception.evaluation.heard import Times, positions
from spike_perception.evaluation.metrics import Matches, Truth
from spike_perception.evaluation.places import MAX_SCORES, PlacesResult, tell
from spike_perception.evaluation.report import Report
from spike_perception.places.map import PlaceMap
from spike_perception.places.types import Status

CANDIDATES = 25
"""Candidates that the node is asked for: as many as the figure of recall@K shows."""


@dataclass(frozen=True)
class Poses:
    """Poses of P places or Q queries, NaN where unknown.

    Attributes:
        position: float64 ``[N, 3]`` (m).
        heading: float64 ``[N]`` (rad).
    """

    position: npt.NDArray[np.float64]
    heading: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """What the queries are searched in.

    Attributes:
        place_ids: int64 ``[S]``, ids of the stored places, ascending.
        columns: int64 ``[S]``, the column of each: an image of the reference bag, or a place.
        count: columns.
        pictures: an image for each column.
        poses: a pose for each column, if known.
    """

    place_ids: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    count: int
    pictures: Pictures
    poses: Poses | None


@dataclass(frozen=True)
class JudgedPlaces:
    """Answers of a localisation judged by a ground truth.

    Attributes:
        result: figures and matches, as ``evaluate places`` has them.
        scores: float32 ``[Q, P]``, scores of the candidates, ``-inf`` elsewhere.
        truth: bool ``[Q, P]``.
        accepted: bool ``[Q]``, whether the node called it a match.
        poses: of the queries, if known.
    """

    result: PlacesResult
    scores: npt.NDArray[np.float32]
    truth: Truth
    accepted: npt.NDArray[np.bool_]
    poses: Poses | None


def bag_reference(
    place_map: PlaceMap, times: Times, pictures: Pictures, poses: Poses | None
) -> Reference:
    """The map that was made of a bag: columns are the bag's images."""
    ids, stamps = _stored(place_map)
    return Reference(ids, positions(times.stamp_ns, stamps), len(times.stamp_ns), pictures, poses)


def map_reference(place_map: PlaceMap, pictures: Pictures) -> Reference:
    """A map that was there already: columns are its places."""
    ids, _ = _stored(place_map)
    position = np.full((len(ids), 3), np.nan)
    heading = np.full(len(ids), np.nan)
    k = 0
    for batch in place_map.places():
        for place in batch:
            if place.pose is not None:
                position[k] = place.pose.position
                x, y, z, w = place.pose.orientation
                heading[k] = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
            k += 1
    known = Poses(position, heading) if np.isfinite(heading).any() else None
    return Reference(ids, np.arange(len(ids)), len(ids), pictures, known)


def _stored(place_map: PlaceMap) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    found = [(each.place_id, each.stamp_ns) for batch in place_map.places() for each in batch]
    if not found:
        raise InputError("empty_map", f"{place_map.path} holds no place: nothing can be found")
    ids, stamps = np.array(found, np.int64).T
    return ids, stamps


def read_poses(bag: Path, topic: str, stamps: npt.NDArray[np.int64]) -> Poses | None:
    """Poses at the stamps, from a topic or from the only one that there is.

    Returns:
        None if no topic is named and the bag does not have exactly one that tells of these stamps.

    Raises:
        InputError: ``topic_missing`` if the topic that is named is not there, or is empty;
            ``no_poses`` if it tells of none of the stamps.
    """
    with BagReader(bag) as opened:
        try:
            found = list(opened.poses(topic))
        except InputError as error:
            if topic or error.reason not in ("topic_missing", "topic_ambiguous"):
                raise
            return None
    if not found:
        if topic:
            raise InputError("topic_missing", f"{bag} holds no pose on {topic}")
        return None
    poses = Poses(*poses_at(stamps, found))
    if len(stamps) and not np.isfinite(poses.heading).any():
        if topic:
            raise InputError(
                "no_poses",
                f"{bag}: no image was taken between the first and the last pose of {topic}; their "
                "stamps must be of one clock",
            )
        return None
    return poses


def is_topic(given: str) -> bool:
    """Whether a ground truth is a topic of poses, and not the path of a file."""
    return given.startswith("/") and not given.endswith(".npy") and not Path(given).is_file()


def make_truth(
    given: str,
    reference: Reference,
    queries: int,
    poses: Poses | None,
    tolerance: int,
    within_m: float,
) -> tuple[Truth, str]:
    """The ground truth, and what it is in words.

    Args:
        given: a ``.npy`` file, a topic of poses, or empty: image k is image k.
        reference: the reference.
        queries: number of queries.
        poses: of the queries.
        tolerance: frames before and after the true one that count as right.
        within_m: with poses: distance of a true match (m).

    Raises:
        InputError: as :mod:`spike_perception.evaluation.ground_truth`, or ``no_poses``.
    """
    if is_topic(given):
        if poses is None or reference.poses is None:
            raise InputError("no_poses", f"there are no poses {given} of both queries and places")
        truth = ground_truth.from_poses(
            poses.position,
            reference.poses.position,
            within_m,
            query_headings=poses.heading,
            reference_headings=reference.poses.heading,
            heading_rad=SAME_HEADING,
        )
        return truth, f"places within {within_m:g} m and 45 degrees, by {given}"
    if given:
        return ground_truth.load(given, queries, reference.count, tolerance), given
    truth = ground_truth.diagonal(queries, reference.count, tolerance)
    return truth, f"frame k is frame k ± {tolerance}"


def judge_places(
    answers: Answers,
    query: Times,
    reference: Reference,
    truth: Truth,
    poses: Poses | None,
    length: int,
) -> JudgedPlaces:
    """Judge the answers of a localisation; a pure function.

    A query without an answer counts as a query that was not answered.

    Args:
        answers: what the node answered.
        query: the bag's images.
        reference: what was searched.
        truth: bool ``[Q, P]``.
        poses: of the queries, if known.
        length: keyframes that the node matched together.

    Raises:
        InputError: ``too_many_images``.
    """
    queries = len(query.stamp_ns)
    if queries * reference.count > MAX_SCORES:
        raise InputError(
            "too_many_images",
            f"{queries} queries times {reference.count} places are more than {MAX_SCORES} scores; "
            "evaluate a part of them",
        )
    at = positions(query.stamp_ns, answers.stamp_ns)
    known = at >= 0
    candidates = np.full((queries, answers.candidates.shape[1]), -1, np.int64)
    candidates[at[known]] = _columns(reference, answers.candidates[known])
    best = np.full(queries, -np.inf)
    best[at[known]] = np.nan_to_num(answers.score[known], nan=-np.inf)
    listed = np.full((queries, answers.candidates.shape[1]), -np.inf, np.float32)
    listed[at[known]] = answers.candidate_scores[known]
    scores = np.full((queries, reference.count), -np.inf, np.float32)
    rows, ranks = np.nonzero(candidates >= 0)
    scores[rows, candidates[rows, ranks]] = listed[rows, ranks]
    matches = metrics.matches_from_answers(candidates, best, truth)
    accepted = np.zeros(queries, np.bool_)
    accepted[at[known]] = answers.status[known] == Status.MATCHED
    return JudgedPlaces(
        PlacesResult(_figures(answers, matches, accepted, truth, length), matches, matches),
        scores,
        truth,
        accepted,
        poses,
    )


def _columns(reference: Reference, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    at = np.minimum(np.searchsorted(reference.place_ids, places), len(reference.place_ids) - 1)
    return np.where(reference.place_ids[at] == places, reference.columns[at], -1)


def _figures(
    answers: Answers,
    matches: Matches,
    accepted: npt.NDArray[np.bool_],
    truth: Truth,
    length: int,
) -> dict[str, Any]:
    found: dict[str, Any] = metrics.summary(matches)
    total = float(answers.latency_ms.sum()) / 1e3
    found["references"] = truth.shape[1]
    # Of a sequence the node tells one score: what single frames would give is not known.
    found["single_frame"] = metrics.summary(matches) if length == 1 else None
    found["queries_per_second"] = len(answers.latency_ms) / total if total > 0 else None
    seconds = answers.latency_ms / 1e3
    found |= {f"latency_{key}": v for key, v in metrics.percentiles_ms(seconds).items()}
    return found | decision_figures(answers, matches, accepted)


def tell_places(
    report: Report,
    result: Mapping[str, Any],
    judged: JudgedPlaces,
    reference: Reference,
    pictures: Pictures,
) -> None:
    """Tell a report of a localisation: as ``evaluate places``, and what the node accepted."""
    report.headline("Recall", result["recall"], "accepted and right")
    report.headline("Precision", result["precision"], "of what was accepted")
    tell(
        report,
        dict(result),
        judged.result,
        judged.scores,
        judged.truth,
        reference.pictures,
        pictures,
    )
    if judged.poses is not None and reference.poses is not None:
        tell_trajectory(report, judged, reference.poses.position, judged.poses.position)
    tell_statuses(report, result)


def tell_trajectory(
    report: Report,
    judged: JudgedPlaces,
    places: npt.NDArray[np.float64],
    queries: npt.NDArray[np.float64],
) -> None:
    """Both drives from above, with the accepted matches."""
    matches = judged.result.final
    report.figure(
        "Drives and matches",
        "trajectory",
        lambda figure, palette: figures.draw_trajectory(
            figure,
            palette,
            places,
            queries,
            np.where(judged.accepted, matches.place, -1),
            judged.accepted & matches.correct,
        ),
        note="Positions from above. A line joins each accepted query and its place.",
        size=(7.5, 6.0),
    )


def tell_statuses(report: Report, result: Mapping[str, Any]) -> None:
    """How many answers had which status."""
    report.table(
        "Answers by status",
        ["status", "queries"],
        [(Status[name.upper()].name, n) for name, n in result["statuses"].items() if n],
        note="Statuses as in spike_perception_msgs/msg/PlaceMatch.",
    )
