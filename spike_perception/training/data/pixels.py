# SPDX-License-Identifier: Apache-2.0
"""Decoded pixels of a whole image set in memory, for training on small images."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spike_perception.errors import InputError
from spike_perception.sensing.image import RgbImage
from spike_perception.training.data.images import ImageSet

MAX_BYTES = 16 << 30


@dataclass(frozen=True, eq=False)
class PixelCache:
    """Images of one size.

    Attributes:
        pixels: uint8 [M, h, w, 3], RGB.
        indices: where each lies in its image set, int64 [M], ascending: corrupt ones are missing.
        labels: their labels, int64 [M].
        skipped: corrupt images, name to reason.
    """

    pixels: NDArray[np.uint8]
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    skipped: dict[str, str]

    def __len__(self) -> int:
        return len(self.pixels)


def load_pixels(
    images: ImageSet,
    size: int | tuple[int, int] | None = None,
    *,
    stretch: bool = False,
    threads: int = 2,
    progress: bool = True,
) -> PixelCache:
    """Decode a whole set; images that cannot be decoded are counted and left out.

    Args:
        images: the set.
        size: height and width, or the side of a square; None keeps the size, which all must share.
        stretch: True to ignore the aspect ratio, False to keep the largest centred part.
        threads: decoders at work at once.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: ``images_missing`` if not one image is left, ``mixed_sizes``, ``too_large``.
    """
    wanted = (size, size) if isinstance(size, int) else size
    pixels: NDArray[np.uint8] | None = None
    kept: list[int] = []
    with ThreadPoolExecutor(max(1, threads)) as pool:
        work = _bounded(pool, images, wanted, stretch, 64 * max(1, threads))
        bar = tqdm(
            work,
            str(images.path.name),
            len(images),
            unit="image",
            disable=None if progress else True,
        )
        for index, image in enumerate(bar):
            if image is None:
                continue
            if pixels is None:
                pixels = _allocate(len(images), image.shape[:2])
            if image.shape != pixels.shape[1:]:
                raise InputError(
                    "mixed_sizes",
                    f"{images.path}/{images.names[index]} is {image.shape[1]}x{image.shape[0]}, "
                    f"the images before {pixels.shape[2]}x{pixels.shape[1]}; give one size for all",
                )
            pixels[len(kept)] = image
            kept.append(index)
    if pixels is None:
        raise InputError(
            "images_missing", f"none of the {len(images)} images of {images.path} can be decoded"
        )
    indices = np.array(kept, np.int64)
    return PixelCache(pixels[: len(kept)], indices, images.labels[indices], dict(images.skipped))


def resized(image: RgbImage, size: tuple[int, int], *, stretch: bool = False) -> RgbImage:
    """An image at another height and width.

    Shrinking averages areas, so that nothing aliases; enlarging is bicubic.
    """
    rows, columns = image.shape[:2]
    if not stretch:
        height = min(rows, max(1, round(columns * size[0] / size[1])))
        width = min(columns, max(1, round(rows * size[1] / size[0])))
        top, left = (rows - height) // 2, (columns - width) // 2
        image = image[top : top + height, left : left + width]
        rows, columns = height, width
    if (rows, columns) == tuple(size):
        return np.ascontiguousarray(image)
    shrinks = size[0] <= rows and size[1] <= columns
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.uint8)


def degraded(image: RgbImage, shorter: int) -> RgbImage:
    """The image as a camera of fewer pixels sees it: its shorter side has ``shorter`` pixels.

    Smaller images are returned as they are.
    """
    rows, columns = image.shape[:2]
    factor = shorter / min(rows, columns)
    if factor >= 1.0:
        return image
    size = (max(1, round(rows * factor)), max(1, round(columns * factor)))
    return resized(image, size, stretch=True)


def _bounded(
    pool: ThreadPoolExecutor,
    images: ImageSet,
    size: tuple[int, int] | None,
    stretch: bool,
    ahead: int,
) -> Iterator[RgbImage | None]:
    """Decoded images in order, at most ``ahead`` of them waiting in memory."""

    def one(index: int) -> RgbImage | None:
        try:
            image = images.image(index)
        except InputError:
            return None
        return image if size is None else resized(image, size, stretch=stretch)

    for start in range(0, len(images), ahead):
        yield from pool.map(one, range(start, min(start + ahead, len(images))))


def _allocate(count: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
    height, width = size
    needed = count * height * width * 3
    if needed > MAX_BYTES:
        raise InputError(
            "too_large",
            f"{count} images of {width}x{height} take {needed / 2**30:.1f} GiB, at most "
            f"{MAX_BYTES >> 30}; give a smaller size or a limit",
        )
    return np.empty((count, height, width, 3), np.uint8)
