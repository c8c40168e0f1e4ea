# SPDX-License-Identifier: Apache-2.0
"""Images with a class each: one sub-folder a class, in a folder or a zip file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from spike_perception.bags.folder_files import spread
from spike_perception.bags.images import ImageFiles
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
            self.classes, names = self._by_class()
            chosen = spread(len(names), limit)
        except InputError:
            self.close()
            raise
        self.names = tuple(names[k] for k in chosen)
        position = {name: k for k, name in enumerate(self.classes)}
        self.labels: npt.NDArray[np.int64] = np.array(
            [position[name.split("/")[0]] for name in self.names], np.int64
        )
