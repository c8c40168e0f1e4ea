# SPDX-License-Identifier: Apache-2.0
"""Global image descriptors: one image in, one float or bit vector out.

To add one, write its module beside this file and add one line to ``DESCRIPTORS``.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError

Kind = Literal["float", "bits"]

# Name -> "module:function". The function takes no argument and returns the descriptor; the module
# is imported when the descriptor is first asked for.
DESCRIPTORS: dict[str, str] = {
    "patch_norm": "spike_perception.places.descriptors.patch_norm:create_float",
    "patch_norm_bits": "spike_perception.places.descriptors.patch_norm:create_bits",
}


class DescriptorIdentity(Protocol):
    """What a map remembers of the descriptor that made it."""

    @property
    def name(self) -> str:
        """Name in the registry."""

    @property
    def kind(self) -> Kind:
        """``"float"`` (compared by cosine) or ``"bits"`` (compared by Hamming distance)."""

    @property
    def dimension(self) -> int:
        """Number of floats, or of bits (a multiple of 8)."""

    @property
    def weights_id(self) -> str:
        """Hash of the weights, or of the settings where there are none."""


class Descriptor(DescriptorIdentity, Protocol):
    """Turns an image into a vector whose nearness means the same place."""

    def describe(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Describe one image.

        Args:
            image: uint8 [H, W, 3], RGB, any size from 1x1.

        Returns:
            float32 [dimension] of unit length, or uint8 [dimension / 8] of packed bits.

        Raises:
            InputError: ``invalid_image`` if the image is empty or of another shape or type.
        """


def descriptor_names() -> tuple[str, ...]:
    """Names that :func:`create_descriptor` knows."""
    return tuple(DESCRIPTORS)


def create_descriptor(name: str) -> Descriptor:
    """Build the descriptor of that name.

    Raises:
        InputError: ``unknown_descriptor``.
    """
    if name not in DESCRIPTORS:
        raise InputError(
            "unknown_descriptor",
            f"there is no descriptor {name!r}; choose one of {', '.join(DESCRIPTORS)}",
        )
    module, _, function = DESCRIPTORS[name].partition(":")
    return cast(Descriptor, getattr(importlib.import_module(module), function)())
