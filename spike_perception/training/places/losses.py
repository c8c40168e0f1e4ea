# SPDX-License-Identifier: Apache-2.0
"""Losses that make descriptors of one place alike and of different places unlike."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from spike_perception.training.vl2spike.vectors import require_shape

#: Signs pass gradients where the value is within this, in standard deviations.
WINDOW = 1.5


def pair_nce(first: Tensor, second: Tensor, ignored: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE between two views of every place, mean of both directions.

    Every view is compared with the other view of its place, and with both views of all other
    places of the batch (NT-Xent; Chen et al. 2020, Eq. 1), less those that are too near.

    Args:
        first: unit descriptors, [B, d].
        second: of another view of the same places, [B, d].
        ignored: bool [B, B], True where two places are too near to be told apart.
        scale: one over the temperature, a scalar.

    Returns:
        A scalar.

    Raises:
        InputError: ``wrong_shape``.
    """
    require_shape("descriptors", first, None, None)
    require_shape("second descriptors", second, *first.shape)
    require_shape("ignored pairs", ignored, len(first), len(first))
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    across = (scale * first @ second.T).masked_fill(ignored & ~own, float("-inf"))
    hidden = ignored | own
    inside = [
        (scale * each @ each.T).masked_fill(hidden, float("-inf")) for each in (first, second)
    ]
    target = torch.arange(len(first), device=first.device)
    one = functional.cross_entropy(torch.cat([across, inside[0]], 1), target)
    other = functional.cross_entropy(torch.cat([across.T, inside[1]], 1), target)
    return 0.5 * (one + other)


def too_near(drive: Tensor, place: Tensor, apart: int) -> Tensor:
    """Pairs of a batch that are no negatives of one another, bool [B, B].

    Args:
        drive: which traverse, int64 [B]; negative for photos, which are places of their own.
        place: number of the place on it, or of the photo, int64 [B].
        apart: frames up to which places count as one.
    """
    same = drive[:, None] == drive[None]
    gap = (place[:, None] - place[None]).abs()
    near: Tensor = same & (gap <= torch.where(drive < 0, 0, apart)[:, None])
    return near


class _Signs(torch.autograd.Function):
    """-1 or 1, with the gradient of the identity within ``WINDOW``."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return torch.where(values > 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        inside: Tensor = gradients[0] * (values.abs() < WINDOW)
        return inside


def unit_signs(values: Tensor) -> Tensor:
    """Signs of values [B, d] as unit vectors, with a straight-through gradient.

    Their dot product is 1 - 2 x share of bits that differ, as maps compare bits.
    """
    found: Tensor = _Signs.apply(values)
    return found / math.sqrt(values.shape[-1])
