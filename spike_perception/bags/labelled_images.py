# SPDX-License-Identifier: Apache-2.0
"""Images with a class each: one sub-folder a class, in a folder or a zip file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from spike_perception.bags.images import IMAGE_SUFFIXES, MAX_IMAGES, ImageFiles
from spike_perception.errors import InputError


class LabelledImages(ImageFiles):
    """The images one folder deep; the folder's name is their class.

    Classes and, within a class, images are in natural order of their names. Files beside the
    folders, hidden files and folders, and files that are no images by their suffix are passed
    over. An image that cannot be decoded is refused when it is asked for, with its name.

    Attributes:
        classes: names of the folders.
        labels: int64 ``[N]``, position of each image's folder in ``classes``.
        names: paths of the images, ``FOLDER/FILE``.

    Args:
        path: folder, zip file, or zip file followed by a folder inside it.
        limit: take so many images at most, spread evenly over all of them, so that every class
            keeps its share; None for all.

    Raises:
        InputError: ``images_missing`` if there is no such folder or no image in its sub-folders,
            ``empty_class`` for a sub-folder without an image, ``images_unreadable`` if the zip
            file is broken, ``invalid_option`` for a limit below 1.
    """

    def __init__(self, path: str | Path, limit: int | None = None) -> None:
        super().__init__(path)
        try:
            self.classes, names = self._classes()
            if limit is not None and limit < 1:
                raise InputError("invalid_option", f"the limit is {limit} images; at least 1")
        except InputError:
            self.close()
            raise
        total = len(names)
        count = total if limit is None else min(limit, total)
        self.names = tuple(names[k * total // count] for k in range(count))
        position = {name: k for k, name in enumerate(self.classes)}
        self.labels: npt.NDArray[np.int64] = np.array(
            [position[name.split("/")[0]] for name in self.names], np.int64
        )

    def _classes(self) -> tuple[tuple[str, ...], list[str]]:
        names, folders = self._found(1)
        if not 0 < len(names) <= MAX_IMAGES:
            deeper = ", ".join(f"{self.path}/{name}" for name in folders[:10])
            raise InputError(
                "images_missing",
                f"the folders in {self.path} hold {len(names)} images "
                f"({', '.join(IMAGE_SUFFIXES)}); expected is one folder of images a class"
                + (f"; try one of {deeper}" if deeper else ""),
            )
        filled = {name.split("/")[0] for name in names}
        empty = [name for name in folders if name not in filled]
        if empty:
            raise InputError(
                "empty_class",
                f"{self.path} has {len(empty)} folders without an image: "
                f"{', '.join(empty[:10])}; each folder is a class: fill them, or take them away",
            )
        # Sorted by class first: "a b/1" must not come between "a/1" and "a/2".
        order = {name: k for k, name in enumerate(folders)}
        names.sort(key=lambda name: order[name.split("/")[0]])
        return tuple(folders), names
