# SPDX-License-Identifier: Apache-2.0
"""Spikformer in the pre-activation form with membrane shortcut: the students for images.

Against the published form (``published_spikformer``): neurons stand before the connections and
shortcuts add membrane currents (as in Spikingformer and SDT-V3), so that every connection but the
first sees spikes; and the stem, half of the published network's work because its convolutions run
at full resolution, strides at once. The stem's widths are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.spiking.passes import Pass
from spike_perception.spiking.synapses import convolution, linear
from spike_perception.students.blocks import SpikeConv, spike_blocks, weaken
from spike_perception.students.student import SpikingConfig, Student, make_neuron


@dataclass(frozen=True)
class SpikformerConfig(SpikingConfig):
    """Sizes of a Spikformer."""

    height: int = setting(
        128, "image height (pixels), a multiple of 4 first_stride", minimum=4, maximum=1024
    )
    width: int = setting(
        128, "image width (pixels), a multiple of 4 first_stride", minimum=4, maximum=1024
    )
    first_stride: int = setting(
        4, "stride of the analogue first convolution: 1, 2 or 4", minimum=1, maximum=4, fixed=True
    )
    stem_channels: int = setting(
        64, "channels behind the first convolution", minimum=4, maximum=512, fixed=True
    )
    middle_channels: int = setting(
        128, "channels at twice the token spacing", minimum=4, maximum=1024, fixed=True
    )
    middle_convs: int = setting(
        2, "convolutions with shortcut at that spacing", minimum=0, maximum=16, fixed=True
    )
    channels: int = setting(256, "channels of the tokens", minimum=8, maximum=2048, fixed=True)
    blocks: int = setting(4, "transformer blocks", minimum=1, maximum=48, fixed=True)
    heads: int = setting(8, "attention heads", minimum=1, maximum=64, fixed=True)
    mlp_ratio: int = setting(4, "hidden width of the MLP", minimum=1, maximum=8, fixed=True)
    map_spikes: bool = setting(
        False, "neurons on the attention map instead of the associative form", fixed=True
    )
    features: int = setting(
        512, "channels that are counted in every region", minimum=8, maximum=4096, fixed=True
    )
    regions_rows: int = setting(
        1, "rows of regions that are counted apart", minimum=1, maximum=64, fixed=True
    )
    regions_columns: int = setting(
        1, "columns of regions that are counted apart", minimum=1, maximum=64, fixed=True
    )

    @property
    def token_spacing(self) -> int:
        """Distance of neighbouring tokens (pixels)."""
        return 4 * self.first_stride


class Spikformer(Student):
    """Images to spike counts.

    Input: float [B, 3, H, W], RGB normalised per channel; H and W multiples of the token spacing.
    Output: spikes of the last layer summed over the tokens of each region, [B, C], channel by
    channel and within it region by region, row by row; C = features x regions. One region by
    default: what is in the image, not where, which places need. The only analogue layer is
    ``first``, the convolution on the image.
    """

    config_type = SpikformerConfig
    presets: ClassVar = {
        # The preset for robots: 49 tokens, which one pass on two CPU cores takes in about 2 ms.
        "s": {
            "height": 112,
            "width": 112,
            "stem_channels": 32,
            "middle_channels": 64,
            "channels": 192,
            "heads": 6,
        },
        "m": {},
        "l": {
            "stem_channels": 96,
            "middle_channels": 192,
            "channels": 384,
            "blocks": 6,
            "heads": 12,
        },
    }
    config: SpikformerConfig
    sample_axes = 3

    def __init__(self, config: SpikformerConfig) -> None:
        """Build the network with random weights."""
        super().__init__(config)
        c = config
        if c.first_stride not in (1, 2, 4):
            raise InputError("invalid_setting", f"first_stride is {c.first_stride}; 1, 2 or 4")
        self._check(c.height, c.width)
        self.feature_dim = c.features * c.regions_rows * c.regions_columns
        self.first = convolution(
            3, c.stem_channels, {1: 3, 2: 5, 4: 7}[c.first_stride], c.first_stride, analogue=True
        )
        self.down_1 = SpikeConv(c, c.stem_channels, c.middle_channels, stride=2)
        self.middle = nn.ModuleList(
            SpikeConv(c, c.middle_channels, c.middle_channels) for _ in range(c.middle_convs)
        )
        self.down_2 = SpikeConv(c, c.middle_channels, c.channels, stride=2)
        self.position = SpikeConv(c, c.channels, c.channels)
        tokens = (c.height // c.token_spacing) * (c.width // c.token_spacing)
        self.blocks = spike_blocks(
            c,
            blocks=c.blocks,
            width=c.channels,
            heads=c.heads,
            ratio=c.mlp_ratio,
            tokens=tokens,
            map_spikes=c.map_spikes,
        )
        for body in (*self.middle, self.position):
            weaken(body.conv, 0.5)
        self.neuron = make_neuron(c, c.channels)
        self.embed = linear(c.channels, c.features)
        self.embed_neuron = make_neuron(c, c.features)
        self.tokens_from = "embed_neuron"
        self.block_layers = tuple(f"blocks.{i}.mlp.hidden_neuron" for i in range(c.blocks))
        self.finish()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens at the configured image size."""
        spacing = self.config.token_spacing
        return self.config.height // spacing, self.config.width // spacing

    def _check(self, height: int, width: int) -> None:
        spacing = self.config.token_spacing
        if height % spacing or width % spacing:
            raise InputError(
                "wrong_image_size",
                f"image of {width}x{height} pixels; both must be multiples of {spacing}",
            )
        rows, columns = self.config.regions_rows, self.config.regions_columns
        if (height // spacing) % rows or (width // spacing) % columns:
            raise InputError(
                "wrong_image_size",
                f"image of {width}x{height} pixels has {width // spacing}x{height // spacing} "
                f"tokens, which {columns}x{rows} regions do not divide evenly; choose multiples",
            )

    def _count(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """Spikes [M, N, C'] of rows x columns tokens summed by region, [M, C]."""
        c = self.config
        if c.regions_rows == c.regions_columns == 1:
            return torch.sum(tokens, 1)
        down, across = rows // c.regions_rows, columns // c.regions_columns
        cells = tokens.reshape(-1, c.regions_rows, down, c.regions_columns, across, c.features)
        return cells.sum((2, 4)).permute(0, 3, 1, 2).flatten(1)

    def encode(self, x: Tensor, run: Pass) -> Tensor:
        """Spike counts [T*B, C] of images [T*B, 3, H, W]."""
        height, width = int(x.shape[-2]), int(x.shape[-1])  # fixed in an exported graph
        self._check(height, width)
        x = self.down_1(self.first(x), run)
        for conv in self.middle:
            x = x + conv(x, run)
        x = self.down_2(x, run)
        x = x + self.position(x, run)
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, run)
        tokens = self.embed_neuron(self.embed(self.neuron(x, run)), run)
        spacing = self.config.token_spacing
        counts = self._count(tokens, height // spacing, width // spacing)
        return self.counter(counts)  # type: ignore[no-any-return]
