# SPDX-License-Identifier: Apache-2.0
"""Spike counts averaged over the frames of a stream."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

# Less of a spike than this is answered as none: behind a covered lens the average falls silent, it
# does not only get ever smaller in the direction of what was seen last. The average itself keeps
# it: with a long time constant, a single frame never adds as much.
LEAST = 0.01


class CountsAverage:
    """Exponential average with a time constant, by the stamps of the frames.

    A head's logits ``W @ F + b`` are linear in the counts F: those of the averaged counts are the
    averaged logits, for any vocabulary. So a vocabulary can be swapped without losing what was
    seen, and a decision on the average is one of the plain head, its rule for "unknown" included.
    """

    def __init__(self, time_constant_s: float) -> None:
        """Begin empty.

        Args:
            time_constant_s: the weight of a frame falls to 1/e in this time [s]; 0: no average.
        """
        self.time_constant_s = time_constant_s
        self._average: Float64 | None = None
        self._stamp_ns = 0

    def update(self, counts: NDArray[np.float32], stamp_ns: int) -> Float64:
        """Take a frame's counts [C]; returns the average [C] at its stamp, a copy.

        The first frame counts in full. Of frames that come at even intervals each has the weight
        ``1 - exp(-interval / time constant)`` when it is the newest.
        """
        new = counts.astype(np.float64)
        if self._average is not None and self.time_constant_s > 0:
            passed_s = max(0, stamp_ns - self._stamp_ns) / 1e9
            keep = math.exp(-passed_s / self.time_constant_s)
            new = keep * self._average + (1 - keep) * new
        self._average, self._stamp_ns = new, stamp_ns
        return np.where(new < LEAST, 0.0, new)

    def reset(self) -> None:
        """Forget every frame."""
        self._average = None
