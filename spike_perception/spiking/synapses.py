# SPDX-License-Identifier: Apache-2.0
"""Weighted connections between neuron layers, with their batch normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Integers up to this one are exact in float32, and so are sums that stay below it in any order.
EXACT_FLOAT32 = 1 << 24


class Synapses(nn.Module):
    """A linear or convolutional layer and the batch normalisation behind it.

    Attributes:
        layer: the weights; ``nn.Linear`` on the last axis or ``nn.Conv2d``.
        norm: batch normalisation over the output channels while training; None once folded.
        analogue: True if the input is not spikes but a sensor's values. Such a layer multiplies.
        substeps: 1 in the integer form; D after unfolding: the input then is [D*M, ...] binary,
            the output [M, ...] the sum over the sub-steps, with the bias added once.
        scale: per output channel factor of integer weights, or None for float weights.
    """

    scale: Tensor | None

    def __init__(
        self, layer: nn.Linear | nn.Conv2d, norm: bool = True, analogue: bool = False
    ) -> None:
        """Make the layer.

        Args:
            layer: the weights.
            norm: True for batch normalisation behind it.
            analogue: True if it sees a sensor's values.
        """
        super().__init__()
        self.layer = layer
        self.analogue = analogue
        self.substeps = 1
        self.norm: nn.BatchNorm1d | nn.BatchNorm2d | None = None
        if norm:
            channels = layer.weight.shape[0]
            convolution = isinstance(layer, nn.Conv2d)
            self.norm = nn.BatchNorm2d(channels) if convolution else nn.BatchNorm1d(channels)
        self.register_buffer("scale", None)

    def forward(self, x: Tensor) -> Tensor:
        """Currents [M, ...] caused by spikes [M, ...], or by binary sub-steps [D*M, ...]."""
        if self.substeps == 1 and self.scale is None:
            return self._normalise(self.layer(x))
        y = self._accumulate(x)
        if self.substeps > 1:
            y = y.unflatten(0, (self.substeps, -1)).sum(0)
        if self.scale is not None:
            y = y * self._per_channel(self.scale)
        if self.layer.bias is not None:
            y = y + self._per_channel(self.layer.bias)
        return self._normalise(y)

    def _accumulate(self, x: Tensor) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return functional.linear(x, self.layer.weight)
        conv = self.layer
        stride, padding, dilation = (
            _pair(conv.stride),
            _pair(conv.padding),  # type: ignore[arg-type]
            _pair(conv.dilation),
        )
        return functional.conv2d(x, conv.weight, None, stride, padding, dilation, conv.groups)

    def _per_channel(self, values: Tensor) -> Tensor:
        return values if isinstance(self.layer, nn.Linear) else values.reshape(1, -1, 1, 1)

    def _normalise(self, y: Tensor) -> Tensor:
        if self.norm is None:
            return y
        if isinstance(self.norm, nn.BatchNorm1d) and y.ndim > 2:
            return self.norm(y.flatten(0, -2)).reshape(y.shape)  # type: ignore[no-any-return]
        return self.norm(y)  # type: ignore[no-any-return]

    def operations(self, x: Tensor) -> int:
        """Products that a dense implementation makes for ONE item of the first axis of ``x``.

        Args:
            x: the layer's input, [M, ...].
        """
        weight = self.layer.weight
        if isinstance(self.layer, nn.Linear):
            positions = x[0].numel() // x.shape[-1]
        else:
            positions = 1
            for size, kernel, stride, padding in zip(
                x.shape[-2:],
                weight.shape[-2:],
                _pair(self.layer.stride),
                _pair(self.layer.padding),  # type: ignore[arg-type]
                strict=True,
            ):
                positions *= (size + 2 * padding - kernel) // stride + 1
        return positions * weight.numel()

    @torch.no_grad()
    def fold(self) -> None:
        """Move the batch normalisation, as it stands in evaluation, into weights and bias."""
        norm = self.norm
        if norm is None:
            return
        if norm.running_mean is None or norm.running_var is None:
            raise TypeError("batch normalisation without running statistics cannot be folded")
        factor = torch.rsqrt(norm.running_var + norm.eps)
        shift = -norm.running_mean
        if norm.affine:
            factor = factor * norm.weight
        old = self.layer.bias
        bias = factor * (shift if old is None else shift + old)
        if norm.affine:
            bias = bias + norm.bias
        self.layer.weight.mul_(factor.reshape(-1, *[1] * (self.layer.weight.ndim - 1)))
        self.layer.bias = nn.Parameter(bias)
        self.norm = None

    @torch.no_grad()
    def quantise(self, levels: int) -> None:
        """Replace the folded weights by int8 values (-127..127) and one scale per output channel.

        The values are kept as floats that hold integers, so that every engine runs them; all
        sums stay below 2**24 and are therefore exact in float32, in any order, as in int32 (but
        not where an engine convolves by Winograd transforms, which use fractions).

        Args:
            levels: D, the largest input integer, for the check of that bound.
        """
        if self.norm is not None:
            raise ValueError("fold the batch normalisation before quantising the weights")
        weight = self.layer.weight
        rows = weight.flatten(1)
        if rows.shape[1] * 127 * levels >= EXACT_FLOAT32:
            raise ValueError(
                f"{rows.shape[1]} inputs of up to {levels} at int8 weights can exceed 2**24, "
                "beyond which float32 sums are not exact"
            )
        peak = rows.abs().amax(1)
        scale = torch.where(peak > 0, peak, torch.ones_like(peak)) / 127.0
        weight.copy_(torch.round(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))))
        self.scale = scale

    def integer_weight(self) -> Tensor:
        """The int8 weights after :meth:`quantise`."""
        if self.scale is None:
            raise ValueError("these weights are not quantised")
        return self.layer.weight.detach().to(torch.int8)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def linear(
    inputs: int, outputs: int, *, bias: bool = False, norm: bool = True, analogue: bool = False
) -> Synapses:
    """Dense connections on the last axis; a bias is superfluous before batch normalisation."""
    return Synapses(nn.Linear(inputs, outputs, bias=bias), norm, analogue)


def convolution(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    groups: int = 1,
    analogue: bool = False,
) -> Synapses:
    """Convolution on [M, C, H, W], zero-padded by half the kernel, with batch normalisation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return Synapses(layer, True, analogue)
