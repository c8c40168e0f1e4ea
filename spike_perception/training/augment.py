# SPDX-License-Identifier: Apache-2.0
"""Augmentation of image batches that were decoded once: quick on a CPU, and a pure function.

What happens to a sample depends on its key alone (see ``chance``), so order, batch and process make
no difference. Geometry and resolution work image by image on bytes, where OpenCV is quickest;
colours are one matrix for each image, applied to the whole batch at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.training.chance import key, uniform

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities (0 to 1) and strengths of the augmentations."""

    crop: float = setting(1.0, "probability of a random resized crop", minimum=0.0, maximum=1.0)
    crop_area: float = setting(
        0.6, "least area of a crop, share of the image", minimum=0.01, maximum=1.0
    )
    crop_aspect: float = setting(1.33, "greatest change of aspect ratio", minimum=1.0, maximum=4.0)
    flip: float = setting(0.5, "probability of a left-right flip", minimum=0.0, maximum=1.0)
    jitter: float = setting(0.5, "probability of colour jitter", minimum=0.0, maximum=1.0)
    brightness: float = setting(
        0.3, "greatest change of brightness (factor 1 +- this)", minimum=0.0, maximum=1.0
    )
    contrast: float = setting(
        0.3, "greatest change of contrast (factor 1 +- this)", minimum=0.0, maximum=1.0
    )
    saturation: float = setting(
        0.3, "greatest change of saturation (factor 1 +- this)", minimum=0.0, maximum=1.0
    )
    grey: float = setting(0.05, "probability of grey", minimum=0.0, maximum=1.0)
    degrade: float = setting(0.2, "probability of lost resolution", minimum=0.0, maximum=1.0)
    degrade_least: int = setting(24, "fewest pixels of a side that are left", minimum=4)
    degrade_most: int = setting(64, "most pixels of a side that are left", minimum=4)
    blur: float = setting(0.1, "probability of blur", minimum=0.0, maximum=1.0)
    blur_sigma: float = setting(
        1.5, "greatest blur, from 0.3 on (pixels)", minimum=0.3, maximum=16.0
    )
    noise: float = setting(0.1, "probability of noise", minimum=0.0, maximum=1.0)
    noise_deviation: float = setting(
        0.06, "greatest standard deviation of noise (share of full scale)", minimum=0.0, maximum=1.0
    )
    erase: float = setting(0.1, "probability that a rectangle is erased", minimum=0.0, maximum=1.0)
    erase_area: float = setting(
        0.2, "greatest area erased, share of the image", minimum=0.0, maximum=1.0
    )


