# SPDX-License-Identifier: Apache-2.0
"""The spiking student's counts as a descriptor.

The student counts spikes per channel and region of the image: F, integers [C]. A projection that
was trained with it makes the descriptor, ``z = P F - o``: counts weigh rows of P, so this too needs
no multiplication between measured values. The float form is z scaled to unit length, the bit form
its signs (our reading of VL2Spike's use for places, which its abstract only names).

The projection is part of the bundle: ``descriptor.projection`` float32 [d, C] and
``descriptor.offset`` float32 [d].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.deploy.bundle import DESCRIPTOR, Bundle
from spike_perception.deploy.runtime import Runtime, load_runtime
from spike_perception.deploy.shipped import shipped_file
from spike_perception.errors import InputError
from spike_perception.places.descriptors import Kind, require_image

SHIPPED = "place"
PROJECTION = f"{DESCRIPTOR}projection"
OFFSET = f"{DESCRIPTOR}offset"


class Spiking:
    """The descriptor; see the module."""

    def __init__(
        self, name: str, bundle: Bundle, kind: Kind, *, cache: Path | str | None = "auto"
    ) -> None:
        """Make the bundle's network ready.

        Args:
            name: name in the registry.
            bundle: of kind ``place``.
            kind: form of the descriptor.
            cache: folder for exported graphs, as in ``load_runtime``.

        Raises:
            InputError: ``wrong_kind``, ``bad_metadata`` if the projection is missing or does not
                fit the counts, and what ``load_runtime`` raises.
        """
        if bundle.kind != "place":
            raise InputError(
                "wrong_kind",
                f"a bundle of kind {bundle.kind!r} describes no places; give one of kind 'place'",
            )
        self._projection, self._offset = _head(bundle)
        self.name = name
        self.kind: Kind = kind
        self.dimension = len(self._offset)
        self.weights_id = bundle.weights_id
        # One thread: a second one gains little on so small a network, and waits for whatever else
        # the computer is busy with.
        self.runtime: Runtime = load_runtime(bundle, threads=1, cache=cache)

    def describe(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """Describe one image (see ``Descriptor.describe``)."""
        require_image(image)
        counts = self.runtime.infer(self.runtime.prepare_images([image]))[0]
        z = self._projection @ counts - self._offset
        if self.kind == "bits":
            return np.packbits(z > 0)
        length = float(np.linalg.norm(z))
        return z / np.float32(length) if length > 0.0 else np.zeros_like(z)


def _head(bundle: Bundle) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    projection, offset = bundle.tensors.get(PROJECTION), bundle.tensors.get(OFFSET)
    if (
        projection is None
        or offset is None
        or projection.dtype != np.float32
        or offset.dtype != np.float32
        or projection.ndim != 2
        or projection.shape != (offset.size, bundle.embedding_dim)
        or offset.shape != projection.shape[:1]
        or offset.size == 0
        or offset.size % 8
    ):
        given = {
            name: "none" if each is None else f"{each.dtype} {list(each.shape)}"
            for name, each in ((PROJECTION, projection), (OFFSET, offset))
        }
        raise InputError(
            "bad_metadata",
            f"a place bundle has {PROJECTION}, float32 [d, {bundle.embedding_dim}], and {OFFSET}, "
            f"float32 [d], d a multiple of 8; this one has {given}",
        )
    return np.ascontiguousarray(projection), np.ascontiguousarray(offset)


def create_float(file: str = SHIPPED) -> Spiking:
    """The float form, by name of a shipped model or by file."""
    return Spiking("spiking", Bundle.load(shipped_file(file)), "float")


def create_bits(file: str = SHIPPED) -> Spiking:
    """The bit form."""
    return Spiking("spiking_bits", Bundle.load(shipped_file(file)), "bits")
