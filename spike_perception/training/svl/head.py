# SPDX-License-Identifier: Apache-2.0
"""Linear classification of spike counts in the form that a vocabulary pack has."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from spike_perception.spiking.folding import levels
from spike_perception.students.student import Student
from spike_perception.training.svl.mta import MAX_SCALE
from spike_perception.training.svl.objective import firing_rates
from spike_perception.training.trainer import Batch
from spike_perception.zero_shot.pack import VocabularyPack


class ClassHead(nn.Module):
    """Scaled cosines of learnt rows with firing rates, measured from a learnt centre.

    ``g cos(w_k, r - m)`` is linear in the counts up to their length, which no argmax depends on;
    and it is what a pack computes, so that a robot's probabilities are those of the training.

    Attributes:
        rows: w [K, C].
        centre: m [C].
        log_scale: logarithm of g.
    """

    def __init__(self, classes: int, counts: int, scale: float) -> None:
        """Start with random rows."""
        super().__init__()
        self.rows = nn.Parameter(torch.randn(classes, counts) * counts**-0.5)
        self.centre = nn.Parameter(torch.zeros(counts))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @property
    def scale(self) -> Tensor:
        """The factor g."""
        return self.log_scale.exp().clamp_max(MAX_SCALE)

    def forward(self, rates: Tensor) -> Tensor:
        """Logits [B, K] of firing rates [B, C]."""
        x = functional.normalize(rates - self.centre, dim=1)
        return self.scale * x @ functional.normalize(self.rows, dim=1).T

    @torch.no_grad()
    def pack(self, names: Sequence[str], student: Student, encoder_id: str) -> VocabularyPack:
        """The same on spike counts, for nodes and ``evaluate``.

        Args:
            names: K classes.
            student: whose counts are classified.
            encoder_id: of its bundle.
        """
        most = student.config.steps * levels(student)
        rows = functional.normalize(self.rows.double(), dim=1).cpu()
        return VocabularyPack.build(
            names,
            rows.numpy(),
            encoder_id,
            feature_mean=(self.centre * most).float().cpu().numpy().copy(),
            temperature=1.0 / float(self.scale),
        )


class FinetuneObjective(nn.Module):
    """See ``trainer.Objective``: cross-entropy of labels.

    Attributes:
        student: the network.
        head: rows of the classes.
    """

    def __init__(self, student: Student, head: ClassHead, smoothing: float) -> None:
        """Join them; ``smoothing`` as in ``HeadConfig``."""
        super().__init__()
        self.student = student
        self.head = head
        self.smoothing = smoothing

    def forward(
        self, batch: Batch, progress: float, seed: int, detail: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch, and its accuracy."""
        del progress, seed
        rates = firing_rates(self.student, batch["points"])
        with torch.autocast(rates.device.type, enabled=False):
            logits = self.head(rates)
            total = functional.cross_entropy(
                logits, batch["labels"], label_smoothing=self.smoothing
            )
        if not detail:
            return total, {}
        right = (logits.detach().argmax(1) == batch["labels"]).float().mean()
        return total, {"train/accuracy": right, "rate/feature": rates.detach().mean()}
