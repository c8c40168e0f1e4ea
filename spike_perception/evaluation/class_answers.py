# SPDX-License-Identifier: Apache-2.0
"""Judge recorded ``/object_class`` answers against what a simulated camera truly saw."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from spike_perception.bags.reader import BagReader
from spike_perception.errors import InputError
from spike_perception.evaluation import metrics
from spike_perception.evaluation.heard import read_messages
from spike_perception.simulation.classes import word_shares
from spike_perception.simulation.sensors import ObjectTruth

# An object of a smaller share of the picture does not make its word right.
VISIBLE_SHARE = 0.05
Region = Literal["whole", "centre"]
"""The part of the picture that a network sees: all of it, or the largest centred square."""


@dataclass(frozen=True)
class ClassAnswers:
    """What a node named N images or objects, in order of their stamps.

    Attributes:
        stamp_ns: int64 ``[N]``, stamps of the images.
        names: the names of each, most probable first.
        unknown: bool ``[N]``, whether it was called unknown.
        score: float64 ``[N]``, probability of the first name, 0 without one.
        latency_ms: float64 ``[N]``, from the arrival of the image to the answer.
        heard_ns: int64 ``[N]``, when a recorder heard the answer, on the computer's clock.
        boxes: float64 ``[N, 7]``, centre x, y, z, size x, y, z (m) and yaw (rad) of the box
            around each object, NaN without one.
    """

    stamp_ns: npt.NDArray[np.int64]
    names: tuple[tuple[str, ...], ...]
    unknown: npt.NDArray[np.bool_]
    score: npt.NDArray[np.float64]
    latency_ms: npt.NDArray[np.float64]
    heard_ns: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 7)))


def read_class_answers(
    bag: Path, topic: str = "/object_class", source: str = "camera"
) -> ClassAnswers:
    """Read the answers of one sensor's classifier that a bag holds.

    Raises:
        InputError: ``no_answers`` if there are none.
    """
    found = [each for each in read_messages(bag, topic) if each[2].source == source]
    if not found:
        raise InputError("no_answers", f"{bag} holds no {topic} of source {source}")
    heard, stamps, messages = zip(*found, strict=True)
    return ClassAnswers(
        np.array(stamps, np.int64),
        tuple(tuple(each.name for each in m.hypotheses) for m in messages),
        np.array([m.unknown for m in messages], np.bool_),
        np.array([m.hypotheses[0].score if m.hypotheses else 0.0 for m in messages], np.float64),
        np.array([m.latency_ms for m in messages], np.float64),
        np.array(heard, np.int64),
        np.array([_box(m) for m in messages], np.float64),
    )


def _box(message: Any) -> tuple[float, ...]:
    if not message.has_box:
        return (math.nan,) * 7
    at, turn, size = (
        message.box_center.position,
        message.box_center.orientation,
        message.box_size,
    )
    return at.x, at.y, at.z, size.x, size.y, size.z, 2 * math.atan2(turn.z, turn.w)


def read_visible(drive: Path, region: Region) -> dict[int, dict[str, float]]:
    """What each picture of a simulated drive truly shows.

    Returns:
        By stamp (ns): share of the region by word, largest first.

    Raises:
        InputError: ``no_ground_truth`` if the drive says nothing of it.
    """
    with BagReader(drive) as bag:
        truth = [json.loads(text) for text in bag.texts(ObjectTruth.topic)]
    if not truth:
        raise InputError(
            "no_ground_truth", f"{drive} has no {ObjectTruth.topic}; simulate the drive anew"
        )
    return {int(each["stamp_ns"]): word_shares(each[region]) for each in truth}


@dataclass(frozen=True)
class JudgedClasses:
    """Answers judged by what was in view.

    Attributes:
        figures: every figure by its JSON name, all beginning with ``class_``.
        at: int64 ``[J]``, position in the answers of each judged frame.
        labels: int64 ``[J]``, index of the true word.
        said: int64 ``[J]``, index of the most probable word, -1 for none of the words.
        words: the vocabulary.
        share: float64 ``[J]``, share of the picture that the true word fills.
    """

    figures: dict[str, Any]
    at: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    said: npt.NDArray[np.int64]
    words: tuple[str, ...]
    share: npt.NDArray[np.float64]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether the most probable word is the true one, bool ``[J]``."""
        return np.asarray(self.said == self.labels)

    @property
    def seen(self) -> npt.NDArray[np.int64]:
        """Indices of the words that are true of some judged frame, int64 ``[S]``."""
        return np.unique(self.labels)


