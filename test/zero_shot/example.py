# SPDX-License-Identifier: Apache-2.0
"""Made-up vocabularies and the spike counts an encoder aligned with them would give."""

from __future__ import annotations

import numpy as np

from spike_perception.zero_shot.folding import FoldedText, fold, unit
from spike_perception.zero_shot.pack import VocabularyPack

ENCODER = "e" * 64


def rows(classes: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit rows that share a large direction, as text embeddings do."""
    rng = np.random.default_rng(seed)
    common = np.zeros(width)
    common[:3] = 4.0
    return unit(common + rng.standard_normal((classes, width))).astype(np.float32)


def pack(classes: int = 6, width: int = 64, seed: int = 0, **fields) -> VocabularyPack:
    names = tuple(f"word {k}" for k in range(classes))
    total = classes + len(fields.get("negatives", ()))
    return VocabularyPack.build(names, rows(total, width, seed), ENCODER, **fields)


def spike_counts(
    directions: np.ndarray,
    labels: np.ndarray,
    *,
    noise: float = 1.0,
    neurons: int = 16,
    seed: int = 1,
) -> np.ndarray:
    """Integer counts [N, C]: sums of ``neurons`` I-LIF outputs in 0..4 along noisy directions."""
    rng = np.random.default_rng(seed)
    width = directions.shape[1]
    drive = directions[labels] * np.float32(np.sqrt(width))
    drive = drive + np.float32(noise) * rng.standard_normal(drive.shape, np.float32)
    total = np.zeros(drive.shape, np.int64)
    for _ in range(neurons):
        jitter = np.float32(0.3) * rng.standard_normal(drive.shape, np.float32)
        total += np.floor(np.clip(drive + jitter, 0, 4) + np.float32(0.5)).astype(np.int64)
    return total


def folded(classes: int, width: int, seed: int = 0) -> FoldedText:
    return fold(list(rows(classes, width, seed)))
