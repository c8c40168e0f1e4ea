# SPDX-License-Identifier: Apache-2.0
"""How well a descriptor finds the places of one drive on another, while it is being trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.evaluation import ground_truth, metrics
from spike_perception.places.config import SequenceConfig
from spike_perception.places.descriptors import Kind
from spike_perception.places.index import PlaceIndex
from spike_perception.places.sequence import match_sequences

SEQUENCES = (1, 10)
TOLERANCE = 1


def judge(
    kind: Kind, reference: NDArray[Any], query: NDArray[Any], tolerance: int = TOLERANCE
) -> dict[str, float]:
    """Recall@1 of single frames and of sequences, as ``evaluate places`` finds it.

    Args:
        kind: of the descriptors.
        reference: descriptors of a drive, float32 [N, d] or uint8 [N, d / 8].
        query: of the same way at another time; frame k is frame k.
        tolerance: frames before and after the true one that count as right.

    Returns:
        ``recall_at_1_sequence_L`` by length L.
    """
    dimension = reference.shape[1] * (1 if kind == "float" else 8)
    index = PlaceIndex(kind, dimension, exact_bytes=1 << 62)
    index.add(np.arange(1, len(reference) + 1), reference)
    similarity = index.scores(query)
    truth = ground_truth.diagonal(len(query), len(reference), tolerance)
    found = {}
    for length in SEQUENCES:
        scores = match_sequences(similarity, SequenceConfig(length=length))
        matches = metrics.matches_from_scores(scores, truth)
        right = matches.answered & matches.correct
        found[f"recall_at_1_sequence_{length}"] = float(right.sum() / len(query))
    return found


def both_forms(
    describe: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    reference: NDArray[np.uint8],
    query: NDArray[np.uint8],
    tolerance: int = TOLERANCE,
) -> dict[str, float]:
    """:func:`judge` for the float and the bit form.

    Args:
        describe: z [N, d] of grey frames uint8 [N, H, W].
        reference: frames.
        query: frames.
        tolerance: as in :func:`judge`.
    """
    z = [describe(each) for each in (reference, query)]
    floats = [each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in z]
    bits = [np.packbits(each > 0, axis=1) for each in z]
    judged = {
        "float": judge("float", floats[0], floats[1], tolerance),
        "bits": judge("bits", bits[0], bits[1], tolerance),
    }
    return {f"{kind}_{name}": v for kind, each in judged.items() for name, v in each.items()}
