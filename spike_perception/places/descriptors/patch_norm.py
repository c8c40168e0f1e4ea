# SPDX-License-Identifier: Apache-2.0
"""Patch-normalised thumbnails, the classical baseline of sequence-based place recognition.

Milford and Wyeth, "SeqSLAM" (ICRA 2012): the image is shrunk to a thumbnail and every pixel is
normalised by mean and standard deviation of its patch, which takes out the slow changes of light.
Three things are ours: the patch slides with the pixel instead of tiling the thumbnail, a floor
under the standard deviation keeps the noise of flat areas such as sky from being blown up, and
there is a form as bits (sign of every normalised pixel).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spike_perception.identity import sha256_json
from spike_perception.places.descriptors import Kind, require_image


@dataclass(frozen=True)
class PatchNormSettings:
    """Settings of the descriptor; their hash stands where other descriptors have weights.

    Attributes:
        width: thumbnail width in pixels.
        height: thumbnail height in pixels.
        patch: side of the square window around a pixel, in thumbnail pixels (odd).
        floor: added to the standard deviation of the window, as a share of full scale.
        texture: root mean square of the normalised thumbnail below which a picture (a tunnel, a
            covered lens) says nothing of the place.
        bits: signs instead of floats.
    """

    width: int = 64
    height: int = 32
    patch: int = 9
    floor: float = 0.2
    texture: float = 0.05
    bits: bool = False


class PatchNorm:
    """The descriptor; see the module."""

    def __init__(self, name: str, settings: PatchNormSettings) -> None:
        """Keep the settings.

        Args:
            name: name in the registry.
            settings: sizes and floor.
        """
        self.name = name
        self.kind: Kind = "bits" if settings.bits else "float"
        self.dimension = settings.width * settings.height
        self.settings = settings
        self.weights_id = sha256_json({"patch_norm": 1, **asdict(settings)})

    def describe(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Describe one image (see ``Descriptor.describe``).

        The float vector of a picture with too little texture is all zero and resembles nothing.
        """
        require_image(image)
        chosen = self.settings
        # Shrinking first, then grey: area averaging and the grey mix are both linear, and the
        # grey conversion then touches 2,048 pixels instead of the whole image.
        small = cv2.resize(image, (chosen.width, chosen.height), interpolation=cv2.INTER_AREA)
        grey = small.astype(np.float32) @ _LUMA
        window = (chosen.patch, chosen.patch)
        mean = cv2.blur(grey, window)
        variance = cv2.blur(grey * grey, window) - mean * mean
        spread = np.sqrt(np.maximum(variance, 0.0))  # rounding can leave it below zero
        normalised = ((grey - mean) / (spread + chosen.floor)).reshape(-1)
        if chosen.bits:
            return np.packbits(normalised > 0)
        length = float(np.linalg.norm(normalised))
        blank = length < chosen.texture * np.sqrt(normalised.size)
        return np.zeros_like(normalised) if blank else normalised / np.float32(length)


_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32) / np.float32(255)  # ITU-R BT.601


def create_float() -> PatchNorm:
    """The float form, 2,048 numbers of unit length."""
    return PatchNorm("patch_norm", PatchNormSettings())


def create_bits() -> PatchNorm:
    """The bit form, 2,048 bits."""
    return PatchNorm("patch_norm_bits", PatchNormSettings(bits=True))
