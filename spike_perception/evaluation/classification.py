# SPDX-License-Identifier: Apache-2.0
"""Answers of a vocabulary to features whose classes are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.evaluation.metrics import class_ranks, top_k
from spike_perception.zero_shot.head import Head

_BLOCK = 4096  # features answered at once: bounds the memory of many classes


@dataclass(frozen=True)
class Judged:
    """The most probable class of each feature, without rejection, and how the true one fares.

    Attributes:
        labels: int64 ``[N]``, the true classes.
        answers: int64 ``[N]``, the most probable of the finest classes; -1 for a silent feature,
            which has no direction and so no answer.
        confidence: float64 ``[N]``, its probability.
        ranks: int64 ``[N]``, classes before the true one; the number of classes if silent.
    """

    labels: npt.NDArray[np.int64]
    answers: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    ranks: npt.NDArray[np.int64]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each answer is right, bool ``[N]``."""
        return np.asarray(self.answers == self.labels)


def judge(
    head: Head,
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    seen: Callable[[npt.NDArray[np.float64]], None] | None = None,
) -> Judged:
    """Name features and compare with their classes.

    Args:
        head: the vocabulary.
        features: spike counts ``[N, C]``.
        labels: int64 ``[N]``, classes without classes below them.
        seen: called with the cosines ``[B, K + M]`` of each block of features in turn.
    """
    pack = head.pack
    leaves = np.asarray(pack.hierarchy.leaves, np.int64)
    answers, confidence, ranks = [], [], []
    for start in range(0, len(features), _BLOCK):
        part = slice(start, start + _BLOCK)
        cosines = head.cosines(features[part])
        if seen is not None:
            seen(cosines)
        classes = cosines[:, : len(pack.names)]
        probabilities = pack.hierarchy.posteriors(classes, pack.temperature)[:, leaves]
        # Probabilities of unlikely classes may all be 0; without a hierarchy cosines rank alike.
        evidence = classes if pack.hierarchy.flat else probabilities
        best = evidence.argmax(axis=1)
        rank = class_ranks(evidence, np.searchsorted(leaves, labels[part]))
        silent = ~features[part].any(axis=1)
        answers.append(np.where(silent, -1, leaves[best]))
        confidence.append(np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0])
        ranks.append(np.where(silent, len(leaves), rank))
    return Judged(labels, *(np.concatenate(each) for each in (answers, confidence, ranks)))


def class_rows(names: Sequence[str], judged: Judged) -> dict[str, dict[str, Any]]:
    """How the samples of each true class fare, by its name.

    Args:
        names: names of the classes.
        judged: the answers.
    """
    found = {}
    for label in np.unique(judged.labels):
        mine = judged.labels == label
        answers = judged.answers[mine & ~judged.correct & (judged.answers >= 0)]
        instead = names[int(np.bincount(answers).argmax())] if len(answers) else None
        found[names[int(label)]] = {
            "images": int(mine.sum()),
            "top_1": top_k(judged.ranks[mine], 1),
            "top_5": top_k(judged.ranks[mine], 5),
            "most_often_instead": instead,
        }
    return found
