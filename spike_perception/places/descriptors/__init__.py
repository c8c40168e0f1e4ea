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

# Name -> "module:function". The function takes no argument, or the file that follows the name
# ("spiking:FILE"), and returns the descriptor; the module is imported when it is first asked for.
DESCRIPTORS: dict[str, str] = {
    "patch_norm": "spike_perception.places.descriptors.patch_norm:create_float",
    "patch_norm_bits": "spike_perception.places.descriptors.patch_norm:create_bits",
    "spiking": "spike_perception.places.descriptors.spiking:create_float",
    "spiking_bits": "spike_perception.places.descriptors.spiking:create_bits",
}
WITH_FILE = ("spiking", "spiking_bits")
"""Descriptors that have weights, so that a name may be followed by their file."""


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

    Args:
        name: a name of the registry. Those with weights load the shipped ones; ``NAME:FILE`` loads
            others.

    Raises:
        InputError: ``unknown_descriptor``, and what loading of weights raises.
    """
    plain, _, file = name.partition(":")
    if plain not in DESCRIPTORS:
        raise InputError(
            "unknown_descriptor",
            f"there is no descriptor {plain!r}; choose one of {', '.join(DESCRIPTORS)}",
        )
    if file and plain not in WITH_FILE:
        raise InputError(
            "unknown_descriptor",
            f"descriptor {plain!r} has no weights, so no file {file!r} either; files can be given "
            f"to {', '.join(WITH_FILE)}",
        )
    module, _, function = DESCRIPTORS[plain].partition(":")
    create = getattr(importlib.import_module(module), function)
    return cast(Descriptor, create(file) if file else create())


def require_image(image: NDArray[Any]) -> None:
    """Refuse what ``Descriptor.describe`` does not take.

    Raises:
        InputError: ``invalid_image``.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            "invalid_image",
            f"image is {image.dtype} {list(image.shape)}; it must be uint8 [H, W, 3], RGB, "
            "with at least one pixel",
        )
