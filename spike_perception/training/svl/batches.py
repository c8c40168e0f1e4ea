# SPDX-License-Identifier: Apache-2.0
"""Batches of shapes with the teacher's answers: a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spike_perception.training.chance import Order, keys, uniform
from spike_perception.training.trainer import Batch

Float = NDArray[np.float32]
Augment = Callable[[Float, np.random.Generator, int], Float]
Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class TrainingShapes:
    """One set, ready to draw from; row i of all arrays is one shape.

    Attributes:
        points: float32 [M, P, 3], z up, unit sphere.
        labels: index into the prompts, int64 [M]; -1 where no name is to be learnt.
        features: the teacher's, of V pictures of each, float16 [M, V, C_T]; None if not needed.
    """

    points: Float
    labels: NDArray[np.int64]
    features: NDArray[np.float16] | None = None


class ShapeBatches:
    """Batches of several sets: a pure function of the step.

    Each time a shape is drawn it is augmented anew, seen by the teacher from another side, and
    named in another prompt.
    """

    def __init__(
        self,
        sets: Sequence[TrainingShapes],
        weights: list[float],
        batch: int,
        points: int,
        augment: Augment,
        prepare: Prepare,
        seed: int,
        prompts: Float | None = None,
    ) -> None:
        """Draw from these sets.

        Args:
            sets: at least one.
            weights: how often a sample of each is drawn, relative to one another.
            batch: samples a step, over all processes.
            points: of a cloud, as the student takes it.
            augment: changes a cloud, see ``point_augment.PointAugment``.
            prepare: the student's, which groups clouds [B, P, 3]. It is called here and not in the
                network, since mixed precision would round coordinates before their differences.
            seed: of order and augmentation.
            prompts: unit embeddings of every name in every prompt [K, prompts, C_T]; None gives
                batches without texts.
        """
        self.sets = sets
        self.points = points
        self.augment = augment
        self.prepare = prepare
        self.prompts = prompts
        self.seed = seed
        self.order = Order([len(each.points) for each in sets], weights, batch, seed)

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        """This process's part: ``points`` as prepared, ``labels``; ``texts``, ``images`` if any."""
        sets, indices, epochs = (each[rank::world] for each in self.order(step))
        sample_keys = keys(self.seed, sets, epochs, indices)
        picks = uniform(sample_keys, 2)
        clouds, labels, images = [], [], []
        for number, index, key, pick in zip(sets, indices, sample_keys, picks, strict=True):
            source = self.sets[number]
            rng = np.random.Generator(np.random.Philox(int(key)))
            clouds.append(self.augment(source.points[index], rng, self.points))
            labels.append(source.labels[index])
            if source.features is not None:
                views = source.features[index]
                images.append(views[int(pick[0] * len(views))])
        found = np.array(labels, np.int64)
        points = self.prepare(torch.from_numpy(np.stack(clouds)))
        batch = {"points": points, "labels": torch.from_numpy(found)}
        if self.prompts is not None:
            drawn = (picks[:, 1] * self.prompts.shape[1]).astype(np.int64)
            batch["texts"] = torch.from_numpy(self.prompts[np.maximum(found, 0), drawn])
        if images:
            batch["images"] = torch.from_numpy(np.stack(images).astype(np.float32))
        return batch

    def clean(self, batches: int) -> list[Float]:
        """Clouds of the first batches of the order, without augmentation, [B, P, 3] each."""
        found = []
        for step in range(batches):
            sets, indices, _ = self.order(step)
            found.append(
                np.stack([self.sets[k].points[i] for k, i in zip(sets, indices, strict=True)])
            )
        return found
