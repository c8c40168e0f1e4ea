# SPDX-License-Identifier: Apache-2.0
"""Judge and report what a classifier answered to a bag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.bags.reader import BagReader
from spike_perception.errors import InputError
from spike_perception.evaluation import class_figures, metrics
from spike_perception.evaluation.class_answers import ClassAnswers, read_visible
from spike_perception.evaluation.class_timeline import draw_names, timeline_size
from spike_perception.evaluation.classification import Judged, class_rows
from spike_perception.evaluation.demo_classes import MINIMUM_SHARE
from spike_perception.evaluation.figures import draw_precision_recall
from spike_perception.evaluation.heard import Times, read_messages
from spike_perception.evaluation.report import FIGURE_SIZE, Report
from spike_perception.simulation.sensors import ObjectTruth

_SMALL = 8  # classes whose confusion can be read beside other figures
NOT_LISTED = 1_000_000  # rank of a true word that a node does not list: behind all that it does
MAX_LABELS_BYTES = 64 << 20


@dataclass(frozen=True)
class Words:
    """The vocabulary that a node named with.

    Attributes:
        names: its words.
        vocabulary_id: its hash.
        origin: file that it, or its words, came from.
        weights_id: hash of the encoder.
        method: score that decides about unknown, empty without a rule.
    """

    names: tuple[str, ...]
    vocabulary_id: str
    origin: str
    weights_id: str
    method: str


def read_words(bag: Path, topic: str) -> Words:
    """The vocabulary that a node announced.

    Raises:
        InputError: ``no_answers`` if it announced none.
    """
    message = read_messages(bag, topic)[-1][2]
    return Words(
        tuple(message.names),
        message.vocabulary_id,
        message.origin,
        message.weights_id,
        message.unknown_method,
    )


def read_labels(
    given: str, bag: Path, times: Times, *, simulated: bool
) -> tuple[tuple[str, ...], str]:
    """The true word of each message, empty where it is not known, and the truth in words.

    Args:
        given: a text file with one word a line, line k for message k, or empty: what a simulated
            drive says of itself, the word of the objects that fill most of the picture.
        bag: the bag.
        times: of its sensor messages.
        simulated: whether these are images, of which a simulated drive says what they show.

    Raises:
        InputError: ``ground_truth_missing``, ``ground_truth_unreadable`` or ``count_mismatch``.
    """
    count = len(times.stamp_ns)
    if not given:
        if simulated:
            with BagReader(bag) as opened:
                simulated = ObjectTruth.topic in opened.topics
        if not simulated:
            return ("",) * count, "none"
        visible = read_visible(bag, "whole")
        return (
            tuple(_largest(visible.get(stamp, {})) for stamp in times.stamp_ns.tolist()),
            f"simulator: what fills most of the picture, {MINIMUM_SHARE:.0%} of it or more",
        )
    path = Path(given)
    if not path.is_file():
        raise InputError("ground_truth_missing", f"there is no ground truth file {given}")
    try:
        if path.stat().st_size > MAX_LABELS_BYTES:
            raise InputError("ground_truth_unreadable", f"{given} is larger than a list of words")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "ground_truth_unreadable", f"{given} is no text file of one word a line: {error}"
        ) from error
    if len(lines) != count:
        raise InputError(
            "count_mismatch",
            f"{given} has {len(lines)} lines, but the bag {count} messages: one line a message is "
            "expected, empty where the word is not known",
        )
    return tuple(line.strip() for line in lines), given


def _largest(shares: Mapping[str, float]) -> str:
    word = max(shares, key=shares.__getitem__, default="")
    return word if word and shares[word] >= MINIMUM_SHARE else ""


@dataclass(frozen=True)
class JudgedNames:
    """Answers of a classifier, judged where the truth is known.

    Attributes:
        figures: every figure by its JSON name, as ``evaluate images`` has them.
        judged: the judged answers; None if the truth of none is known.
        at: int64 ``[J]``, positions of the judged ones among the answers.
        said: int64 ``[A]``, the word of every answer, -1 for none.
        labels: int64 ``[A]``, the true word of every answer, -1 where it is not known.
        words: the vocabulary.
    """

    figures: dict[str, Any]
    judged: Judged | None
    at: npt.NDArray[np.int64]
    said: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    words: tuple[str, ...]


def judge_names(
    answers: ClassAnswers, message: npt.NDArray[np.int64], true: Sequence[str], words: Words
) -> JudgedNames:
    """Judge names by the words that are true; a pure function.

    A message whose true word is not in the vocabulary is not judged.

    Args:
        answers: what the node answered.
        message: int64 ``[A]``, the message that each answer is to, -1 for none.
        true: ``[N]``, the true word of each message, empty where it is not known.
        words: the vocabulary.
    """
    index = {name.casefold(): k for k, name in reversed(list(enumerate(words.names)))}
    wanted = np.array([index.get(each.casefold(), -1) for each in true] + [-1], np.int64)
    labels = wanted[message]  # no message: the -1 at the end
    said = np.array(
        [index.get(names[0].casefold(), -1) if names else -1 for names in answers.names], np.int64
    )
    at = np.flatnonzero(labels >= 0)
    ranks = [
        names.index(word)
        if (word := words.names[labels[k]]) in (names := answers.names[k])
        else NOT_LISTED
        for k in at
    ]
    judged = Judged(labels[at], said[at], answers.score[at], np.array(ranks, np.int64))
    known = ~answers.unknown[at]
    right = judged.correct & known
    figures = _figures(judged, words) if len(at) else dict.fromkeys(_JUDGED)
    present = sorted({each for each in true if each})
    figures |= {
        "images": len(at),
        "silent": int((said < 0).sum()),
        "answered_unknown": float(answers.unknown.mean()),
        "known_called_unknown": float(answers.unknown[at].mean()) if len(at) else None,
        # Of all that were judged, and of those called known: called known, and right.
        "recall_known": float(right.mean()) if len(at) else None,
        "precision_known": float(right.sum() / known.sum()) if known.any() else None,
        "rejection": {
            "method": words.method or "none",
            "calibrated": bool(words.method),
            "methods": {},
            "held_out": [],
        },
        "auroc_unknown": None,
        "fpr95_unknown": None,
        "few_shot": [],
        "per_class": class_rows(words.names, judged) if len(at) else {},
        "wrong_answers": [],
        "classes": [each for each in present if each.casefold() in index],
        "folders": {},
        "missing_words": [each for each in present if each.casefold() not in index],
        "distractors": len(words.names) - len({int(k) for k in judged.labels}),
        "bundle": words.weights_id,
        "weights_id": words.weights_id,
        "vocabulary": words.vocabulary_id,
        "vocabulary_file": words.origin,
        "named": {
            words.names[k]: int((said == k).sum()) for k in np.unique(said[said >= 0]).tolist()
        },
    }
    return JudgedNames(figures, judged if len(at) else None, at, said, labels, words.names)


_JUDGED = (
    "top_1",
    "top_5",
    "top_1_class_mean",
    "expected_calibration_error",
    "mean_confidence",
)


def _figures(judged: Judged, words: Words) -> dict[str, Any]:
    rows = class_rows(words.names, judged)
    bins = metrics.reliability(judged.confidence, judged.correct)
    values = (
        metrics.top_k(judged.ranks, 1),
        metrics.top_k(judged.ranks, 5),
        float(np.mean([each["top_1"] for each in rows.values()])),
        bins.expected_calibration_error,
        float(judged.confidence.mean()),
    )
    return dict(zip(_JUDGED, values, strict=True))


def tell_names(
    report: Report,
    result: Mapping[str, Any],
    found: JudgedNames,
    answers: ClassAnswers,
    sensor: str,
) -> None:
    """Tell a report what was named from a sensor: "camera", "lidar" or "events"."""
    seconds = (answers.stamp_ns - answers.stamp_ns[0]) / 1e9
    words = len(np.unique(np.concatenate([found.said, found.labels])))
    report.figure(
        f"Names over time, {sensor}",
        f"names_{sensor}",
        lambda figure, palette: draw_names(
            figure, palette, seconds, found.said, found.labels, found.words, answers.unknown
        ),
        note="A dot is the most probable word of an answer, hollow if it was called unknown; a "
        "bar is the true word, where one is known.",
        size=timeline_size(words),
    )
    report.table(
        f"Names, {sensor}",
        ["word", "answers"],
        [list(each) for each in result["named"].items()],
        folded=True,
    )
    judged = found.judged
    if judged is None:
        return
    of_words = f"{sensor}, of {len(found.words):,} words"
    report.headline("Top-1", result["top_1"], of_words)
    report.headline("Top-5", result["top_5"], of_words)
    bins = metrics.reliability(judged.confidence, judged.correct)
    report.figure(
        f"Reliability, {sensor}",
        f"reliability_{sensor}",
        lambda figure, palette: class_figures.draw_reliability(figure, palette, bins),
        note="Accuracy of the answers by their stated probability. Calibrated, the bars end at the "
        "diagonal; bars below it are overconfident.",
    )
    curve = threshold_curve(judged)
    report.figure(
        f"Precision and recall, {sensor}",
        f"precision_recall_{sensor}",
        lambda figure, palette: draw_precision_recall(figure, palette, {"names": curve}),
        note="The most probable word, accepted above a falling probability: share of the accepted "
        "that is right, over the share of all judged messages that is accepted and right.",
    )
    matrix, rows, columns = confusion(judged, found.words)
    report.figure(
        f"Confusion, {sensor}",
        f"confusion_{sensor}",
        lambda figure, palette: class_figures.draw_confusion(
            figure, palette, matrix, rows, columns
        ),
        note="Share of each true class's messages (row) by the most probable word (column).",
        size=FIGURE_SIZE if len(rows) <= _SMALL else (9.0, 7.5),
    )
    report.table(
        f"Classes, {sensor}",
        ["class", "messages", "top-1", "top-5", "most often said instead"],
        [
            [name, each["images"], each["top_1"], each["top_5"], each["most_often_instead"]]
            for name, each in result["per_class"].items()
        ],
        folded=True,
    )


def threshold_curve(judged: Judged) -> metrics.PrecisionRecall:
    """Precision and recall of the most probable word over a threshold on its probability."""
    answered = judged.answers >= 0
    return metrics.precision_recall(
        metrics.Matches(
            judged.answers,
            np.where(answered, judged.confidence, -np.inf),
            judged.correct,
            judged.ranks,
            np.ones(len(judged.labels), np.bool_),
        )
    )


def confusion(
    judged: Judged, words: Sequence[str]
) -> tuple[npt.NDArray[np.int64], list[str], list[str]]:
    """Messages by true and named word: rows are the true classes, columns those and others named.

    An answer without a name has a column of its own.
    """
    rows = np.unique(judged.labels)
    said = np.where(judged.answers < 0, len(words), judged.answers)
    columns = np.concatenate([rows, np.setdiff1d(said, rows)])
    whole = metrics.confusion(judged.labels, said, len(words) + 1)
    names = [*words, "nothing"]
    return whole[np.ix_(rows, columns)], [names[k] for k in rows], [names[k] for k in columns]
