# SPDX-License-Identifier: Apache-2.0
"""Spike-driven PointFormer (SVL, arXiv 2505.17674): the transformer student for points and events.

Settled on purpose against the released code:

* attention is associative, K^T V first, as the paper's Eq. 16 needs (``map_spikes`` is the code's
  form), with a power-of-two scale chosen from the number of tokens;
* neurons stand before both poolings of the patch encoder and before the output, so that every
  connection but ``patch_1`` and ``position_1`` sees spikes and the output is a spike count;
* no projection to the teacher's width: it is folded into the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.spiking.passes import Pass
from spike_perception.spiking.synapses import linear
from spike_perception.students.blocks import spike_blocks, weaken
from spike_perception.students.grouping import group_points
from spike_perception.students.student import SpikingConfig, Student, make_neuron


@dataclass(frozen=True)
class PointFormerConfig(SpikingConfig):
    """Sizes of a PointFormer."""

    point_features: int = setting(
        0, "values per point beside x, y, z (3 colours, 1 polarity)", minimum=0, maximum=64
    )
    groups: int = setting(64, "neighbourhoods G, one token each", minimum=1, maximum=4096)
    neighbours: int = setting(32, "points k in a neighbourhood", minimum=1, maximum=512)
    patch_channels: int = setting(
        32,
        "first width of the patch encoder; it widens to 2, 4 and 2 times this",
        minimum=4,
        maximum=512,
        fixed=True,
    )
    channels: int = setting(384, "channels of the tokens", minimum=8, maximum=2048, fixed=True)
    blocks: int = setting(12, "transformer blocks", minimum=1, maximum=48, fixed=True)
    heads: int = setting(6, "attention heads", minimum=1, maximum=64, fixed=True)
    mlp_ratio: int = setting(4, "hidden width of the MLP", minimum=1, maximum=8, fixed=True)
    map_spikes: bool = setting(
        False, "neurons on the attention map instead of the associative form", fixed=True
    )


class SpikeDrivenPointFormer(Student):
    """Point clouds, or windows of events, to spike counts.

    Input: float [B, N, 3 + F], coordinates centred and scaled to the unit sphere (events: x, y and
    z = (t - t_min) / (t_max - t_min), polarity as feature); [B, T, N, 3 + F] for one window per
    step. ``prepare`` groups them, outside the exported graph, to [B, G, k, 3 + F + 3].
    Output: spikes of the class token beside the maximum over the patch tokens, [B, 2 * channels],
    counted over the steps. The tokens of a trace start with the class token. Analogue layers:
    ``patch_1`` and ``position_1``, on coordinates.
    """

    config_type = PointFormerConfig
    presets: ClassVar = {
        "s": {"channels": 256, "blocks": 6, "heads": 4},
        "m": {"blocks": 6, "patch_channels": 64},
        "l": {"patch_channels": 128, "groups": 128},
    }
    config: PointFormerConfig
    sample_axes = 3

    def __init__(self, config: PointFormerConfig) -> None:
        """Build the network with random weights."""
        super().__init__(config)
        c = config
        p, d = c.patch_channels, c.channels
        self.feature_dim = 2 * d
        self.patch_1 = linear(3 + c.point_features, p, analogue=True)
        self.patch_neuron_1 = make_neuron(c, p)
        self.patch_2 = linear(p, 2 * p)
        self.patch_neuron_2 = make_neuron(c, 2 * p)
        self.patch_3 = linear(4 * p, 4 * p)
        self.patch_neuron_3 = make_neuron(c, 4 * p)
        self.patch_4 = linear(4 * p, 2 * p)
        self.patch_neuron_4 = make_neuron(c, 2 * p)
        self.patch_5 = linear(2 * p, d)
        self.position_1 = linear(3, 128, analogue=True)
        self.position_neuron = make_neuron(c, 128)
        self.position_2 = linear(128, d)
        self.class_token = nn.Parameter(torch.randn(1, 1, d) * 0.02)
        self.class_position = nn.Parameter(torch.randn(1, 1, d) * 0.02)
        self.blocks = spike_blocks(
            c,
            blocks=c.blocks,
            width=d,
            heads=c.heads,
            ratio=c.mlp_ratio,
            tokens=c.groups + 1,
            map_spikes=c.map_spikes,
        )
        # The position enters every block and would add up.
        weaken(self.position_2, 1.0 / c.blocks)
        self.neuron = make_neuron(c, d)
        self.tokens_from = "neuron"
        self.block_layers = tuple(f"blocks.{i}.mlp.hidden_neuron" for i in range(c.blocks))
        self.finish()

    @property
    def raw_axes(self) -> int:
        """A cloud has two axes: points and their values."""
        return 2

    def prepare(self, samples: Tensor) -> Tensor:
        """Neighbourhoods [B, G, k, 3 + F + 3] of clouds [B, N, 3 + F]."""
        width = 3 + self.config.point_features
        if samples.shape[-1] != width:
            raise InputError(
                "wrong_input",
                f"points with {samples.shape[-1]} values; this network takes {width}: x, y, z and "
                f"{self.config.point_features} features",
            )
        return group_points(samples, self.config.groups, self.config.neighbours)

    def encode(self, x: Tensor, run: Pass) -> Tensor:
        """Spike counts [T*B, C] of neighbourhoods [T*B, G, k, 3 + F + 3]."""
        local, centres = x[..., :-3], x[:, :, 0, -3:]
        points = self.patch_neuron_1(self.patch_1(local), run)
        points = self.patch_neuron_2(self.patch_2(points), run)
        whole = points.amax(-2, keepdim=True).expand_as(points)
        points = self.patch_neuron_3(self.patch_3(torch.cat([whole, points], -1)), run)
        points = self.patch_neuron_4(self.patch_4(points), run)
        tokens = self.patch_5(points.amax(-2))
        where = self.position_2(self.position_neuron(self.position_1(centres), run))
        batch = tokens.shape[0]
        stream = torch.cat([self.class_token.expand(batch, -1, -1), tokens], 1)
        where = torch.cat([self.class_position.expand(batch, -1, -1), where], 1)
        for block in self.blocks:
            stream = block(stream + where, run)
        spikes = self.neuron(stream, run)
        return self.counter(torch.cat([spikes[:, 0], spikes[:, 1:].amax(1)], -1))  # type: ignore[no-any-return]
