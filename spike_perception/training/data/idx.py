# SPDX-License-Identifier: Apache-2.0
"""Image sets in the IDX files of MNIST and its successors, such as Fashion-MNIST."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.identity import sha256_bytes, sha256_json
from spike_perception.sensing.image import RgbImage
from spike_perception.training.data.images import ImageSet

MAX_BYTES = 1 << 30
MAX_SIDE = 4096
MAX_IMAGES = 10_000_000
_UNSIGNED_BYTES = 0x08


class IdxImages(ImageSet):
    """An image set that was read from IDX files; grey images are given as RGB."""

    def __init__(
        self,
        path: Path,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        names: tuple[str, ...],
        classes: tuple[str, ...],
    ) -> None:
        """Make a set of images [N, h, w]; see :func:`open_idx`."""
        self._path = path
        self._pixels = pixels
        self.labels = labels
        self.names = names
        self.classes = classes
        self.id = sha256_json([sha256_bytes(pixels.tobytes()), labels.tolist(), list(classes)])
        self.skipped = {}

    @property
    def path(self) -> Path:
        """Where the set lies."""
        return self._path

    def image(self, index: int) -> RgbImage:
        """One image: uint8 [H, W, 3], RGB."""
        return np.repeat(self._pixels[index][:, :, None], 3, 2)

    def subset(self, indices: NDArray[np.int64]) -> IdxImages:
        """The set of these images, with the same classes."""
        names = tuple(self.names[int(index)] for index in indices)
        return IdxImages(
            self._path, self._pixels[indices], self.labels[indices], names, self.classes
        )


def idx_files(path: Path) -> tuple[Path, Path] | None:
    """Files of images and labels of ``FOLDER/SPLIT``, or None if there are none.

    ``FOLDER/train`` stands for ``FOLDER/train-images-idx3-ubyte`` and
    ``train-labels-idx1-ubyte``, packed (``.gz``) or not; ``test`` for ``t10k`` too.
    """
    for split in dict.fromkeys((path.name, {"test": "t10k"}.get(path.name, path.name))):
        for suffix in ("", ".gz"):
            images = path.parent / f"{split}-images-idx3-ubyte{suffix}"
            labels = path.parent / f"{split}-labels-idx1-ubyte{suffix}"
            if images.is_file() and labels.is_file():
                return images, labels
    return None


def open_idx(path: str | Path, classes: Sequence[str] = ()) -> IdxImages:
    """Open an image set in IDX files.

    Args:
        path: ``FOLDER/SPLIT``, see :func:`idx_files`.
        classes: what the labels 0, 1, ... are called; empty for the numbers themselves.

    Raises:
        InputError: ``images_missing``; ``images_unreadable`` for files that are no IDX files of
            bytes, that do not belong together, or that hold more labels than names were given.
    """
    where = Path(path)
    files = idx_files(where)
    if files is None:
        raise InputError(
            "images_missing",
            f"{where} stands for no IDX files; expected {where.name}-images-idx3-ubyte and "
            f"{where.name}-labels-idx1-ubyte, or both with .gz, in {where.parent}",
        )
    pixels, labels = _read(files[0], 3), _read(files[1], 1).astype(np.int64)
    if len(pixels) != len(labels) or not len(pixels):
        raise InputError(
            "images_unreadable", f"{where}: {len(pixels)} images do not fit {len(labels)} labels"
        )
    count = int(labels.max()) + 1
    names = tuple(classes) or tuple(str(label) for label in range(count))
    if count > len(names):
        raise InputError(
            "images_unreadable", f"{where} has {count} classes, but {len(names)} names were given"
        )
    return IdxImages(where, pixels, labels, tuple(f"{i}" for i in range(len(pixels))), names)


def _read(file: Path, axes: int) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes: 0, 0, type, axes, big-endian sizes, values."""
    opened = gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rb") as stream:
            header = stream.read(4 + 4 * axes)
            if len(header) != 4 + 4 * axes or header[:4] != bytes((0, 0, _UNSIGNED_BYTES, axes)):
                raise InputError("images_unreadable", f"{file} is no IDX file with {axes} axes")
            shape = tuple(np.frombuffer(header, ">u4", axes, 4).astype(np.int64).tolist())
            size = int(np.prod(shape, dtype=object))
            sides = all(0 < side <= MAX_SIDE for side in shape[1:])
            if size > MAX_BYTES or shape[0] > MAX_IMAGES or not sides:
                raise InputError(
                    "images_unreadable",
                    f"{file} states the shape {list(shape)}; allowed are {MAX_IMAGES} images of 1 "
                    f"to {MAX_SIDE} pixels a side, and {MAX_BYTES} bytes in all",
                )
            content = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError("images_unreadable", f"{file} cannot be read: {error}") from error
    if len(content) != size:
        raise InputError(
            "images_unreadable", f"{file} does not hold the {size} bytes that its header states"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)
