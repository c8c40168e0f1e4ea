# SPDX-License-Identifier: Apache-2.0
"""Image sets as a student's robots will see them: decoded once, sized by the bundle's own rule."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spike_perception.deploy.preprocessing import prepare_image
from spike_perception.errors import InputError

MAX_BYTES = 16 << 30


class Images(Protocol):
    """What of an image set is needed here."""

    labels: NDArray[np.int64]
    names: Any

    def __len__(self) -> int:
        """Number of images."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3] RGB; raises InputError ``corrupt_image``."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images of one size.

    Attributes:
        pixels: uint8 [M, h, w, 3], RGB.
        indices: where each lies in its image set, int64 [M]; corrupt ones are missing.
        skipped: names of corrupt images, with the reason.
    """

    pixels: NDArray[np.uint8]
    indices: NDArray[np.int64]
    skipped: dict[str, str]


def image_preprocessing(
    size: tuple[int, int], mean: float, std: float, precision: str
) -> dict[str, Any]:
    """Preprocessing of an image bundle: the largest centred part, areas averaged."""
    return {
        "input_size": list(size),
        "channel_order": "rgb",
        "mean": [mean],
        "std": [std],
        "resize": "shorter_side_crop",
        "interpolation": "area",
        "precision": precision,
    }


def sized_pixels(
    images: Images,
    preprocessing: Mapping[str, Any],
    size: tuple[int, int],
    *,
    name: str = "images",
    threads: int = 2,
) -> Pixels:
    """Decode a set at a size, by the rule with which robots size their images.

    ``sensing`` and the bundle decide what a robot's network sees; with the same rule here, what is
    evaluated is what will run. Images that cannot be decoded are counted and left out.

    Args:
        images: the set.
        preprocessing: of the bundle.
        size: height and width, the bundle's or larger to leave room for crops.
        name: shown beside the progress bar.
        threads: decoders at work at once.

    Raises:
        InputError: ``too_large``; ``images_missing`` if not one image is left.
    """
    # With this mean and deviation prepare_image gives bytes, as floats and channels first.
    rule = {**preprocessing, "input_size": list(size), "mean": [0.0], "std": [1.0 / 255.0]}
    needed = len(images) * size[0] * size[1] * 3
    if needed > MAX_BYTES:
        raise InputError(
            "too_large",
            f"{len(images)} images of {size[1]}x{size[0]} take {needed / 2**30:.1f} GiB, at most "
            f"{MAX_BYTES >> 30}; give a smaller student, margin or limit",
        )
    pixels = np.empty((len(images), *size, 3), np.uint8)
    skipped: dict[str, str] = {}

    def one(index: int) -> bool:
        try:
            prepared = prepare_image(images.image(index), rule)
        except InputError as error:
            if error.reason != "corrupt_image":
                raise
            skipped[str(images.names[index])] = str(error)
            return False
        pixels[index] = np.rint(prepared).transpose(1, 2, 0)
        return True

    with ThreadPoolExecutor(max(1, threads)) as pool:
        found = pool.map(one, range(len(images)), chunksize=64)
        bar = tqdm(found, f"decode {name}", len(images), unit="image", disable=None)
        good = np.fromiter(bar, bool, len(images))
    indices = np.flatnonzero(good)
    if not len(indices):
        raise InputError("images_missing", f"none of the {len(images)} images can be decoded")
    return Pixels(pixels if good.all() else pixels[indices], indices, dict(sorted(skipped.items())))
