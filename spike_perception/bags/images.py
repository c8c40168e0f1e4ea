# SPDX-License-Identifier: Apache-2.0
"""Images as folders and zip files hold them, sorted by name and read one at a time."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from spike_perception.errors import InputError
from spike_perception.sensing.image import ImageError, RgbImage, decode_compressed

if TYPE_CHECKING:
    from typing_extensions import Self

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
MAX_FILE_BYTES = 256 << 20
"""Largest accepted image file, unpacked: a zip entry that claims more is refused unread."""
MAX_IMAGES = 10_000_000
UNREADABLE = (OSError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What reading a damaged, encrypted or vanished file raises."""


class ImageFiles:
    """Image files below one folder, in an order and read one at a time by their position.

    The folder may lie on disk (``DIR``), be a zip file (``FILE.zip``) or lie inside one
    (``FILE.zip/summer``). Images are decoded when asked for, so a set may be larger than memory.
    A subclass says which files it takes, by setting ``names``.

    Attributes:
        path: the folder as given.
        names: the images' paths below it, with ``/`` between folders.

    Raises:
        InputError: ``images_missing`` if there is no such folder, ``images_unreadable`` if the zip
            file is broken.
    """

    names: tuple[str, ...]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._prefix = ""
        if not self.path.is_dir():
            archive, self._prefix = split_at_zip(self.path)
            self._zip = open_zip(archive)

    def _found(self, depth: int) -> tuple[list[str], list[str]]:
        """Image files so many folders deep in natural order, and the folders at the top."""
        if self._zip is None:
            files = [each for each in self.path.glob("*/" * depth + "*") if each.is_file()]
            inside = [each.relative_to(self.path).as_posix() for each in files]
            folders = {each.name for each in self.path.iterdir() if each.is_dir()}
        else:
            below = [
                name[len(self._prefix) :]
                for name in self._zip.namelist()
                if name.startswith(self._prefix) and not name.startswith("__MACOSX/")
            ]
            inside = [name for name in below if name.count("/") == depth]
            folders = {name.split("/")[0] for name in below if "/" in name}
        images = [
            name for name in inside if name.lower().endswith(IMAGE_SUFFIXES) and _visible(name)
        ]
        visible = [name for name in folders if _visible(name)]
        return sorted(images, key=natural_key), sorted(visible, key=natural_key)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[RgbImage]:
        for index in range(len(self)):
            yield self.image(index)

    def read(self, name: str) -> bytes:
        """Bytes of one file below the folder, an image or not.

        Raises:
            InputError: ``images_unreadable`` if the file is too large or cannot be read.
        """
        try:
            if self._zip is None:
                path = self.path / name
                size = path.stat().st_size
            else:
                entry = self._zip.getinfo(self._prefix + name)
                size = entry.file_size
            if size > MAX_FILE_BYTES:
                raise InputError(
                    "images_unreadable",
                    f"{self.path}/{name} takes {size} bytes; at most {MAX_FILE_BYTES} are read",
                )
            return path.read_bytes() if self._zip is None else read_entry(self._zip, entry)
        except UNREADABLE as error:
            raise InputError(
                "images_unreadable", f"{self.path}/{name} cannot be read: {error}"
            ) from error

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

    def close(self) -> None:
        """Close the zip file, if it is one."""
        if self._zip is not None:
            self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


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
        if not 0 < len(self.names) <= MAX_IMAGES:
            self.close()
            choices = ", ".join(f"{self.path}/{name}" for name in folders[:10])
            raise InputError(
                "images_missing",
                f"{self.path} holds {len(self.names)} images ({', '.join(IMAGE_SUFFIXES)}); "
                + (f"try one of its folders: {choices}" if choices else "give a folder of images"),
            )


def _visible(name: str) -> bool:
    """Whether no part of a path is hidden (``.git``) or empty, as hostile zip entries have it."""
    return all(part and not part.startswith(".") for part in name.split("/"))


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key under which runs of digits within names count as numbers, before letters."""
    key: list[tuple[int, str]] = []
    for part in re.findall(r"[0-9]+|[^0-9]+", name.casefold()):
        number = part.lstrip("0")
        # Without leading zeros, the longer number is the larger one, however long.
        key.append((len(number), number) if part[0] in "0123456789" else (_LETTERS, part))
    return key, name


_LETTERS = 1 << 32  # sorts after every number


def split_at_zip(path: Path) -> tuple[Path, str]:
    """``FILE.zip/a/b`` as the zip file and the prefix ``a/b/`` of its entries.

    Raises:
        InputError: ``images_missing`` if neither the path nor a folder above it is a file.
    """
    for ancestor in (path, *path.parents):
        if ancestor.is_file():
            inner = path.relative_to(ancestor).as_posix()
            return ancestor, "" if inner == "." else f"{inner}/"
    raise InputError(
        "images_missing",
        f"{path} does not exist; allowed are a folder of images, FILE.zip and FILE.zip/FOLDER",
    )


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip file.

    Raises:
        InputError: ``images_unreadable``.
    """
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(
            "images_unreadable", f"{path} is neither a folder nor a readable zip file: {error}"
        ) from error


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """One entry, without ever unpacking more than the size that it states.

    ``ZipFile.read`` unpacks all that there is before it cuts it to that size, and bzip2 and LZMA
    unpack in pieces of any size; so the size is asked for, and those two are refused.

    Raises:
        zipfile.BadZipFile: also for a compression that is not allowed; others of
            :data:`UNREADABLE`.
    """
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(
            f"its compression (method {entry.compress_type}) is not allowed; pack it with deflate"
        )
    with archive.open(entry) as stream:
        return stream.read(entry.file_size)
