# SPDX-License-Identifier: Apache-2.0
"""Image sequences as folders and zip files hold them, sorted by name and read one at a time."""

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


class ImageSequence:
    """The images directly inside one folder, in natural order of their names.

    The folder may lie on disk (``DIR``), be a zip file (``FILE.zip``) or lie inside one
    (``FILE.zip/summer``). Names sort naturally, ``frame2`` before ``frame10``; hidden files and
    files that are no images by their suffix are passed over. Images are decoded when asked for,
    so a sequence may be larger than memory. An image that cannot be decoded is an error that
    names it, never a silent skip: the position of every later frame would shift by one.

    Args:
        path: folder, zip file, or zip file followed by a folder inside it.

    Raises:
        InputError: ``images_missing`` if there is no such folder or no image in it,
            ``images_unreadable`` if the zip file is broken.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._prefix = ""
        if self.path.is_dir():
            entries = [each.name for each in self.path.iterdir() if each.is_file()]
            folders = [each.name for each in self.path.iterdir() if each.is_dir()]
        else:
            archive, self._prefix = _split_at_zip(self.path)
            self._zip = _open_zip(archive)
            inside = [
                name[len(self._prefix) :]
                for name in self._zip.namelist()
                if name.startswith(self._prefix) and not name.startswith("__MACOSX/")
            ]
            entries = [name for name in inside if name and "/" not in name]
            folders = sorted({name.split("/")[0] for name in inside if "/" in name})
        self.names = tuple(
            sorted(
                (
                    name
                    for name in entries
                    if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
                ),
                key=natural_key,
            )
        )
        if not 0 < len(self.names) <= MAX_IMAGES:
            self.close()
            choices = ", ".join(f"{self.path}/{name}" for name in sorted(folders)[:10])
            raise InputError(
                "images_missing",
                f"{self.path} holds {len(self.names)} images ({', '.join(IMAGE_SUFFIXES)}); "
                + (f"try one of its folders: {choices}" if choices else "give a folder of images"),
            )

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[RgbImage]:
        for index in range(len(self)):
            yield self.image(index)

    def data(self, index: int) -> bytes:
        """Bytes of one image file as stored.

        Raises:
            InputError: ``images_unreadable`` if the file is too large or cannot be read.
        """
        name = self.names[index]
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
            # zipfile stops at the stated size, so the check above bounds what is unpacked.
            return path.read_bytes() if self._zip is None else self._zip.read(entry)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise InputError(
                "images_unreadable", f"{self.path}/{name} cannot be read: {error}"
            ) from error

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


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key under which runs of digits within names count as numbers, before letters."""
    key: list[tuple[int, str]] = []
    for part in re.findall(r"[0-9]+|[^0-9]+", name.casefold()):
        number = part.lstrip("0")
        # Without leading zeros, the longer number is the larger one, however long.
        key.append((len(number), number) if part[0] in "0123456789" else (_LETTERS, part))
    return key, name


_LETTERS = 1 << 32  # sorts after every number


def _split_at_zip(path: Path) -> tuple[Path, str]:
    """``FILE.zip/a/b`` as the zip file and the prefix ``a/b/`` of its entries."""
    for ancestor in (path, *path.parents):
        if ancestor.is_file():
            inner = path.relative_to(ancestor).as_posix()
            return ancestor, "" if inner == "." else f"{inner}/"
    raise InputError(
        "images_missing",
        f"{path} does not exist; allowed are a folder of images, FILE.zip and FILE.zip/FOLDER",
    )


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(
            "images_unreadable", f"{path} is neither a folder nor a readable zip file: {error}"
        ) from error
