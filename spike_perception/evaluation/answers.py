# SPDX-License-Identifier: Apache-2.0
"""Judge recorded ``/place_match`` answers against where the robot really was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.bags.reader import StampedPose
from spike_perception.evaluation import ground_truth, metrics
from spike_perception.evaluation.heard import read_messages
from spike_perception.evaluation.metrics import Matches
from spike_perception.places.types import Status

# Farther apart than this, two headings see different things [rad].
SAME_HEADING = np.pi / 4
# So long before the first pose and after the last one, the robot is taken to stand there [ns].
POSE_GAP_NS = 1_000_000_000


@dataclass(frozen=True)
class Answers:
    """Answers to Q queries, in order of their stamps.

    Attributes:
        stamp_ns: int64 ``[Q]``, stamps of the query images.
        status: int64 ``[Q]``, a :class:`~spike_perception.places.types.Status`.
        place_id: int64 ``[Q]``, matched or new place, -1 for none.
        score: float64 ``[Q]``, score of the best candidate, NaN if nothing was searched.
        candidates: int64 ``[Q, K]``, ids of the best places, -1 where there is none.
        candidate_scores: float32 ``[Q, K]``, their scores, ``-inf`` where there is none.
        latency_ms: float64 ``[Q]``, from the arrival of the image to the answer.
        heard_ns: int64 ``[Q]``, when a recorder heard the answer, on the computer's clock.
    """

    stamp_ns: npt.NDArray[np.int64]
    status: npt.NDArray[np.int64]
    place_id: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    candidates: npt.NDArray[np.int64]
    candidate_scores: npt.NDArray[np.float32]
    latency_ms: npt.NDArray[np.float64]
    heard_ns: npt.NDArray[np.int64]


def read_answers(bag: Path, topic: str = "/place_match") -> Answers:
    """Read the answers that a bag holds.

    Raises:
        InputError: ``no_answers`` if there are none.
    """
    heard, stamps, messages = zip(*read_messages(bag, topic), strict=True)
    width = max(1, *(len(m.candidates) for m in messages))
    candidates = np.full((len(messages), width), -1, np.int64)
    scores = np.full(candidates.shape, -np.inf, np.float32)
    for row, message in enumerate(messages):
        count = len(message.candidates)
        candidates[row, :count] = [each.place_id for each in message.candidates]
        scores[row, :count] = [each.score for each in message.candidates]
    return Answers(
        np.array(stamps, np.int64),
        np.array([m.status for m in messages], np.int64),
        np.array([m.place_id for m in messages], np.int64),
        np.array([m.score for m in messages], np.float64),
        candidates,
        scores,
        np.array([m.latency_ms for m in messages], np.float64),
        np.array(heard, np.int64),
    )


@dataclass(frozen=True)
class Judged:
    """Answers judged by true positions.

    Attributes:
        figures: every figure by its JSON name.
        matches: best candidates as matches, whether accepted or not; columns are places.
        accepted: bool ``[Q]``, whether the node called it a match.
        right: bool ``[Q]``, whether it did and the place is near enough.
        query: float64 ``[Q, 3]``, true positions of the queries [m].
        place: float64 ``[P, 3]``, true positions of the places [m].
        place_stamp_ns: int64 ``[P]``, stamps of the images that became the places.
    """

    figures: dict[str, Any]
    matches: Matches
    accepted: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    query: npt.NDArray[np.float64]
    place: npt.NDArray[np.float64]
    place_stamp_ns: npt.NDArray[np.int64]


def judge(
    answers: Answers, truth: list[StampedPose], within_m: float, exclusion_s: float
) -> Judged:
    """Judge answers of a node that mapped and recognised in one drive; a pure function.

    A query is matchable if an earlier place, stored more than ``exclusion_s`` before, truly lies
    within ``within_m`` of it and looks the same way (45 degrees).

    Args:
        answers: the node's answers.
        truth: true poses over the whole drive.
        within_m: how far a matched place may be from the query [m].
        exclusion_s: the node's exclusion time [s].
    """
    stored = answers.status == Status.NEW_PLACE
    place_ids, place_stamps = answers.place_id[stored], answers.stamp_ns[stored]
    query, query_heading = poses_at(answers.stamp_ns, truth)
    place, place_heading = query[stored], query_heading[stored]
    near = ground_truth.from_poses(
        query,
        place,
        within_m,
        query_headings=query_heading,
        reference_headings=place_heading,
        heading_rad=SAME_HEADING,
    )
    searched = answers.stamp_ns[:, None] - place_stamps[None] > exclusion_s * 1e9
    columns = {int(place_id): column for column, place_id in enumerate(place_ids)}
    listed = np.vectorize(lambda each: columns.get(int(each), -1), otypes=[np.int64])
    matches = metrics.matches_from_answers(
        listed(answers.candidates), np.nan_to_num(answers.score, nan=-np.inf), near & searched
    )
    accepted = answers.status == Status.MATCHED
    right = accepted & matches.correct
    figures = {
        **metrics.summary(matches, (1, 5)),
        "places": len(place_ids),
        **decision_figures(answers, matches, accepted),
        "within_m": within_m,
        **{f"latency_{k}": v for k, v in metrics.percentiles_ms(answers.latency_ms / 1e3).items()},
    }
    return Judged(figures, matches, accepted, right, query, place, place_stamps)


def decision_figures(
    answers: Answers, matches: Matches, accepted: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """What the node itself accepted, of matches judged."""
    right = accepted & matches.correct
    matchable = int(matches.matchable.sum())
    return {
        "accepted": int(accepted.sum()),
        "accepted_right": int(right.sum()),
        # Of the queries with a true place: accepted, and right.
        "recall": float(right.sum() / matchable) if matchable else None,
        "precision": float(right.sum() / accepted.sum()) if accepted.any() else None,
        "statuses": statuses(answers),
    }


def statuses(answers: Answers) -> dict[str, int]:
    """Number of answers by status."""
    return {each.name.lower(): int((answers.status == each).sum()) for each in Status}


def poses_at(
    stamps: npt.NDArray[np.int64], truth: list[StampedPose]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Positions ``[Q, 3]`` and headings ``[Q]`` [rad] at stamps, between neighbours linear.

    NaN beyond the first or the last pose: those of another clock say nothing of these stamps.
    """
    truth = sorted(truth, key=lambda each: each.stamp_ns)
    times = np.array([each.stamp_ns for each in truth], np.int64)
    beyond = (stamps < times[0] - POSE_GAP_NS) | (stamps > times[-1] + POSE_GAP_NS)
    start = times[0]
    seconds, wanted = (times - start) / 1e9, (stamps - start) / 1e9
    positions = np.stack([each.position for each in truth])
    x, y, z, w = np.stack([each.orientation for each in truth]).T
    heading = np.unwrap(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
    position = np.stack([np.interp(wanted, seconds, each) for each in positions.T], axis=1)
    position[beyond] = np.nan
    return position, np.where(beyond, np.nan, np.interp(wanted, seconds, heading))
