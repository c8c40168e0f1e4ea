# SPDX-License-Identifier: Apache-2.0
"""Batches of images through a frozen network, on OpenVINO or torch, and of texts likewise."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spike_perception.config import setting
from spike_perception.deploy.engines import installed
from spike_perception.errors import InputError
from spike_perception.training.teachers.operators import import_open_clip

Images = Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
Float = NDArray[np.float32]


@dataclass(frozen=True)
class EncoderConfig:
    """How a frozen network is run; changes nothing of what it answers but rounding."""

    engine: str = setting(
        "auto",
        "auto: OpenVINO where it is installed and the device is the CPU",
        choices=("auto", "openvino", "torch"),
    )
    device: str = setting("cpu", "torch device of engine torch, such as cuda")
    precision: str = setting(
        "bf16",
        "bf16: where OpenVINO computes it natively, about twice as quick; f32 elsewhere",
        choices=("f32", "bf16"),
    )
    batch: int = setting(32, "images or texts in one pass", minimum=1, maximum=4096)
    threads: int = setting(0, "threads of one pass; 0: one a core", minimum=0, maximum=1024)


@dataclass(frozen=True)
class Preprocessing:
    """What open_clip does to an image before its tower; names and meaning are open_clip's.

    Attributes:
        size: height and width that the tower takes.
        mean: per channel, of values in 0..1.
        std: per channel, of values in 0..1.
        interpolation: ``bicubic`` or ``bilinear``.
        resize_mode: ``shortest`` (then centre crop), ``longest`` (then pad) or ``squash``.
        fill_color: grey value of padding, 0..255.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill_color: int = 0

    @classmethod
    def of(cls, found: dict[str, Any]) -> Preprocessing:
        """From open_clip's ``preprocess_cfg``."""
        size = found["size"]
        return cls(
            (size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
            tuple(float(x) for x in found["mean"]),
            tuple(float(x) for x in found["std"]),
            str(found["interpolation"]),
            str(found["resize_mode"]),
            int(found["fill_color"]),
        )

    def geometry(self) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
        """Function from an image uint8 [H, W, 3] to uint8 [h, w, 3]: open_clip's own resizing.

        Normalisation is left to the network, where it costs next to nothing.
        """
        import_open_clip()
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from PIL import Image

        steps = image_transform_v2(
            PreprocessCfg(
                size=self.size,
                mean=self.mean,
                std=self.std,
                interpolation=self.interpolation,
                resize_mode=self.resize_mode,
                fill_color=self.fill_color,
            ),
            is_train=False,
        ).transforms[:-2]  # all but the conversion to a tensor and its normalisation

        def apply(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
            if image.shape == (*self.size, 3):
                return image
            picture = Image.fromarray(image)
            for step in steps:
                picture = step(picture)
            return np.asarray(picture, np.uint8)

        return apply


class Normalised(nn.Module):
    """A network that takes uint8 pixels [B, h, w, 3]."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        shape = (1, -1, 1, 1)
        mean = torch.tensor(preprocessing.mean).reshape(shape) * 255
        std = torch.tensor(preprocessing.std).reshape(shape) * 255
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, pixels: Tensor) -> Any:
        """What the network says about pixels."""
        return self.network((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)


class ImageEncoder:
    """Runs a frozen network over images of any size."""

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, config: EncoderConfig | None = None
    ) -> None:
        """Prepare the network; OpenVINO compiles it at the first image.

        Args:
            network: maps normalised images [B, 3, h, w] to a tuple of tensors [B, ...].
            preprocessing: size and normalisation.
            config: how to run it.

        Raises:
            InputError: ``engine_missing``, ``no_device``.
        """
        self.config = config or EncoderConfig()
        self.preprocessing = preprocessing
        self._geometry = preprocessing.geometry()
        self._device = torch_device(self.config.device)
        cpu = self._device.type == "cpu"
        if self.config.engine == "openvino" and not (cpu and installed("openvino")):
            raise InputError(
                "engine_missing",
                "engine openvino needs its package and device cpu; choose engine torch",
            )
        if self.config.engine == "auto" and cpu and installed("openvino"):
            self.engine = "openvino"
        else:
            self.engine = "torch" if self.config.engine == "auto" else self.config.engine
        self._network = Normalised(network, preprocessing).eval().to(self._device)
        self._threads = self.config.threads or cores()
        self._compiled: Any = None

    def __call__(self, images: Images) -> list[Float]:
        """Outputs of the network, float32 [N, ...] each.

        Args:
            images: uint8 [N, H, W, 3] or a list of [H, W, 3]; RGB.

        Raises:
            InputError: ``wrong_image`` for another shape or type, or no image.
        """
        if not len(images):
            raise InputError("wrong_image", "no image was given to encode")
        for each in images:
            if each.dtype != np.uint8 or each.ndim != 3 or each.shape[2] != 3 or not each.size:
                raise InputError(
                    "wrong_image",
                    f"images are uint8 [H, W, 3], this one is {each.dtype} {list(each.shape)}",
                )
        found: list[list[Float]] = []
        size = self.config.batch
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(0, len(images), size):
                part = images[start : start + size]
                found.append(self._run(np.stack(list(pool.map(self._geometry, part)))))
        return [np.concatenate(each) for each in zip(*found, strict=True)]

    def _run(self, pixels: NDArray[np.uint8]) -> list[Float]:
        if self.engine == "torch":
            with torch.inference_mode():
                answers = self._network(torch.from_numpy(pixels).to(self._device))
            return [each.float().cpu().numpy() for each in answers]
        count, batch = len(pixels), self.config.batch
        if self._compiled is None:
            self._compiled = self._compile(batch)
        if count < batch:  # the graph's batch is fixed, which is what makes it quick
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], batch - count, 0)])
        found = self._compiled.infer([pixels], share_inputs=True)
        return [np.array(each[:count], np.float32) for each in found.values()]

    def _compile(self, batch: int) -> Any:
        import openvino

        example = torch.zeros((batch, *self.preprocessing.size, 3), dtype=torch.uint8)
        model = openvino.convert_model(
            self._network, example_input=example, input=[list(example.shape)]
        )
        core = openvino.Core()
        native = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        options = {
            # Without native support bf16 would be emulated, at a loss.
            "INFERENCE_PRECISION_HINT": self.config.precision if native else "f32",
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        return core.compile_model(model, "CPU", options).create_infer_request()


def encode_texts(
    texts: Sequence[str],
    tokenise: Callable[[list[str]], Tensor],
    forward: Callable[[Tensor], Tensor],
    *,
    pad: int | None,
    batch: int,
    device: torch.device | str = "cpu",
) -> Float:
    """Outputs of a text tower [N, C], batched; a text that occurs twice is encoded once.

    Args:
        texts: any number.
        tokenise: to ids [N, L], padded on the right.
        forward: ids [B, L] to [B, C].
        pad: id of padding if the tower masks it, so that it can be cut off; None keeps L.
        batch: texts in one pass.
        device: where the tower is.

    Raises:
        InputError: ``no_text``.
    """
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        raise InputError("no_text", "no text was given to encode")
    ids = torch.cat(
        [tokenise(distinct[start : start + 1024]) for start in range(0, len(distinct), 1024)]
    )
    lengths = torch.full((len(ids),), ids.shape[1])
    if pad is not None:
        places = torch.arange(1, ids.shape[1] + 1)
        lengths = ((ids != pad) * places).amax(1).clamp_min(1)
    # Texts of one length together: hardly any padding is computed.
    order = lengths.argsort(stable=True)
    rows: list[Tensor] = []
    with torch.inference_mode():
        for part in order.split(batch):
            used = ids[part, : int(lengths[part].max())]
            rows.append(forward(used.to(device)).float().cpu())
    encoded = torch.cat(rows)[order.argsort()].numpy()
    position = {text: index for index, text in enumerate(distinct)}
    return np.asarray(encoded[[position[text] for text in texts]], np.float32)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def torch_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        InputError: ``no_device`` if torch does not know it or it is not there.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError("no_device", f"device {name!r} cannot be used: {error}") from error
    return device
