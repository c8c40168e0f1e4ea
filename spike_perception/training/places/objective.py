# SPDX-License-Identifier: Apache-2.0
"""What is trained: student, projection to the descriptor, and losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from spike_perception.students.student import Student
from spike_perception.training.places.config import PlaceLossConfig
from spike_perception.training.places.losses import pair_nce, unit_signs
from spike_perception.training.trainer import Batch
from spike_perception.training.vl2spike.manifold import MAX_LOGIT_SCALE, Basis, SharedManifold


class Projection(nn.Module):
    """Counts F to ``z = P N(F)``, N standardising each count; written down as ``P' F - o``."""

    def __init__(self, counts: int, dimension: int) -> None:
        """Start with orthogonal rows, which are near to keeping all distances."""
        super().__init__()
        self.norm = nn.BatchNorm1d(counts, affine=False)
        self.rows = nn.Linear(counts, dimension, bias=False)
        nn.init.orthogonal_(self.rows.weight)

    def forward(self, counts: Tensor) -> Tensor:
        """[B, d] of counts [B, C]."""
        return self.rows(self.norm(counts))  # type: ignore[no-any-return]

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """P' [d, C] and o [d], float32, as the bundle keeps them."""
        assert self.norm.running_mean is not None  # noqa: S101  (it tracks)
        assert self.norm.running_var is not None  # noqa: S101
        factor = torch.rsqrt(self.norm.running_var + self.norm.eps)
        rows = (self.rows.weight * factor).float()
        return rows, (rows.double() @ self.norm.running_mean.double()).float()


class PlaceObjective(nn.Module):
    """See ``trainer.Objective``."""

    def __init__(
        self,
        student: Student,
        dimension: int,
        config: PlaceLossConfig,
        basis: Basis | None = None,
        teacher_features: int = 0,
        grid: tuple[int, int] = (0, 0),
    ) -> None:
        """Make projection and losses.

        Args:
            student: the network.
            dimension: d, floats or bits of the descriptor.
            config: weights of the terms.
            basis: of the teacher's tokens; None trains without a teacher.
            teacher_features: channels of the teacher's image feature.
            grid: rows and columns of the student's tokens.
        """
        super().__init__()
        self.config = config
        self.student = student
        self.projection = Projection(student.feature_dim, dimension)
        start = torch.tensor(-math.log(config.temperature))
        self.log_scale = nn.Parameter(start.clone())
        self.log_scale_bits = nn.Parameter(start.clone())
        self.manifold: SharedManifold | None = None
        self.record: tuple[str, ...] = ()
        if basis is not None and config.distillation > 0.0:
            # The last block's hidden spikes: wider than those that are counted, which are kept few.
            self.record = student.block_layers[-1:]
            neuron = student.neurons()[self.record[0]]
            self._levels = neuron.levels
            with torch.no_grad():
                channels = _channels(student, self.record[0])
            identity = Basis(torch.zeros(len(basis.axes)), torch.eye(len(basis.axes)), 1.0)
            self.manifold = SharedManifold(
                identity, channels, teacher_features, grid, config.manifold
            )

    def forward(
        self, batch: Batch, progress: float, seed: int, detail: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch and its terms."""
        del progress, seed, detail
        views = batch["views"].contiguous(memory_format=torch.channels_last)
        trace = self.student.trace(views, record=self.record)
        with torch.autocast(views.device.type, enabled=False):
            z = self.projection(trace.feature.float())
            ignored = batch["ignored"]
            first, second = functional.normalize(z, dim=1).chunk(2)
            terms = {"pairs": pair_nce(first, second, ignored, _scale(self.log_scale))}
            total = terms["pairs"]
            if self.config.bits > 0.0:
                signs = unit_signs(z).chunk(2)
                scale = _scale(self.log_scale_bits)
                terms["bits"] = pair_nce(signs[0], signs[1], ignored, scale)
                total = total + self.config.bits * terms["bits"]
            if self.manifold is not None and len(batch["still"]):
                rates = trace.layers[self.record[0]].spikes.float().mean(0) / self._levels
                still = batch["still"]
                places = still % len(ignored)
                shares = self.config.manifold
                for name, term in self.manifold(
                    rates[still],
                    batch["teacher_tokens"][places].float(),
                    batch["teacher_features"][places].float(),
                ).items():
                    terms[f"manifold_{name}"] = term
                    weight = self.config.distillation * shares.weight * getattr(shares, name)
                    total = total + weight * term
        return total, {f"loss/{name}": term.detach() for name, term in terms.items()}


def _scale(logarithm: Tensor) -> Tensor:
    return logarithm.exp().clamp_max(MAX_LOGIT_SCALE)


def _channels(student: Student, label: str) -> int:
    """Width of a neuron layer on tokens, found by running the student once."""
    config = student.config
    shape = (2, 3, config.height, config.width)  # type: ignore[attr-defined]
    mode = student.training
    found = student.eval().trace(torch.zeros(shape), record=(label,)).layers[label].spikes
    student.train(mode)
    return int(found.shape[-1])
