# SPDX-License-Identifier: Apache-2.0
"""Spike functions: exact in the forward pass, with a surrogate gradient in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SpikeFunction = Callable[[Tensor], Tensor]


class _Heaviside(torch.autograd.Function):
    """1 where the input is at least 0, else 0; the slope is one of three shapes of width alpha."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, shape: str, alpha: float) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.shape, ctx.alpha = shape, alpha
        return (distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (distance,) = ctx.saved_tensors
        return gradients[0] * _SLOPES[ctx.shape](distance, ctx.alpha), None, None


def _sigmoid_slope(distance: Tensor, alpha: float) -> Tensor:
    sigmoid = torch.sigmoid(alpha * distance)
    return alpha * sigmoid * (1.0 - sigmoid)


def _atan_slope(distance: Tensor, alpha: float) -> Tensor:
    return alpha / 2.0 / (1.0 + (math.pi / 2.0 * alpha * distance) ** 2)


def _rectangle_slope(distance: Tensor, alpha: float) -> Tensor:
    return (distance.abs() * alpha <= 0.5).to(distance.dtype) * alpha


_SLOPES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "sigmoid": _sigmoid_slope,
    "atan": _atan_slope,
    "rectangle": _rectangle_slope,
}
#: Width parameter at which each shape peaks at 1, Spikformer's choice for the sigmoid.
_UNIT_PEAK = {"sigmoid": 4.0, "atan": 2.0, "rectangle": 1.0}
SURROGATES = tuple(_SLOPES)


def heaviside(distance: Tensor, shape: str = "sigmoid", alpha: float | None = None) -> Tensor:
    """Binary spikes: 1 where ``distance`` (potential minus threshold) is at least 0.

    Args:
        distance: any shape, floating.
        shape: surrogate slope, one of ``SURROGATES``. ``sigmoid`` is
            ``alpha * sig(alpha d) * (1 - sig(alpha d))``.
        alpha: width parameter; None takes the one whose slope peaks at 1 (sigmoid: 4).

    Returns:
        Tensor of 0 and 1 in the dtype of ``distance``.
    """
    if not (torch.is_grad_enabled() and distance.requires_grad):
        return (distance >= 0).to(distance.dtype)
    width = _UNIT_PEAK[shape] if alpha is None else alpha
    return _Heaviside.apply(distance, shape, width)  # type: ignore[no-any-return]


class _ClippedRound(torch.autograd.Function):
    """Integer spikes with the straight-through gradient: 1 inside [0, levels], else 0."""

    @staticmethod
    def forward(ctx: Any, potential: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(potential)
        ctx.levels = levels
        return _round_half_up(potential, levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (potential,) = ctx.saved_tensors
        # One pass instead of five. It is 0 at its own bounds, so these lie just outside [0, D].
        low, high = -torch.finfo(torch.float32).tiny, ctx.levels * (1.0 + 2.0**-22)
        return torch.ops.aten.hardtanh_backward(gradients[0], potential, low, high), None


def _round_half_up(potential: Tensor, levels: int) -> Tensor:
    # Same value as floor(clip(x, 0, D) + 0.5), since the bounds are integers.
    return (potential + 0.5).floor_().clamp_(0.0, float(levels))


def clipped_round(potential: Tensor, levels: int) -> Tensor:
    """Integer spikes ``floor(clip(potential, 0, D) + 0.5)``: ties are rounded up, everywhere.

    Round half up is SVL's choice (``torch.round`` takes halves to the even integer); it is what an
    integrate-and-fire neuron pre-charged with one half emits, so unfolding is exact.

    Args:
        potential: any shape, floating.
        levels: D, the largest integer emitted.

    Returns:
        Integers 0..D in the dtype of ``potential``; gradient 1 where 0 <= potential <= D, else 0.
    """
    if not (torch.is_grad_enabled() and potential.requires_grad):
        return _round_half_up(potential, levels)
    return _ClippedRound.apply(potential, levels)  # type: ignore[no-any-return]
