# SPDX-License-Identifier: Apache-2.0
"""Pre-activation transformer blocks with membrane shortcut: neurons first, then connections.

The stream between blocks is a membrane current, a sum of weighted spikes. It never meets a weight
itself: every connection sees spikes, so multiplications are left in the analogue layers alone.
"""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor, nn

from spike_perception.errors import InputError
from spike_perception.spiking.attention import SpikeProduct
from spike_perception.spiking.neurons import Neuron
from spike_perception.spiking.passes import Pass
from spike_perception.spiking.synapses import Synapses, convolution, linear
from spike_perception.students.student import SpikingConfig, make_neuron


def attention_shift(config: SpikingConfig, tokens: int, head_width: int) -> int:
    """Power of two that brings ``Q (K^T V)`` into the range of the neurons behind it.

    Our reading, since the published scales suit neither integers nor every size: at the start of
    training potentials have unit variance, so the mean rate is known, and with it the product's
    mean, ``rate**3 * tokens * head_width``. It is scaled to the middle of 0..D (lif: to 0.75).
    Negative where the product has to be enlarged.
    """
    if config.neuron == "ilif":
        ties = (level - 0.5 for level in range(1, config.levels + 1))
        rate = sum(0.5 * math.erfc(tie / math.sqrt(2.0)) for tie in ties)
        target = config.levels / 2.0
    else:
        rate, target = 0.04, 0.75
    return round(math.log2(rate**3 * tokens * head_width / target))


def weaken(synapses: Synapses, gain: float) -> None:
    """Start a shortcut's body with that gain.

    With gain 1 each body would add unit variance to the stream, and after a few blocks most
    potentials would lie outside [0, D], where the straight-through gradient is 0.
    """
    if synapses.norm is not None:
        nn.init.constant_(synapses.norm.weight, gain)


class SpikeAttention(nn.Module):
    """Multi-head attention on spikes: SN, (Q, K, V), SN, product, SN, projection."""

    def __init__(
        self, config: SpikingConfig, width: int, heads: int, shift: int, map_spikes: bool = False
    ) -> None:
        """Make the layer.

        Args:
            config: neurons.
            width: channels.
            heads: attention heads, a divisor of ``width``.
            shift: the product is scaled by ``2**-shift``.
            map_spikes: True for the ablation with a neuron layer on the attention map.
        """
        super().__init__()
        self.heads = heads
        self.neuron = make_neuron(config, width)
        self.qkv = linear(width, 3 * width)
        self.qkv_neuron = make_neuron(config, 3 * width)
        self.product = SpikeProduct(shift, _map_neuron(config) if map_spikes else None)
        self.out_neuron = make_neuron(config, width, threshold=0.5)
        self.out = linear(width, width)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Currents [M, N, C] from the membrane stream [M, N, C]."""
        spikes = self.qkv_neuron(self.qkv(self.neuron(x, run)), run)
        q, k, v = spikes.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = self.product(q, k, v, run).transpose(1, 2).flatten(2)
        return self.out(self.out_neuron(y, run))  # type: ignore[no-any-return]


def _map_neuron(config: SpikingConfig) -> Neuron:
    # The map has no channels of its own, so its initial potential is not learnable.
    return make_neuron(replace(config, learn_initial=False), 1)


class SpikeMLP(nn.Module):
    """SN, widen, SN, narrow."""

    def __init__(self, config: SpikingConfig, width: int, ratio: int) -> None:
        """Make the layer with ``ratio * width`` hidden channels."""
        super().__init__()
        self.neuron = make_neuron(config, width)
        self.widen = linear(width, ratio * width)
        self.hidden_neuron = make_neuron(config, ratio * width)
        self.narrow = linear(ratio * width, width)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Currents [M, N, C] from the membrane stream [M, N, C]."""
        hidden = self.hidden_neuron(self.widen(self.neuron(x, run)), run)
        return self.narrow(hidden)  # type: ignore[no-any-return]


class SpikeConv(nn.Module):
    """SN, convolution: one stage of a spiking stem, or the body of a membrane shortcut."""

    def __init__(
        self, config: SpikingConfig, inputs: int, outputs: int, stride: int = 1, groups: int = 1
    ) -> None:
        """Make the layer with a 3 x 3 kernel."""
        super().__init__()
        self.neuron = make_neuron(config, inputs, axis=1)
        self.conv = convolution(inputs, outputs, 3, stride, groups=groups)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Currents [M, C', H', W'] from the membrane stream [M, C, H, W]."""
        return self.conv(self.neuron(x, run))  # type: ignore[no-any-return]


class SpikeBlock(nn.Module):
    """``x += attention(x); x += mlp(x)`` on the membrane stream."""

    def __init__(
        self,
        config: SpikingConfig,
        width: int,
        heads: int,
        ratio: int,
        shift: int,
        gain: float,
        map_spikes: bool = False,
    ) -> None:
        """Make the block; ``gain`` is what both shortcuts start with, the rest as in its parts."""
        super().__init__()
        self.attention = SpikeAttention(config, width, heads, shift, map_spikes)
        self.mlp = SpikeMLP(config, width, ratio)
        weaken(self.attention.out, gain)
        weaken(self.mlp.narrow, gain)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Membrane stream [M, N, C] after the block."""
        x = x + self.attention(x, run)
        return x + self.mlp(x, run)  # type: ignore[no-any-return]


def spike_blocks(
    config: SpikingConfig,
    *,
    blocks: int,
    width: int,
    heads: int,
    ratio: int,
    tokens: int,
    map_spikes: bool,
) -> nn.ModuleList:
    """A stack of blocks whose shortcuts together start with unit gain."""
    if width % heads:
        raise InputError("invalid_setting", f"channels {width} is not a multiple of heads {heads}")
    shift = attention_shift(config, tokens, width // heads)
    gain = (2.0 * blocks) ** -0.5
    return nn.ModuleList(
        SpikeBlock(config, width, heads, ratio, shift, gain, map_spikes) for _ in range(blocks)
    )