class Augment:
    """Batches of bytes to normalised network input, augmented by the samples' keys."""

    def __init__(
        self,
        config: AugmentConfig,
        size: tuple[int, int],
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.25,),
        seed: int = 0,
    ) -> None:
        """Prepare for one size of output.

        Args:
            config: what to do how often.
            size: height and width of the output (pixels).
            mean: of values scaled to 0..1, one or one a channel.
            std: the same.
            seed: of the noise.

        Raises:
            InputError: ``invalid_setting`` if ``degrade_least`` exceeds ``degrade_most``.
        """
        if config.degrade_least > config.degrade_most:
            raise InputError(
                "invalid_setting",
                f"augment.degrade_least {config.degrade_least} exceeds degrade_most "
                f"{config.degrade_most}",
            )
        self.config = config
        self.size = size
        self.mean = torch.tensor(mean, dtype=torch.float32) * 255.0
        self.std = torch.tensor(std, dtype=torch.float32) * 255.0
        # Drawn once: a normal number costs more than everything else here.
        count = 2 * size[0] * size[1] * 3
        generator = torch.Generator().manual_seed(key(seed, 1))
        self._noise = torch.randn(count, generator=generator) if config.noise > 0.0 else None

    def __call__(
        self, pixels: NDArray[np.uint8] | Tensor, sample_keys: NDArray[np.uint64]
    ) -> Tensor:
        """Augment and normalise.

        Args:
            pixels: uint8 [B, H, W, 3], RGB, of any size.
            sample_keys: uint64 [B], from ``chance.keys``.

        Returns:
            float32 [B, 3, H', W'] whose memory has the channels last.
        """
        array = pixels.numpy() if isinstance(pixels, Tensor) else pixels
        c, batch = self.config, len(array)
        u = uniform(sample_keys, 24)
        shaped = np.empty((batch, *self.size, 3), np.uint8)
        for index in range(batch):
            shaped[index] = self._shaped(array[index], u[index])
        matrix, offset = self._colours(shaped, u)
        flat = torch.from_numpy(shaped).reshape(batch, -1, 3).float()
        flat = torch.baddbmm(offset, flat, matrix)
        if self._noise is not None:
            self._add_noise(flat, u)
        image = ((flat.clamp_(0.0, 255.0) - self.mean) / self.std).reshape(batch, *self.size, 3)
        if c.erase > 0.0:
            self._erase(image, u)
        return image.permute(0, 3, 1, 2)

    def clean(self, pixels: NDArray[np.uint8] | Tensor) -> Tensor:
        """Normalise alone, as a robot does; the size must be that of the output."""
        array = torch.as_tensor(pixels)
        return ((array.float() - self.mean) / self.std).permute(0, 3, 1, 2)

    def _shaped(self, image: NDArray[Any], u: NDArray[np.float64]) -> NDArray[Any]:
        """Crop, flip, lost resolution and blur of one image."""
        c = self.config
        height, width = self.size
        if u[0] < c.crop:
            rows, columns = image.shape[:2]
            area = c.crop_area + (1.0 - c.crop_area) * u[1]
            aspect = math.exp((2.0 * u[2] - 1.0) * math.log(c.crop_aspect))
            down = min(rows, max(1, round(rows * math.sqrt(area / aspect))))
            across = min(columns, max(1, round(columns * math.sqrt(area * aspect))))
            top, left = int(u[3] * (rows - down + 1)), int(u[4] * (columns - across + 1))
            image = image[top : top + down, left : left + across]
        target = (width, height)
        if u[5] < c.degrade:
            most = min(c.degrade_most, height, width)
            least = min(c.degrade_least, most)
            side = least + int(u[6] * (most - least + 1))
            small = (
                max(1, round(side * max(1.0, width / height))),
                max(1, round(side * max(1.0, height / width))),
            )
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        if image.shape[:2] != self.size:
            shrinks = image.shape[0] > height and image.shape[1] > width
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = cv2.resize(image, target, interpolation=method)
        if u[7] < c.blur:
            image = cv2.GaussianBlur(image, (0, 0), 0.3 + u[8] * (c.blur_sigma - 0.3))
        return image[:, ::-1] if u[9] < c.flip else image

    def _colours(self, images: NDArray[np.uint8], u: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """One colour matrix [B, 3, 3] and offset [B, 1, 3] an image, for rows of pixels."""
        c = self.config
        jitter = (u[:, 10] < c.jitter)[:, None] * (2.0 * u[:, 11:14] - 1.0)
        brightness = 1.0 + c.brightness * jitter[:, 0]
        contrast = 1.0 + c.contrast * jitter[:, 1]
        saturation = 1.0 + c.saturation * jitter[:, 2]
        saturation = np.where(u[:, 14] < c.grey, 0.0, saturation)
        # Contrast turns about the image's mean luminance; every fourth pixel tells it well enough.
        luma = images[:, ::4, ::4].reshape(len(images), -1, 3).mean(1) @ _LUMA
        grey = np.repeat(_LUMA[:, None], 3, 1)
        colour = saturation[:, None, None] * np.eye(3) + (1.0 - saturation)[:, None, None] * grey
        matrix = (brightness * contrast)[:, None, None] * colour
        offset = brightness * (1.0 - contrast) * luma
        return (
            torch.from_numpy(matrix.astype(np.float32)),
            torch.from_numpy(np.repeat(offset.astype(np.float32)[:, None, None], 3, 2)),
        )

    def _add_noise(self, flat: Tensor, u: NDArray[np.float64]) -> None:
        noise = self._noise
        if noise is None:
            return
        count = flat[0].numel()
        for index in np.flatnonzero(u[:, 15] < self.config.noise):
            start = int(u[index, 16] * (len(noise) - count))
            deviation = 255.0 * self.config.noise_deviation * u[index, 17]
            flat[index] += deviation * noise[start : start + count].view_as(flat[index])

    def _erase(self, images: Tensor, u: NDArray[np.float64]) -> None:
        height, width = self.size
        for index in np.flatnonzero(u[:, 18] < self.config.erase):
            side = math.sqrt(self.config.erase_area * u[index, 19])
            aspect = math.exp((2.0 * u[index, 20] - 1.0) * math.log(2.0))
            rows = min(height, round(height * side * aspect))
            columns = min(width, round(width * side / aspect))
            top = int(u[index, 21] * (height - rows + 1))
            left = int(u[index, 22] * (width - columns + 1))
            images[index, top : top + rows, left : left + columns] = 0.0
