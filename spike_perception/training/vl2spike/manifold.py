# SPDX-License-Identifier: Apache-2.0
"""SVS, first half: spike tokens on the manifold that the teacher's tokens span.

VL2Spike's abstract names a shared manifold of image features and spike tokens. What that is in
formulas (principal components, cosine, Gram matrices, InfoNCE) is our reading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from spike_perception.errors import InputError
from spike_perception.training.vl2spike.config import ManifoldConfig
from spike_perception.training.vl2spike.vectors import require_shape, target, unit

#: Upper limit of the learnable logit scale, as in CLIP.
MAX_LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class Basis:
    """The manifold: an affine subspace of the teacher's token space.

    Attributes:
        mean: mean token, float32 [C_T].
        axes: orthonormal rows in order of falling variance, float32 [d, C_T].
        explained: share of the variance that lies in the subspace, 0..1.
    """

    mean: Tensor
    axes: Tensor
    explained: float


class TokenStatistics:
    """Mean and covariance of teacher tokens, gathered batch by batch in float64."""

    def __init__(self, channels: int) -> None:
        """Start without tokens.

        Args:
            channels: C_T.
        """
        self.count = 0
        self._mean = torch.zeros(channels, dtype=torch.float64)
        self._scatter = torch.zeros(channels, channels, dtype=torch.float64)

    def add(self, tokens: Tensor) -> None:
        """Take in tokens [..., C_T]."""
        channels = self._mean.numel()
        require_shape("teacher tokens", tokens, *(None,) * (tokens.ndim - 1), channels)
        rows = tokens.detach().reshape(-1, channels).to("cpu", torch.float64)
        count = self.count + len(rows)
        mean = rows.mean(0)
        centred, gap = rows - mean, mean - self._mean
        # Pooled scatter: a plain sum of squares would lose digits where the mean is large.
        self._scatter += centred.T @ centred
        self._scatter += torch.outer(gap, gap) * (self.count * len(rows) / count)
        self._mean += gap * (len(rows) / count)
        self.count = count

    def basis(self, dimensions: int) -> Basis:
        """The first principal components of all tokens so far.

        Args:
            dimensions: d, at most C_T and less than the number of tokens; 128 to 256 for ViTs.

        Raises:
            InputError: ``wrong_dimensions``.
        """
        channels = self._mean.numel()
        largest = min(channels, self.count - 1)
        if not 1 <= dimensions <= largest:
            raise InputError(
                "wrong_dimensions",
                f"a manifold of {dimensions} dimensions was asked of {self.count} tokens with "
                f"{channels} channels; allowed are 1 to {largest}: add tokens or ask for fewer",
            )
        values, vectors = torch.linalg.eigh(self._scatter)
        axes = vectors.T.flip(0)[:dimensions]
        # An axis has no sign of its own; fixing it makes runs comparable.
        largest_at = axes.abs().argmax(1, keepdim=True)
        axes = axes * axes.gather(1, largest_at).sign()
        values = values.flip(0).clamp_min(0.0)
        explained = float(values[:dimensions].sum() / values.sum().clamp_min(1e-300))
        return Basis(self._mean.float(), axes.float().contiguous(), explained)


def area_average(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """Teacher tokens on the student's grid, every cell the mean over its area.

    Unlike adaptive pooling, cells of the old grid that straddle a border count by the part that
    lies inside, as for 14 x 14 to 8 x 8.

    Args:
        tokens: [B, H, W, C].
        rows: rows of the new grid.
        columns: columns of the new grid.

    Returns:
        [B, rows * columns, C], row by row.

    Raises:
        InputError: ``wrong_shape``.
    """
    require_shape("teacher tokens", tokens, None, None, None, None)
    if rows < 1 or columns < 1:
        raise InputError("wrong_shape", f"a grid of {rows} x {columns} tokens has no area")
    down = _overlaps(tokens.shape[1], rows).to(tokens)
    across = _overlaps(tokens.shape[2], columns).to(tokens)
    return torch.einsum("ih,jw,bhwc->bijc", down, across, tokens).flatten(1, 2)


def _overlaps(old: int, new: int) -> Tensor:
    """Share of each old cell in each new one, [new, old]; rows sum to 1."""
    # In units of 1 / (old * new) all borders are integers.
    new_edges, old_edges = torch.arange(new + 1) * old, torch.arange(old + 1) * new
    upper = torch.minimum(new_edges[1:, None], old_edges[None, 1:])
    lower = torch.maximum(new_edges[:-1, None], old_edges[None, :-1])
    return (upper - lower).clamp_min(0) / old


def token_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """L_tok = mean of 1 - cos over tokens (our reading).

    Args:
        student: manifold coordinates of the rate tokens, A r_n, [B, N, d].
        teacher: those of the teacher's tokens, B (z_n - mean), [B, N, d]; gets no gradient.

    Raises:
        InputError: ``wrong_shape``.
    """
    require_shape("student tokens", student, None, None, None)
    require_shape("teacher tokens", teacher, *student.shape)
    return 1.0 - (unit(student) * target(teacher)).sum(-1).mean()


def gram_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """L_rel = ||G(R) - G(Z)||_F^2 / N^2, averaged over the batch (our reading).

    G is the Gram matrix of the tokens' directions, its rows scaled to length 1. Both sides are
    manifold coordinates: rates are never negative, so their own Gram matrix could not follow one of
    centred tokens.

    Args:
        student: [B, N, d].
        teacher: [B, N, d']; gets no gradient.

    Raises:
        InputError: ``wrong_shape``.
    """
    require_shape("student tokens", student, None, None, None)
    require_shape("teacher tokens", teacher, *student.shape[:2], None)
    mine, other = unit(student), target(teacher)
    return functional.mse_loss(
        unit(mine @ mine.transpose(1, 2)), target(other @ other.transpose(1, 2))
    )


def symmetric_info_nce(student: Tensor, teacher: Tensor, scale: Tensor) -> Tensor:
    """L_glob: InfoNCE between the images of a batch, mean of both directions (our reading).

    Args:
        student: global features, [B, C].
        teacher: global features of the same images, [B, C]; get no gradient.
        scale: logit scale, a scalar.

    Returns:
        Cross-entropy; 0 for a single image, which has no negatives. Its minimum over directions
        orthogonal between images is near 0, else above.

    Raises:
        InputError: ``wrong_shape``.
    """
    require_shape("student features", student, None, None)
    require_shape("teacher features", teacher, *student.shape)
    logits = scale * unit(student) @ target(teacher).T
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))


class SharedManifold(nn.Module):
    """L_man = L_tok + 0.5 L_rel + L_glob (our reading), with the trained projections it needs.

    The basis is frozen: two free projections could agree on a constant. The projections serve
    training alone and are dropped with this module.
    """

    mean: Tensor
    axes: Tensor

    def __init__(
        self,
        basis: Basis,
        channels: int,
        teacher_features: int,
        grid: tuple[int, int],
        config: ManifoldConfig | None = None,
    ) -> None:
        """Make the projections.

        Args:
            basis: fitted on the teacher's tokens of the training set.
            channels: D, channels of the student's tokens.
            teacher_features: C_G, channels of the teacher's global image feature.
            grid: rows and columns of the student's tokens.
            config: shares of the terms.
        """
        super().__init__()
        self.config = config or ManifoldConfig()
        self.grid = grid
        self.register_buffer("mean", basis.mean)
        self.register_buffer("axes", basis.axes)
        self.token_projection = nn.Linear(channels, len(basis.axes), bias=False)
        self.image_projection = nn.Linear(channels, teacher_features, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(self.config.logit_scale)))

    @property
    def scale(self) -> Tensor:
        """Logit scale of L_glob, learnable, at most 100."""
        return self.log_scale.exp().clamp_max(MAX_LOGIT_SCALE)

    def coordinates(self, tokens: Tensor) -> Tensor:
        """Manifold coordinates [..., d] of teacher tokens [..., C_T], without gradient."""
        return (tokens.detach() - self.mean) @ self.axes.T

    def forward(self, rates: Tensor, tokens: Tensor, features: Tensor) -> dict[str, Tensor]:
        """The three terms, not yet weighted.

        Args:
            rates: rate tokens r_n, 0..1, [B, N, D], N = rows * columns.
            tokens: teacher's patch tokens, [B, H, W, C_T], class token left out.
            features: teacher's global image features, [B, C_G].

        Returns:
            ``token``, ``relation`` and ``image``, those whose share is above zero.

        Raises:
            InputError: ``wrong_shape``.
        """
        rows, columns = self.grid
        channels = self.token_projection.in_features
        require_shape("rate tokens", rates, None, rows * columns, channels)
        require_shape("teacher tokens", tokens, len(rates), None, None, self.mean.numel())
        require_shape("teacher features", features, len(rates), self.image_projection.out_features)
        terms = {}
        mine = self.token_projection(rates)
        other = self.coordinates(area_average(tokens.detach(), rows, columns))
        if self.config.token:
            terms["token"] = token_cosine(mine, other)
        if self.config.relation:
            terms["relation"] = gram_relation(mine, other)
        if self.config.image:
            mean = self.image_projection(rates.mean(1))
            terms["image"] = symmetric_info_nce(mean, features, self.scale)
        return terms
