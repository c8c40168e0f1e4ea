# SPDX-License-Identifier: Apache-2.0
"""The report of a drive in which a robot maps and recognises places at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.evaluation import figures, metrics
from spike_perception.evaluation.answers import Judged
from spike_perception.evaluation.bag_images import BagImages
from spike_perception.evaluation.bag_places import tell_statuses
from spike_perception.evaluation.heard import positions, read_times
from spike_perception.evaluation.report import Frame, Report, Strip, Verdict


def tell_drive(
    report: Report,
    result: Mapping[str, Any],
    judged: Judged,
    drive: Path,
    topic: str,
    stamps: npt.NDArray[np.int64],
) -> None:
    """Tell a report how a drive went.

    Args:
        report: the report.
        result: figures by their JSON name.
        judged: the judged answers.
        drive: bag of the drive.
        topic: its image topic.
        stamps: int64 ``[Q]``, stamps of the queries (ns).
    """
    report.headline(
        "Recall", result["recall"], f"accepted and right within {result['within_m']:g} m"
    )
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
    tell_statuses(report, result)
    report.strips(
        "A few of the answers",
        "answers",
        _strips(judged, drive, topic, stamps),
        note="The query (second lap), the place the node named, and its verdict.",
    )


def _strips(
    judged: Judged, drive: Path, topic: str, stamps: npt.NDArray[np.int64]
) -> Iterator[Strip]:
    """Wrong answers first, then right ones spread over the drive."""
    wrong = np.flatnonzero(judged.accepted & ~judged.right)[:4]
    right = np.flatnonzero(judged.right)
    spread = np.unique(
        right[np.linspace(0, len(right) - 1, 6).astype(int)] if len(right) else right
    )
    chosen = [int(each) for each in (*wrong, *spread)]
    chosen = [k for k in chosen if judged.matches.place[k] >= 0]
    times = read_times(drive, topic)
    # Only what is shown is decoded: other images of the drive may be damaged.
    with BagImages(drive, topic, times) as pictures:
        query, stored = (
            positions(times.stamp_ns, each).tolist() for each in (stamps, judged.place_stamp_ns)
        )
        for k in chosen:
            place = int(judged.matches.place[k])
            apart = float(np.linalg.norm(judged.query[k] - judged.place[place]))
            verdict: Verdict = "right" if judged.right[k] else "wrong"
            yield Strip(
                f"query {k}, place {place}: {verdict}, {apart:.2f} m apart",
                (
                    Frame(pictures.image(query[k]), f"query {k}"),
                    Frame(pictures.image(stored[place]), f"place, {apart:.2f} m", verdict),
                ),
            )
