# SPDX-License-Identifier: Apache-2.0
"""Products of spike tensors: the only place where activations meet activations."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from spike_perception.errors import InputError
from spike_perception.spiking.neurons import Neuron
from spike_perception.spiking.passes import Pass
from spike_perception.spiking.synapses import EXACT_FLOAT32


class SpikeMatmul(nn.Module):
    """Matrix product whose left factor, at least, holds spikes: additions only.

    Attributes:
        counts: True if the right factor holds integer counts instead of spikes.
        substeps: 1 in the integer form; D after unfolding, when spike factors are [D*M, ...]
            binary: the product is the sum over all pairs (or, with counts, over D) of passes.
    """

    def __init__(self, counts: bool = False) -> None:
        """Make the product."""
        super().__init__()
        self.counts = counts
        self.substeps = 1

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """``left @ right``, [M, ..., n, p], of [M, ..., n, m] and [M, ..., m, p]."""
        device = left.device.type
        # bfloat16 would round counts above 256.
        exact: torch.autocast | nullcontext[None] = nullcontext()
        if torch.is_autocast_enabled(device):
            exact = torch.autocast(device, enabled=False)
            left, right = left.float(), right.float()
        with exact:
            if self.substeps == 1:
                return torch.matmul(left, right)
            rights = [right] if self.counts else list(right.unflatten(0, (self.substeps, -1)))
            total = None
            for a in left.unflatten(0, (self.substeps, -1)):
                for b in rights:
                    product = torch.matmul(a, b)
                    total = product if total is None else total + product
            assert total is not None  # noqa: S101  (D is at least 1)
            return total


class SpikeProduct(nn.Module):
    """Attention without softmax on spikes, ``2**-shift * Q (K^T V)`` by default.

    The associative form (SVL Eq. 16) computes K^T V first: linear in the number of tokens, and
    additions only, since K, V and Q hold spikes: K^T V counts coincidences, and every spike of Q
    adds one row of counts. With a neuron layer for the map it is the form of the released SVL
    code instead, ``SN(2**-shift * Q K^T) V``, kept for ablation: not associative, quadratic.

    Unfolded, with Q, K, V [D*M, ...] binary, it is the sum over all pairs (dk, dv), and then over
    all dq, of binary passes.
    """

    def __init__(self, shift: int, map_neuron: Neuron | None = None) -> None:
        """Make the product.

        Args:
            shift: the scale is ``2**-shift``, a shift in hardware.
            map_neuron: neurons on the attention map, or None for the associative form.
        """
        super().__init__()
        self.scale = 2.0**-shift
        self.map_neuron = map_neuron
        self.first = SpikeMatmul()
        self.second = SpikeMatmul(counts=map_neuron is None)
        self._levels = 0

    def quantise(self, levels: int) -> None:
        """From now on refuse inputs whose counts could exceed 2**24, where float32 is not exact.

        The bound depends on the number of tokens, so it is checked in every call.

        Args:
            levels: D, the largest integer in Q, K, V and the map.
        """
        self._levels = levels

    def _check(self, tokens: int, width: int) -> None:
        if self.map_neuron is None:
            largest = tokens * width * self._levels**3
        else:
            largest = max(tokens, width) * self._levels**2
        if largest >= EXACT_FLOAT32:
            raise InputError(
                "not_quantisable",
                f"attention over {tokens} tokens of {width} channels a head and up to "
                f"{self._levels} spikes can count beyond 2**24, where float32 is not exact; use "
                "fewer tokens, narrower heads or float weights (precision f32)",
            )

    def forward(self, q: Tensor, k: Tensor, v: Tensor, run: Pass) -> Tensor:
        """Currents of the attention's output.

        Args:
            q: queries [M, heads, N, width] (or [D*M, ...] binary).
            k: keys, same shape.
            v: values, same shape.
            run: the pass.

        Returns:
            [M, heads, N, width].

        Raises:
            InputError: ``not_quantisable``, see :meth:`quantise`.
        """
        if self._levels:
            self._check(q.shape[-2], q.shape[-1])
        if self.map_neuron is not None:
            current = self.first(q, k.transpose(-1, -2)) * self.scale
            return self.second(self.map_neuron(current, run), v)  # type: ignore[no-any-return]
        return self.second(q, self.first(k.transpose(-1, -2), v)) * self.scale  # type: ignore[no-any-return]


class SpikeCounter(nn.Module):
    """Hands spike counts out of the network: the identity, or the sum over D sub-steps."""

    def __init__(self) -> None:
        super().__init__()
        self.substeps = 1

    def forward(self, spikes: Tensor) -> Tensor:
        """Counts [M, ...] of spikes [M, ...] or of binary sub-steps [D*M, ...]."""
        if self.substeps == 1:
            return spikes
        return spikes.unflatten(0, (self.substeps, -1)).sum(0)  # type: ignore[no-any-return]
