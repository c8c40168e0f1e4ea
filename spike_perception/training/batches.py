# SPDX-License-Identifier: Apache-2.0
"""Batches of several image sets, with the teacher's features: a pure function of the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spike_perception.training.augment import Augment
from spike_perception.training.chance import Order, keys


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """One image set, ready to draw from; row i of all arrays is one image.

    Attributes:
        pixels: uint8 [M, h, w, 3].
        features: the teacher's, float16 [M, C].
        tokens: the teacher's in the basis, float16 [N, h, w, d], of the whole set.
        rows: row of ``tokens`` of each image, int64 [M].
        labels: index into the vocabulary, int64 [M]; -1 where none is to be learnt.
    """

    pixels: NDArray[np.uint8]
    features: NDArray[np.float16]
    tokens: NDArray[np.float16]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]


class DistillBatches:
    """Batches of several image sets: a pure function of the step."""

    def __init__(
        self, sets: Sequence[TrainingSet], weights: list[float], batch: int, augment: Augment,
        seed: int, tokens: bool,
    ) -> None:  # fmt: skip
        """Draw from these sets, each with its weight; ``tokens`` if the losses need them."""
        self.sets = sets
        self.augment = augment
        self.seed = seed
        self.tokens = tokens
        self.order = Order([len(each.pixels) for each in sets], weights, batch, seed)

    def __call__(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """This process's part: images, features, labels and, if wanted, tokens."""
        sets, indices, epochs = (each[rank::world] for each in self.order(step))
        pixels = self._gathered("pixels", sets, indices)
        batch = {
            "images": self.augment(pixels, keys(self.seed, sets, epochs, indices)),
            "features": torch.from_numpy(self._gathered("features", sets, indices)).float(),
            "labels": torch.from_numpy(self._gathered("labels", sets, indices)),
        }
        if self.tokens:
            batch["tokens"] = torch.from_numpy(self._gathered("tokens", sets, indices)).float()
        return batch

    def clean(self, batches: int) -> list[NDArray[np.uint8]]:
        """Pixels of the first batches of the order, without augmentation."""
        return [self._gathered("pixels", *self.order(step)[:2]) for step in range(batches)]

    def _gathered(
        self, name: str, sets: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> NDArray[Any]:
        parts = []
        for number in range(len(self.sets)):  # samples of a set follow one another in the order
            chosen = indices[sets == number]
            if len(chosen):
                source = self.sets[number]
                rows = source.rows[chosen] if name == "tokens" else chosen
                parts.append(np.asarray(getattr(source, name)[rows]))
        return np.concatenate(parts)
