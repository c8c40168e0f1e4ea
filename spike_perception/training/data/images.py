# SPDX-License-Identifier: Apache-2.0
"""Labelled and unlabelled image sets, decoded one image at a time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.folder_files import MAX_FILE_BYTES, natural_key
from spike_perception.bags.images import IMAGE_SUFFIXES
from spike_perception.errors import InputError
from spike_perception.sensing.image import RgbImage, decode_compressed
from spike_perception.training.data.archive import Archive


class ImageSet:
    """Images of a folder or zip file in natural order of their names.

    Attributes:
        classes: names of the class folders, sorted; empty if the set is unlabelled.
        labels: index into ``classes``, int64 [N]; -1 where there is none.
        names: file names relative to the set's folder.
        id: SHA-256 of what the files are: names, sizes, and CRCs (zip) or times of last change.
        skipped: images that could not be decoded so far, name to reason.
    """

    def __init__(self, archive: Archive, names: tuple[str, ...], classes: tuple[str, ...]) -> None:
        """Make a set of some files of an archive; see :func:`open_images`."""
        self._archive = archive
        self.names = names
        self.classes = classes
        position = {name: index for index, name in enumerate(classes)}
        self.labels: NDArray[np.int64] = np.array(
            [position.get(_class_of(name), -1) for name in names], np.int64
        )
        self.id = archive.identity(names)
        self.skipped: dict[str, str] = {}

    @property
    def path(self) -> Path:
        """Where the set lies."""
        return self._archive.path

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> RgbImage:
        """One image, decoded: uint8 [H, W, 3], RGB.

        Raises:
            InputError: ``corrupt_image`` naming the file, which is then also in ``skipped``.
        """
        name = self.names[index]
        try:
            return decode_compressed(self._archive.read(name, MAX_FILE_BYTES))
        except InputError as error:
            self.skipped[name] = str(error)
            raise InputError("corrupt_image", f"{self.path}/{name}: {error}") from error

    def subset(self, indices: NDArray[np.int64]) -> ImageSet:
        """The set of these images, with the same classes."""
        names = tuple(self.names[int(index)] for index in indices)
        return ImageSet(self._archive, names, self.classes)

    def stems(self) -> tuple[str, ...]:
        """Names without folder and suffix, the keys of captions."""
        return tuple(PurePosixPath(name).stem for name in self.names)


def open_images(
    path: str | Path, split: str | None = None, *, limit: int | None = None
) -> ImageSet:
    """Open an image set.

    Images in one sub-folder a class make a labelled set, images without sub-folder an unlabelled
    one. A folder ``images`` between (as in Tiny-ImageNet's and Flickr8k's own layout) is no class.

    Args:
        path: folder, zip file, or zip file followed by a folder inside it (``FILE.zip/train``).
        split: sub-folder that holds the set, such as ``train``.
        limit: take at most so many images, evenly over the set.

    Raises:
        InputError: ``images_missing`` or ``images_unreadable``.
    """
    where = Path(path) / split if split else Path(path)
    archive = Archive(where)
    names = [name for name in archive.entries if name.lower().endswith(IMAGE_SUFFIXES)]
    by_depth = Counter(len(_folders(name)) for name in names)
    if not names or set(by_depth) - {0, 1} or len(by_depth) > 1:
        folders = sorted({name.split("/")[0] for name in names if "/" in name})
        inside = ", ".join(f"{where}/{each}" for each in folders[:8])
        raise InputError(
            "images_missing",
            f"{where} holds {len(names)} images in no layout of an image set; allowed are images "
            "alone, or one sub-folder a class" + (f"; try {inside}" if inside else ""),
        )
    names.sort(key=natural_key)
    if limit is not None and limit < len(names):
        names = [names[i] for i in np.linspace(0, len(names) - 1, max(limit, 0)).astype(int)]
    classes = {_class_of(name) for name in archive.entries if name.lower().endswith(IMAGE_SUFFIXES)}
    return ImageSet(archive, tuple(names), tuple(sorted(classes - {""})))


def _folders(name: str) -> list[str]:
    return [part for part in name.split("/")[:-1] if part.lower() != "images"]


def _class_of(name: str) -> str:
    folders = _folders(name)
    return folders[0] if folders else ""
