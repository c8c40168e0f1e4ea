# SPDX-License-Identifier: Apache-2.0
"""Images as folders and zip files hold them, sorted by name and read one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spike_perception.bags.folder_files import MAX_FILES, FolderFiles
from spike_perception.errors import InputError
from spike_perception.sensing.image import ImageError, RgbImage, decode_compressed

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")


class ImageFiles(FolderFiles):
    """Image files, decoded when asked for, so that a set may be larger than memory."""

    kind = "images"
    suffixes = IMAGE_SUFFIXES

    def __iter__(self) -> Iterator[RgbImage]:
        for index in range(len(self)):
            yield self.image(index)

    def data(self, index: int) -> bytes:
        """Bytes of one image file as stored; refusals as :meth:`read`."""
        return self.read(self.names[index])

    def image(self, index: int) -> RgbImage:
        """One image, decoded: uint8 ``[H, W, 3]``, RGB.

        Raises:
            InputError: ``images_unreadable`` or a reason of
                :class:`~spike_perception.sensing.image.ImageError`; the message names the file.
        """
        try:
            return decode_compressed(self.data(index))
        except ImageError as error:
            raise ImageError(error.reason, f"{self.path}/{self.names[index]}: {error}") from error


class ImageSequence(ImageFiles):
    """The images directly inside one folder, in natural order of their names.

    Names sort naturally, ``frame2`` before ``frame10``; hidden files and files that are no images
    by their suffix are passed over. An image that cannot be decoded is an error that names it,
    never a silent skip: the position of every later frame would shift by one.

    Args:
        path: folder, zip file, or zip file followed by a folder inside it.

    Raises:
        InputError: ``images_missing`` if there is no such folder or no image in it,
            ``images_unreadable`` if the zip file is broken.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        images, folders = self._found(0)
        self.names = tuple(images)
        if not 0 < len(self.names) <= MAX_FILES:
            self.close()
            choices = ", ".join(f"{self.path}/{name}" for name in folders[:10])
            raise InputError(
                "images_missing",
                f"{self.path} holds {len(self.names)} images ({', '.join(self.suffixes)}); "
                + (f"try one of its folders: {choices}" if choices else "give a folder of images"),
            )
