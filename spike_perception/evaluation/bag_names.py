# SPDX-License-Identifier: Apache-2.0
"""What a classifier answered to a bag, beside what is known to be true."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spike_perception.bags.event_replay import open_recording
from spike_perception.evaluation.bag_classes import (
    JudgedNames,
    judge_names,
    read_labels,
    read_words,
    tell_names,
)
from spike_perception.evaluation.class_answers import ClassAnswers, read_class_answers
from spike_perception.evaluation.heard import (
    Times,
    latest,
    positions,
    read_diagnostics,
    read_times,
)
from spike_perception.evaluation.launchable import CAMERA, LIDAR
from spike_perception.evaluation.lidar_truth import (
    MINIMUM_POINTS,
    LidarTruth,
    read_lidar_truth,
    tell_objects,
)
from spike_perception.evaluation.replayed import Started
from spike_perception.evaluation.report import Report
from spike_perception.simulation.lidar import Lidar


@dataclass(frozen=True)
class NamedBag:
    """Names of one classifier, judged.

    Attributes:
        figures: every figure by its JSON name, as ``evaluate images`` has them; of simulated scans
            ``objects`` too, as of :meth:`LidarTruth.figures`.
        judged: the judged names.
        answers: what was answered.
        sensor: "camera", "lidar" or "events".
    """

    figures: dict[str, Any]
    judged: JudgedNames
    answers: ClassAnswers
    sensor: str

    def tell(self, report: Report) -> None:
        """Add the names to a report."""
        tell_names(report, self.figures, self.judged, self.answers, self.sensor)
        if "objects" in self.figures:
            tell_objects(report, self.figures)


def judge_played(
    bag: Path, node: Started, answered: Path, given: str = "", times: Times | None = None
) -> NamedBag:
    """Judge what a classifier answered.

    Args:
        bag: the bag that was played.
        node: the classifier.
        answered: the bag of the answers.
        given: file of the true words, one a message; empty: what a simulated bag says.
        times: of the sensor's messages, if they were read already.

    Raises:
        InputError: ``no_answers``, or as :func:`read_labels`.
    """
    launched = node.launched
    times = times or read_times(bag, node.topic)
    answers = read_class_answers(answered, launched.answers, launched.source)
    words = read_words(answered, launched.vocabulary)
    scanned = None if given else _scanned(bag, node, answers)
    if scanned:
        labels, told = scanned.words, f"simulator: objects of {MINIMUM_POINTS} points or more"
        at = np.arange(len(labels))
    else:
        labels, told = read_labels(given, bag, times, simulated=launched is CAMERA)
        at = (positions if launched.frames else latest)(times.stamp_ns, answers.stamp_ns)
    judged = judge_names(answers, at, labels, words)
    said = read_diagnostics(answered, launched.node).get("model", {})
    figures = {
        **judged.figures,
        **({"objects": scanned.figures(words.names)} if scanned else {}),
        "ms_per_image": float(answers.latency_ms.mean()),
        "skipped": {},
        "bundle_file": said.get("bundle"),
        "student": said.get("student"),
        "engine": said.get("engine"),
        "precision": said.get("precision"),
        "threads": node.parameters.get("model.threads"),
        "temperature": None,
        "data": str(bag),
        "labels": given or None,
        "ground_truth": told,
    }
    return NamedBag(figures, judged, answers, launched.source)


def _scanned(bag: Path, node: Started, answers: ClassAnswers) -> LidarTruth | None:
    """What simulated scans met; None for other bags, or where boxes are in another frame."""
    if node.launched is not LIDAR or node.parameters.get("boxes.fixed_frame"):
        return None
    with open_recording(bag) as opened:
        if Lidar.truth_topic not in opened.topics:
            return None
    return read_lidar_truth(bag, node.topic, answers)
