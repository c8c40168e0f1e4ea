# SPDX-License-Identifier: Apache-2.0
"""Spikformer as published (Zhou et al., ICLR 2023), CIFAR variant, for comparison.

Post-activation: every connection is followed by batch normalisation and neurons, and shortcuts
add spikes to spikes (SEW-ADD), so the stream holds small integers and most connections do not see
binary input. The LayerNorms that the public code declares but never calls are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.spiking.attention import SpikeProduct
from spike_perception.spiking.folding import levels
from spike_perception.spiking.passes import Pass
from spike_perception.spiking.synapses import convolution, linear
from spike_perception.students.student import SpikingConfig, Student, make_neuron


@dataclass(frozen=True)
class PublishedSpikformerConfig(SpikingConfig):
    """Sizes of a published Spikformer."""

    neuron: str = setting("lif", "neuron model", choices=("ilif", "lif"), fixed=True)
    steps: int = setting(4, "time steps T", minimum=1, maximum=64, fixed=True)
    size: int = setting(32, "image height and width (pixels)", minimum=8, maximum=512)
    channels: int = setting(256, "channels of the tokens", minimum=8, maximum=2048, fixed=True)
    blocks: int = setting(4, "transformer blocks", minimum=1, maximum=48, fixed=True)
    heads: int = setting(8, "attention heads", minimum=1, maximum=64, fixed=True)
    classes: int = setting(
        0, "outputs of a linear classifier kept with the network; 0 for none", minimum=0, fixed=True
    )


class PatchSplitting(nn.Module):
    """SPS: four convolutions, two maximum poolings, and the relative position convolution."""

    def __init__(self, config: PublishedSpikformerConfig) -> None:
        """Make the stem."""
        super().__init__()
        d = config.channels
        widths = (3, d // 8, d // 4, d // 2, d, d)
        self.convs = nn.ModuleList(
            convolution(widths[i], widths[i + 1], analogue=i == 0) for i in range(5)
        )
        self.neurons = nn.ModuleList(make_neuron(config, w, axis=1) for w in widths[1:])

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Integers 0..2D, [M, C, H/4, W/4], of images [M, 3, H, W]."""
        for index, (conv, neuron) in enumerate(zip(self.convs[:4], self.neurons[:4], strict=True)):
            x = neuron(conv(x), run)
            if index >= 2:
                x = functional.max_pool2d(x, 3, 2, 1)
        return x + self.neurons[4](self.convs[4](x), run)  # type: ignore[no-any-return]


class SpikingSelfAttention(nn.Module):
    """SSA: Q, K, V spike; product scaled by 1/8; neurons of threshold 0.5; projection; neurons."""

    def __init__(self, config: PublishedSpikformerConfig) -> None:
        """Make the layer."""
        super().__init__()
        d = config.channels
        self.heads = config.heads
        self.q = linear(d, d, bias=True)
        self.k = linear(d, d, bias=True)
        self.v = linear(d, d, bias=True)
        self.q_neuron = make_neuron(config, d)
        self.k_neuron = make_neuron(config, d)
        self.v_neuron = make_neuron(config, d)
        self.product = SpikeProduct(3)
        self.product_neuron = make_neuron(config, d, threshold=0.5)
        self.out = linear(d, d, bias=True)
        self.out_neuron = make_neuron(config, d)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Spikes [M, N, C] of the stream [M, N, C]."""
        q, k, v = (
            neuron(synapses(x), run).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for synapses, neuron in (
                (self.q, self.q_neuron),
                (self.k, self.k_neuron),
                (self.v, self.v_neuron),
            )
        )
        y = self.product(q, k, v, run).transpose(1, 2).flatten(2)
        return self.out_neuron(self.out(self.product_neuron(y, run)), run)  # type: ignore[no-any-return]


class PublishedBlock(nn.Module):
    """``x = x + SSA(x); x = x + MLP(x)``, spikes added to spikes."""

    def __init__(self, config: PublishedSpikformerConfig) -> None:
        """Make the block."""
        super().__init__()
        d = config.channels
        self.attention = SpikingSelfAttention(config)
        self.widen = linear(d, 4 * d, bias=True)
        self.hidden_neuron = make_neuron(config, 4 * d)
        self.narrow = linear(4 * d, d, bias=True)
        self.neuron = make_neuron(config, d)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Stream [M, N, C] after the block."""
        x = x + self.attention(x, run)
        hidden = self.hidden_neuron(self.widen(x), run)
        return x + self.neuron(self.narrow(hidden), run)  # type: ignore[no-any-return]


class PublishedSpikformer(Student):
    """Images to spike counts, as published.

    Input: float [B, 3, H, W], RGB normalised per channel; H and W multiples of 4. Output: the
    spike stream behind the last block, summed over the tokens, [B, C] with C the token channels.
    """

    config_type = PublishedSpikformerConfig
    presets: ClassVar = {
        "4-256": {},
        "2-384": {"channels": 384, "blocks": 2, "heads": 12},
        "4-384": {"channels": 384, "heads": 12},
    }
    config: PublishedSpikformerConfig
    sample_axes = 3

    def __init__(self, config: PublishedSpikformerConfig) -> None:
        """Build the network with random weights."""
        super().__init__(config)
        if config.size % 4 or config.channels % config.heads or config.channels % 8:
            raise InputError(
                "invalid_setting",
                f"size {config.size} must be a multiple of 4, channels {config.channels} one of "
                f"8 and of heads {config.heads}",
            )
        self.feature_dim = config.channels
        self.stem = PatchSplitting(config)
        self.blocks = nn.ModuleList(PublishedBlock(config) for _ in range(config.blocks))
        self.head = nn.Linear(config.channels, config.classes) if config.classes else None
        self.block_layers = tuple(f"blocks.{i}.neuron" for i in range(config.blocks))
        self.tokens_from = self.block_layers[-1]
        self.finish()

    @property
    def largest_input(self) -> int:
        """Largest integer of the stream: the stem adds two spikes, every block two more."""
        return (2 + 2 * self.config.blocks) * levels(self)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens at the configured image size."""
        return self.config.size // 4, self.config.size // 4

    def encode(self, x: Tensor, run: Pass) -> Tensor:
        """Spike counts [T*B, C] of images [T*B, 3, H, W]."""
        tokens = self.stem(x, run).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, run)
        return self.counter(torch.sum(tokens, 1))  # type: ignore[no-any-return]

    def classify(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of the kept classifier on the mean over tokens and steps."""
        if self.head is None:
            raise InputError("no_classifier", "this network was built with classes = 0")
        counts = self.trace(images).counts.mean(0)
        rows, columns = images.shape[-2] // 4, images.shape[-1] // 4
        return self.head(counts / (rows * columns))  # type: ignore[no-any-return]
