# SPDX-License-Identifier: Apache-2.0
"""Well-known image networks with random weights, as a measure for the students' speed.

Layers and sizes are the published ones; weights are random, so they tell speed and nothing else.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE = 224


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))  # type: ignore[no-any-return]


class ViTB32(nn.Module):
    """Image tower of CLIP's ViT-B/32 (Radford et al., 2021): 87.8 M parameters with projection."""

    def __init__(self) -> None:
        """Build it with random weights."""
        super().__init__()
        width = 768
        self.patches = nn.Conv2d(3, width, 32, 32, bias=False)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)
        self.position = nn.Parameter(torch.randn(1 + (SIZE // 32) ** 2, width) * 0.02)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(_Block(width, 12) for _ in range(12)))
        self.norm_out = nn.LayerNorm(width)
        self.project = nn.Linear(width, 512, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [B, 512] of images [B, 3, 224, 224]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        first = self.class_token.expand(x.shape[0], 1, -1)
        tokens = torch.cat([first, tokens], 1) + self.position
        tokens = self.blocks(self.norm_in(tokens))
        return self.project(self.norm_out(tokens[:, 0]))  # type: ignore[no-any-return]


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: str = ""
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if act:
        layers.append({"relu": nn.ReLU, "hswish": nn.Hardswish}[act]())
    return nn.Sequential(*layers)


class _BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(inputs, outputs, 3, stride, act="relu"), _conv(outputs, outputs, 3)
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """ResNet-18 (He et al., 2016), 1,000 classes: 11.69 M parameters."""

    def __init__(self) -> None:
        """Build it with random weights."""
        widths = (64, 64, 128, 256, 512)
        layers: list[nn.Module] = [_conv(3, 64, 7, 2, act="relu"), nn.MaxPool2d(3, 2, 1)]
        for index in range(1, 5):
            stride = 1 if index == 1 else 2
            layers.append(_BasicBlock(widths[index - 1], widths[index], stride))
            layers.append(_BasicBlock(widths[index], widths[index], 1))
        super().__init__(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 1000)
        )


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        # A quarter of the channels, to the nearest multiple of 8 that is at least 90 % of it.
        quarter = max(8, (channels // 4 + 4) // 8 * 8)
        squeezed = quarter + 8 if quarter < 0.9 * (channels // 4) else quarter
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1)))
        return x * functional.hardsigmoid(self.expand(gate))


class _InvertedResidual(nn.Module):
    def __init__(
        self, inputs: int, middle: int, outputs: int, kernel: int, stride: int, se: bool, act: str
    ) -> None:
        super().__init__()
        self.shortcut = stride == 1 and inputs == outputs
        layers: list[nn.Module] = [_conv(inputs, middle, 1, act=act)] if middle != inputs else []
        layers.append(_conv(middle, middle, kernel, stride, middle, act))
        if se:
            layers.append(_SqueezeExcite(middle))
        layers.append(_conv(middle, outputs, 1))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)  # type: ignore[no-any-return]


# Table 2 of Howard et al., 2019: kernel, expansion, output, squeeze-excite, non-linearity, stride.
_SMALL = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hswish", 2),
    (5, 240, 40, True, "hswish", 1),
    (5, 240, 40, True, "hswish", 1),
    (5, 120, 48, True, "hswish", 1),
    (5, 144, 48, True, "hswish", 1),
    (5, 288, 96, True, "hswish", 2),
    (5, 576, 96, True, "hswish", 1),
    (5, 576, 96, True, "hswish", 1),
)


class MobileNetV3Small(nn.Sequential):
    """MobileNetV3-small (Howard et al., 2019), 1,000 classes: 2.54 M parameters."""

    def __init__(self) -> None:
        """Build it with random weights."""
        layers: list[nn.Module] = [_conv(3, 16, 3, 2, act="hswish")]
        inputs = 16
        for kernel, middle, outputs, se, act, stride in _SMALL:
            layers.append(_InvertedResidual(inputs, middle, outputs, kernel, stride, se, act))
            inputs = outputs
        layers += [_conv(inputs, 576, 1, act="hswish"), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(*layers, nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, 1000))


PEERS: dict[str, type[nn.Module]] = {
    "ViT-B-32 image tower": ViTB32,
    "ResNet-18": ResNet18,
    "MobileNetV3-small": MobileNetV3Small,
}


class _EightBit(nn.Module):
    """A layer with its input rounded to 255 steps over the range seen, its weights to int8."""

    weight_scale: Tensor
    weight_zero: Tensor

    def __init__(self, layer: nn.Linear | nn.Conv2d, low: float, high: float) -> None:
        super().__init__()
        self.layer = layer
        low, high = min(low, 0.0), max(high, 0.0)
        self.scale = max(high - low, 1e-6) / 255.0
        self.zero = round(-low / self.scale)
        weight = layer.weight.detach()
        scale = weight.flatten(1).abs().amax(1).clamp_min(1e-12) / 127.0
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero", torch.zeros_like(scale, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, 255)
        weight = torch.fake_quantize_per_channel_affine(
            self.layer.weight, self.weight_scale, self.weight_zero, 0, -128, 127
        )
        if isinstance(self.layer, nn.Linear):
            return functional.linear(x, weight, self.layer.bias)
        c = self.layer
        return functional.conv2d(x, weight, c.bias, c.stride, c.padding, c.dilation, c.groups)


@torch.no_grad()
def folded(network: nn.Module) -> nn.Module:
    """Copy in evaluation mode, batch normalisation folded into the convolutions."""
    copied = copy.deepcopy(network).eval()
    for module in copied.modules():
        if isinstance(module, nn.Sequential) and len(module) > 1:
            conv, norm = module[0], module[1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[0] = fuse_conv_bn_eval(conv, norm)
                module[1] = nn.Identity()
    return copied


@torch.no_grad()
def quantised(network: nn.Module, samples: Tensor) -> nn.Module:
    """Folded copy whose linear layers and convolutions work on eight bits.

    Ordinary post-training quantisation, so that the peers too are measured in their fastest form:
    weights symmetric per output channel, inputs asymmetric over the range seen on ``samples``.
    """
    copied = folded(network)
    ranges: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            ranges[name] = (inputs[0].min().item(), inputs[0].max().item())

        return hook

    layers = {n: m for n, m in copied.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    hooks = [m.register_forward_pre_hook(watch(n)) for n, m in layers.items()]
    copied(samples)
    for each in hooks:
        each.remove()
    for name, layer in layers.items():
        parent, _, own = name.rpartition(".")
        setattr(copied.get_submodule(parent), own, _EightBit(layer, *ranges[name]))
    return copied
