# SPDX-License-Identifier: Apache-2.0
"""A trained student by itself: statistics anew, spike counts of images, zero-shot accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spike_perception.evaluation.metrics import class_ranks, top_k
from spike_perception.students.student import Student
from spike_perception.zero_shot.folding import fold
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack

Float = NDArray[np.float32]
_NO_ENCODER = "0" * 64


@torch.no_grad()
def recalibrate(student: Student, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of batch normalisation by plain means over these batches.

    While training they follow augmented images with a delay; what is deployed sees plain ones.

    Args:
        student: changed in place; left in evaluation mode.
        batches: normalised images [B, ...] as deployed.
    """
    norms = [
        each for each in student.modules() if isinstance(each, (nn.BatchNorm1d, nn.BatchNorm2d))
    ]
    momenta = [each.momentum for each in norms]
    for each in norms:
        each.reset_running_stats()
        each.momentum = None  # a cumulative mean
    student.train()
    for batch in batches:
        student(batch)
    for each, momentum in zip(norms, momenta, strict=True):
        each.momentum = momentum
    student.eval()


@torch.no_grad()
def spike_counts(
    student: Student,
    samples: NDArray[Any],
    clean: Callable[[NDArray[Any]], Tensor],
    batch: int = 256,
) -> Float:
    """F of images, clouds or sequences of windows, float32 [N, C].

    Args:
        student: in evaluation mode.
        samples: uint8 [N, h, w, 3] at the student's size, or float32 [N, ..., P, 3 + F].
        clean: makes a batch of them the student's input.
        batch: samples at once.
    """
    device = next(student.parameters()).device
    parts = [
        student(clean(samples[start : start + batch]).to(device)).float().cpu().numpy()
        for start in range(0, len(samples), batch)
    ]
    return np.concatenate(parts)


def folded_scores(
    counts: Float, texts: Sequence[Float], projection: Float, text_mean: Float
) -> NDArray[np.float64]:
    """Scores [N, K] as the robot's head gives them: cosines with folded rows."""
    folded = fold(texts, projection=projection.T, text_mean=text_mean)
    names = [f"class {index}" for index in range(len(texts))]
    return Head(VocabularyPack.of(names, folded, _NO_ENCODER)).cosines(counts)


def embedding_scores(
    embeddings: NDArray[np.floating], texts: Sequence[Float], text_mean: Float
) -> NDArray[np.float64]:
    """Scores [N, K] in the teacher's space; of a teacher's features or of ``P F``."""
    rows = fold(texts, text_mean=text_mean).rows.astype(np.float64)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, 1e-12) @ rows.T, np.float64)


def accuracies(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    """``top_1``, and ``top_5`` where there are more than five classes."""
    ranks = class_ranks(scores, labels)
    tops = (1, 5) if scores.shape[1] > 5 else (1,)
    return {f"top_{k}": float(top_k(ranks, k) or 0.0) for k in tops}