def judge_classes(
    answers: ClassAnswers,
    visible: Mapping[int, Mapping[str, float]],
    words: Sequence[str],
    minimum_share: float,
) -> JudgedClasses:
    """Judge names; a pure function.

    A frame is judged if the objects of one class of the vocabulary fill at least
    ``minimum_share`` of the picture, and more than those of any other class that has a word,
    whether in the vocabulary or not.

    Args:
        answers: the node's answers.
        visible: share of the picture by word and stamp, as :func:`read_visible` gives it.
        words: the vocabulary.
        minimum_share: see above (0-1).
    """
    index = {word: k for k, word in enumerate(words)}
    at, labels, share = [], [], []
    for k, stamp in enumerate(answers.stamp_ns.tolist()):
        shares = visible.get(stamp, {})
        word = max(shares, key=shares.__getitem__, default="")
        if word in index and shares[word] >= minimum_share:
            at.append(k)
            labels.append(index[word])
            share.append(shares[word])
    said = np.array([index.get(next(iter(answers.names[k]), ""), -1) for k in at], np.int64)
    found = JudgedClasses(
        {},
        np.array(at, np.int64),
        np.array(labels, np.int64),
        said,
        tuple(words),
        np.array(share, np.float64),
    )
    found.figures.update(_figures(found, answers, visible, minimum_share))
    return found


def _figures(
    found: JudgedClasses,
    answers: ClassAnswers,
    visible: Mapping[int, Mapping[str, float]],
    minimum_share: float,
) -> dict[str, Any]:
    right, known = found.right, ~answers.unknown[found.at]
    third = np.array(
        [
            found.words[label] in answers.names[k][:3]
            for k, label in zip(found.at, found.labels, strict=True)
        ],
        np.bool_,
    )
    classes = {found.words[k]: _class_figures(found, int(k)) for k in found.seen}
    # Every frame with an answer: is what it names there to be seen at all?
    in_view, by_chance = [], []
    for k, stamp in enumerate(answers.stamp_ns.tolist()):
        there = {word for word, share in visible.get(stamp, {}).items() if share >= VISIBLE_SHARE}
        in_view.append(bool(answers.names[k]) and answers.names[k][0] in there)
        by_chance.append(len(there & set(found.words)) / len(found.words))
    return {
        "class_frames": len(found.at),
        "class_minimum_share": minimum_share,
        "class_top_1": _share(right),
        "class_top_3": _share(third),
        "class_mean_top_1": (
            float(np.mean([each["top_1"] for each in classes.values()])) if classes else None
        ),
        # What always saying the most frequent word would reach.
        "class_most_frequent": (
            max(each["frames"] for each in classes.values()) / len(found.at) if classes else None
        ),
        "class_known": _share(known),
        "class_precision_known": _share(right[known]),
        "class_in_view": _share(np.array(in_view, np.bool_)),
        "class_in_view_by_chance": float(np.mean(by_chance)) if by_chance else None,
        "class_visible_share": VISIBLE_SHARE,
        "class_per_word": classes,
        **{
            f"class_latency_{k}": v
            for k, v in metrics.percentiles_ms(answers.latency_ms / 1e3).items()
        },
    }


def _class_figures(found: JudgedClasses, word: int) -> dict[str, Any]:
    said = found.said[found.labels == word]
    wrong = said[said != word]
    instead = None
    if len(wrong):
        most = int(np.bincount(wrong + 1).argmax()) - 1
        instead = found.words[most] if most >= 0 else "nothing"
    return {
        "frames": len(said),
        "top_1": float((said == word).mean()),
        "most_often_instead": instead,
    }


def _share(values: npt.NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if len(values) else None
