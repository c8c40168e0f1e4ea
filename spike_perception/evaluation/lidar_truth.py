# SPDX-License-Identifier: Apache-2.0
"""What the objects that a node found in simulated LiDAR scans truly are, and which it found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.bags.reader import BagReader
from spike_perception.errors import InputError
from spike_perception.evaluation.class_answers import ClassAnswers
from spike_perception.evaluation.report import Report
from spike_perception.simulation.classes import WORDS
from spike_perception.simulation.lidar import Lidar

# Objects of fewer points are not counted as seen: the node's own ``clusters.min_points``.
MINIMUM_POINTS = 30
# An answer is of the word that most of the points in its box are of, if these are so many of them;
# an object is found if so many of its points are in boxes of its word.
MOST = 0.5
# Boxes are written rounded, and to a node's clusters belong points that it thinned out [m].
MARGIN_M = 0.01

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScannedWord:
    """An object that a scan met, of a class that has a word.

    Attributes:
        word: its word.
        points: number of points on it.
        found: whether the node made clusters of it, and not of something else.
    """

    word: str
    points: int
    found: bool


@dataclass(frozen=True)
class LidarTruth:
    """The truth of a node's answers to simulated scans.

    Attributes:
        words: ``[A]``, the true word of each answer; empty where its box holds no object, several,
            or one whose class has no word.
        objects: what the scans met, of ``MINIMUM_POINTS`` points and more; nothing of a scan
            without an answer is found.
    """

    words: tuple[str, ...]
    objects: tuple[ScannedWord, ...]

    def figures(self, vocabulary: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Of each word: objects seen, share of them found, whether it is in the vocabulary."""
        known = {each.casefold() for each in vocabulary}
        found = {}
        for word in sorted({each.word for each in self.objects}):
            of_it = [each.found for each in self.objects if each.word == word]
            found[word] = {
                "seen": len(of_it),
                "found": float(np.mean(of_it)),
                "in_vocabulary": word.casefold() in known,
            }
        return found


def read_lidar_truth(bag: Path, topic: str, answers: ClassAnswers) -> LidarTruth:
    """Match answers and objects of a simulated drive.

    Args:
        bag: the drive.
        topic: its clouds.
        answers: with boxes in the frame of the clouds.

    Raises:
        InputError: ``no_ground_truth`` if the drive says nothing of its objects.
    """
    with BagReader(bag) as opened:
        if Lidar.truth_topic not in opened.topics:
            raise InputError(
                "no_ground_truth", f"{bag} has no {Lidar.truth_topic}; simulate the drive anew"
            )
        truth = {
            int(each["stamp_ns"]): each["objects"]
            for each in map(json.loads, opened.texts(Lidar.truth_topic))
        }
        words = [""] * len(answers.stamp_ns)
        objects: list[ScannedWord] = []
        for scan in opened.points(topic):
            at = np.flatnonzero(answers.stamp_ns == scan.stamp_ns)
            if scan.stamp_ns in truth:
                said, met = judge_scan(scan.points.xyz, truth[scan.stamp_ns], answers.boxes[at])
                objects += met
                for k, word in zip(at.tolist(), said, strict=True):
                    words[k] = word
    return LidarTruth(tuple(words), tuple(objects))


def judge_scan(
    points: npt.NDArray[np.float32], objects: Sequence[Mapping[str, Any]], boxes: Doubles
) -> tuple[list[str], list[ScannedWord]]:
    """True words of the boxes of one scan, and which of its objects they found; a pure function.

    Each point belongs to the smallest box of a met object's points that holds it.

    Args:
        points: float32 ``[N, 3]`` x, y, z (m).
        objects: with the fields of :class:`~spike_perception.simulation.lidar.ScannedObject`.
        boxes: float64 ``[B, 7]`` answered boxes: centre x, y, z, size x, y, z (m), yaw (rad), in
            the frame of the points; NaN for none.

    Returns:
        ``[B]`` words, empty for none, and the objects that are counted.
    """
    xyz = points.astype(np.float64)
    owner = np.full(len(xyz), -1, np.int64)
    seen = [(*each["seen_centre"], *each["seen_size"], each["yaw"]) for each in objects]
    volume = [np.prod(np.maximum(box[3:6], MARGIN_M)) for box in seen]
    for k in np.argsort(-np.array(volume)).tolist():
        owner[inside(xyz, seen[k])] = k
    named = sorted({_word(each) for each in objects})
    word = np.array([named.index(_word(each)) for each in objects] + [-1], np.int64)[owner]
    truth = [_main_word(word[inside(xyz, box)], named) for box in boxes]
    hit = np.zeros(len(xyz), np.bool_)
    for box, true in zip(boxes, truth, strict=True):
        if true:
            hit |= inside(xyz, box) & (word == named.index(true))
    met = [
        ScannedWord(_word(each), each["points"], bool(_share(hit[owner == k]) >= MOST))
        for k, each in enumerate(objects)
        if _word(each) and each["points"] >= MINIMUM_POINTS
    ]
    return truth, met


def inside(xyz: Doubles, box: Sequence[float] | Doubles) -> npt.NDArray[np.bool_]:
    """Which points ``[N, 3]`` lie in an upright box (centre, size, yaw), bool ``[N]``."""
    x, y, z, length, width, height, yaw = box
    ahead = xyz - np.array([x, y, z])
    cos, sin = np.cos(yaw), np.sin(yaw)
    along = cos * ahead[:, 0] + sin * ahead[:, 1]
    across = cos * ahead[:, 1] - sin * ahead[:, 0]
    return np.asarray(
        (np.abs(along) <= length / 2 + MARGIN_M)
        & (np.abs(across) <= width / 2 + MARGIN_M)
        & (np.abs(ahead[:, 2]) <= height / 2 + MARGIN_M)
    )


def _word(each: Mapping[str, Any]) -> str:
    return WORDS.get(each["label"], "")


def _main_word(word: npt.NDArray[np.int64], named: Sequence[str]) -> str:
    """The word of most points, int64 ``[P]``, -1 being no object's; empty if there is none."""
    counts = np.bincount(word[word >= 0], minlength=1)
    most = int(counts.argmax())
    return named[most] if counts[most] and counts[most] >= MOST * len(word) else ""


def _share(of: npt.NDArray[np.bool_]) -> float:
    return float(of.mean()) if len(of) else 0.0


def tell_objects(report: Report, result: Mapping[str, Any]) -> None:
    """Tell a report which objects were found and what they were called.

    Args:
        report: the report.
        result: ``objects`` as of :meth:`LidarTruth.figures`, ``per_class`` as ``evaluate bag``
            has it.
    """
    report.table(
        "Objects of the LiDAR",
        ["true class", "objects seen", "found", "answers judged", "top-1", "most often instead"],
        [
            [
                word,
                each["seen"],
                each["found"],
                (named := result["per_class"].get(word, {})).get("images", 0),
                named.get("top_1"),
                named.get("most_often_instead"),
            ]
            for word, each in result["objects"].items()
        ],
        note=f"Objects that a scan met with {MINIMUM_POINTS} points or more, by the simulator. "
        f"Found: {MOST:.0%} of the points are in boxes whose points are {MOST:.0%} of its class. "
        "Only such boxes are judged, and only by classes that the vocabulary has.",
    )
