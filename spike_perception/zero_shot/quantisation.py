# SPDX-License-Identifier: Apache-2.0
"""Head rows as int8 with one common scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class QuantisedRows:
    """``W ≈ scale * (common + values)``.

    All rows share ``common``, so it adds the same number to every logit: the argmax needs
    ``values`` alone. Text embeddings have a large common part (a few dimensions carry most of the
    norm); without it the same 8 bits resolve the differences between classes about four times as
    finely.

    Attributes:
        values: int8 [K, C].
        common: int32 [C], mean row in units of ``scale``.
        scale: one positive factor for the whole matrix.
    """

    values: NDArray[np.int8]
    common: NDArray[np.int32]
    scale: float

    def rows(self) -> Float32:
        """The rows that the integers stand for [K, C]."""
        whole = self.values.astype(np.int32) + self.common
        return np.asarray(whole * self.scale, np.float32)


def quantise(rows: Float32) -> QuantisedRows:
    """Round rows [K, C] to int8 with one scale about their mean row."""
    mean = rows.mean(axis=0, dtype=np.float64)
    # Identical rows (also a single one) leave no difference to scale by.
    spread = float(np.abs(rows - mean).max())
    if spread < 1e-6:
        mean = np.zeros_like(mean)
        spread = float(np.abs(rows).max())
    scale = spread / 127
    common = np.rint(mean / scale)
    # The rounding of the common row can push an extreme value one step past 127.
    values = np.clip(np.rint(rows / scale - common), -127, 127)
    return QuantisedRows(values.astype(np.int8), common.astype(np.int32), scale)
