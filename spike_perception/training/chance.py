# SPDX-License-Identifier: Apache-2.0
"""Chance as a pure function: a number depends on seed and place in the training, on nothing else.

A run that was killed and resumed draws what the uninterrupted run draws, in any process and in any
order, because there is no generator whose state could be lost.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def keys(*parts: ArrayLike | int) -> NDArray[np.uint64]:
    """Hash integers to 64-bit keys (SplitMix64's finaliser, chained over the parts).

    Args:
        parts: integers or arrays of them, broadcast against each other.

    Returns:
        uint64 of the common shape.
    """
    state: NDArray[np.uint64] = np.zeros((), np.uint64)
    for part in parts:
        value = np.asarray(part).astype(np.int64).view(np.uint64)
        with np.errstate(over="ignore"):
            state = _mixed(state * np.uint64(_GOLDEN) + value + np.uint64(_GOLDEN))
    return state


def key(*parts: int) -> int:
    """:func:`keys` of single numbers, as an int below 2**63, which every generator takes."""
    return int(keys(*parts)) >> 1


def uniform(sample_keys: NDArray[np.uint64], columns: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), float64 [B, columns], for keys [B]."""
    with np.errstate(over="ignore"):
        steps = np.arange(1, columns + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        mixed = _mixed(sample_keys[:, None] + steps)
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


class Order:
    """Which samples of which sets make up a batch: a pure function of the step.

    Every set is walked through in permutations of its own, one an epoch, so each of its samples is
    seen equally often. Of any ``n`` samples in a row a set gives its share, rounded.
    """

    def __init__(self, sizes: list[int], weights: list[float], batch: int, seed: int) -> None:
        """Make the order.

        Args:
            sizes: samples in each set.
            weights: how often a sample of each set is drawn, relative to one another.
            batch: samples a step, over all processes.
            seed: of the permutations.
        """
        self.sizes = sizes
        self.batch = batch
        self.seed = seed
        shares = np.array(sizes, np.float64) * np.array(weights, np.float64)
        self._ends = np.cumsum(shares / shares.sum())
        self._ends[-1] = 1.0
        self._permutations: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def epoch_steps(self) -> int:
        """Steps in which as many samples are seen as all sets have together."""
        return max(1, round(sum(self.sizes) / self.batch))

    def __call__(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Set, index within it and epoch of every sample of a step, int64 [batch] each."""
        before = self._taken(step * self.batch)
        after = self._taken((step + 1) * self.batch)
        sets, indices, epochs = [], [], []
        for number, (start, stop) in enumerate(zip(before, after, strict=True)):
            for position in range(start, stop):
                epoch, place = divmod(position, self.sizes[number])
                sets.append(number)
                indices.append(int(self._permutation(number, epoch)[place]))
                epochs.append(epoch)
        return np.array(sets, np.int64), np.array(indices, np.int64), np.array(epochs, np.int64)

    def _taken(self, samples: int) -> list[int]:
        """Samples that each set has given among the first ``samples``."""
        ends = [0, *np.floor(self._ends * samples + 1e-6).astype(np.int64).tolist()]
        return [stop - start for start, stop in itertools.pairwise(ends)]

    def _permutation(self, number: int, epoch: int) -> NDArray[np.int64]:
        kept = self._permutations.get(number)
        if kept is None or kept[0] != epoch:
            generator = np.random.Generator(np.random.Philox(key(self.seed, number, epoch)))
            kept = epoch, generator.permutation(self.sizes[number]).astype(np.int64)
            self._permutations[number] = kept
        return kept[1]
