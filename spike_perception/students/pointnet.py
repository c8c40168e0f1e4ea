# SPDX-License-Identifier: Apache-2.0
"""Spike PointNet: the smallest student for points, no attention and no grouping.

The published network (3.57 M parameters with SVL) gives no layer list that we could read, so the
widths are our reading; there are no input transforms, because a product with a transform computed
from the input is no spike operation. Two rounds of shared layers, each with a maximum over the
points, then dense layers with membrane shortcut.
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
from spike_perception.students.blocks import weaken
from spike_perception.students.student import SpikingConfig, Student, make_neuron


@dataclass(frozen=True)
class SpikePointNetConfig(SpikingConfig):
    """Sizes of a Spike PointNet."""

    point_features: int = setting(
        0, "values per point beside x, y, z (3 colours, 1 polarity)", minimum=0, maximum=64
    )
    local_channels: int = setting(
        144, "channels per point in the first round", minimum=4, maximum=1024, fixed=True
    )
    global_channels: int = setting(
        1024, "channels after the second maximum", minimum=8, maximum=4096, fixed=True
    )
    hidden_layers: int = setting(
        2,
        "dense layers behind it, all but the first with shortcut",
        minimum=1,
        maximum=16,
        fixed=True,
    )
    features: int = setting(1024, "output channels C", minimum=8, maximum=4096, fixed=True)


class SharedLayer(nn.Module):
    """Connections, then neurons."""

    def __init__(
        self, config: SpikingConfig, inputs: int, outputs: int, analogue: bool = False
    ) -> None:
        """Make the layer."""
        super().__init__()
        self.synapses = linear(inputs, outputs, analogue=analogue)
        self.neuron = make_neuron(config, outputs)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Spikes [M, ..., outputs] of [M, ..., inputs]."""
        return self.neuron(self.synapses(x), run)  # type: ignore[no-any-return]


class ShortcutLayer(nn.Module):
    """SN, connections: the body of a membrane shortcut."""

    def __init__(self, config: SpikingConfig, channels: int) -> None:
        """Make the layer."""
        super().__init__()
        self.neuron = make_neuron(config, channels)
        self.synapses = linear(channels, channels)
        weaken(self.synapses, 0.5)

    def forward(self, x: Tensor, run: Pass) -> Tensor:
        """Currents [M, C] from the membrane stream [M, C]."""
        return self.synapses(self.neuron(x, run))  # type: ignore[no-any-return]


class SpikePointNet(Student):
    """Point clouds, or windows of events, to spike counts.

    Input: float [B, N, 3 + F] as for ``SpikeDrivenPointFormer``; [B, T, N, 3 + F] for one window
    per step; the number of points is free. Output: spikes of the last layer, [B, C], counted over
    the steps. The only analogue layer is ``first.synapses``, on the coordinates.
    """

    config_type = SpikePointNetConfig
    presets: ClassVar = {
        "s": {"local_channels": 64, "global_channels": 512, "hidden_layers": 1},
        "m": {},
        "l": {"local_channels": 192, "global_channels": 1536},
    }
    config: SpikePointNetConfig
    sample_axes = 2

    def __init__(self, config: SpikePointNetConfig) -> None:
        """Build the network with random weights."""
        super().__init__(config)
        c = config
        d = c.local_channels
        self.feature_dim = c.features
        self.first = SharedLayer(c, 3 + c.point_features, d // 2, analogue=True)
        self.second = SharedLayer(c, d // 2, d)
        self.third = SharedLayer(c, 2 * d, 2 * d)
        self.fourth = SharedLayer(c, 2 * d, c.global_channels)
        self.enter = linear(c.global_channels, c.global_channels)
        self.hidden = nn.ModuleList(
            ShortcutLayer(c, c.global_channels) for _ in range(c.hidden_layers - 1)
        )
        self.neuron = make_neuron(c, c.global_channels)
        self.embed = SharedLayer(c, c.global_channels, c.features)
        self.tokens_from = "fourth.neuron"
        self.block_layers = ("second.neuron", "fourth.neuron", "neuron")
        self.finish()

    def prepare(self, samples: Tensor) -> Tensor:
        """The points as they are, [B, N, 3 + F], once their width is checked."""
        width = 3 + self.config.point_features
        if samples.shape[-1] != width:
            raise InputError(
                "wrong_input",
                f"points with {samples.shape[-1]} values; this network takes {width}: x, y, z and "
                f"{self.config.point_features} features",
            )
        return samples

    def encode(self, x: Tensor, run: Pass) -> Tensor:
        """Spike counts [T*B, C] of points [T*B, N, 3 + F]."""
        points = self.second(self.first(x, run), run)
        whole = points.amax(1, keepdim=True).expand_as(points)
        points = self.third(torch.cat([whole, points], -1), run)
        stream = self.enter(self.fourth(points, run).amax(1))
        for layer in self.hidden:
            stream = stream + layer(stream, run)
        return self.counter(self.embed(self.neuron(stream, run), run))  # type: ignore[no-any-return]
