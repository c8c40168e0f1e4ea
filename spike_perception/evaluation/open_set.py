# SPDX-License-Identifier: Apache-2.0
"""How well a vocabulary tells the unknown: some of its classes are held out, again and again.

A held-out class loses its row, so its images are unknown; all other images are known. Text rows of
the classes that stay are the same with or without the others, so that leaving a class's cosine out
is folding the vocabulary without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import (
    METHODS,
    auroc,
    false_positive_rate,
    known_scores,
)

Float64 = npt.NDArray[np.float64]
TRUE_POSITIVE_RATE = 0.95


def draw_splits(
    classes: Sequence[int], held_out: int, splits: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """Which classes are held out in each split: every class about equally often.

    Args:
        classes: the classes to draw from.
        held_out: how many of them in each split, fewer than there are.
        splits: number of splits.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    times = np.zeros(len(classes), np.int64)
    drawn = []
    for _ in range(splits):
        at = np.lexsort((rng.random(len(classes)), times))[:held_out]
        times[at] += 1
        drawn.append(tuple(sorted(int(classes[k]) for k in at)))
    return tuple(drawn)


class SplitScores:
    """Scores of every image under every split and rejection method, gathered block by block.

    Args:
        pack: the vocabulary.
        splits: held-out classes, leaves of the vocabulary.
    """

    def __init__(self, pack: VocabularyPack, splits: Sequence[Sequence[int]]) -> None:
        self.splits = tuple(tuple(each) for each in splits)
        self.methods = METHODS if pack.negatives else METHODS[:-1]
        self._temperature = pack.temperature
        negatives = np.arange(len(pack.names), len(pack.rows))
        self._kept = [np.setdiff1d(pack.hierarchy.leaves, split) for split in self.splits]
        self._columns = [np.append(kept, negatives) for kept in self._kept]
        self._blocks: list[Float64] = []

    def add(self, cosines: Float64) -> None:
        """Score the next images.

        Args:
            cosines: ``[B, K + M]``, classes first, negative labels after them.
        """
        scores = np.empty((len(self.methods), len(self.splits), len(cosines)))
        for k, (kept, columns) in enumerate(zip(self._kept, self._columns, strict=True)):
            for m, method in enumerate(self.methods):
                scores[m, k] = known_scores(
                    method, cosines[:, columns], len(kept), self._temperature
                )
        self._blocks.append(scores)

    def separations(self, labels: npt.NDArray[np.int64]) -> dict[str, Separation]:
        """How well known and unknown are told apart, by method.

        Args:
            labels: int64 ``[N]``, class of each image that was added.
        """
        scores = np.concatenate(self._blocks, axis=-1)
        unknown = [np.isin(labels, split) for split in self.splits]
        return {
            method: Separation(
                tuple((row[~held], row[held]) for row, held in zip(scores[m], unknown, strict=True))
            )
            for m, method in enumerate(self.methods)
        }


@dataclass(frozen=True)
class Separation:
    """One method's scores.

    Attributes:
        splits: for each split, the scores of known and of unknown images.
    """

    splits: tuple[tuple[Float64, Float64], ...]

    def summary(self) -> dict[str, Any]:
        """Mean, standard deviation and single values over the splits, by their JSON names."""
        areas = [auroc(known, unknown) for known, unknown in self.splits]
        rates = [
            false_positive_rate(known, unknown, TRUE_POSITIVE_RATE)
            for known, unknown in self.splits
        ]
        return {
            "auroc": float(np.mean(areas)),
            "auroc_std": float(np.std(areas)),
            "auroc_splits": areas,
            "fpr95": float(np.mean(rates)),
            "fpr95_std": float(np.std(rates)),
            "fpr95_splits": rates,
        }
