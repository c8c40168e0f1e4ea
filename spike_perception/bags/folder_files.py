# SPDX-License-Identifier: Apache-2.0
"""Files of one kind below a folder or in a zip file, sorted by name and read one at a time."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from spike_perception.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_FILE_BYTES = 256 << 20
"""Largest accepted file, unpacked: a zip entry that claims more is refused unread."""
MAX_FILES = 10_000_000
UNREADABLE = (OSError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What reading a damaged, encrypted or vanished file raises."""


class FolderFiles:
    """Files below one folder, in an order and read one at a time by their position.

    The folder may lie on disk (``DIR``), be a zip file (``FILE.zip``) or lie inside one
    (``FILE.zip/summer``). A subclass says which files it takes, by setting ``names``.

    Attributes:
        kind: what the files hold, in the plural; the reasons of refusals begin with it.
        suffixes: endings of the files that count, in lower case.
        path: the folder as given.
        names: the files' paths below it, with ``/`` between folders.

    Raises:
        InputError: ``KIND_missing`` if there is no such folder, ``KIND_unreadable`` if the zip
            file is broken.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    names: tuple[str, ...]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._prefix = ""
        if not self.path.is_dir():
            archive, self._prefix = split_at_zip(self.path, self.kind)
            self._zip = open_zip(archive, self.kind)

    def _found(self, depth: int) -> tuple[list[str], list[str]]:
        """Files so many folders deep in natural order, and the folders at the top."""
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
        kept = [name for name in inside if name.lower().endswith(self.suffixes) and _visible(name)]
        visible = [name for name in folders if _visible(name)]
        return sorted(kept, key=natural_key), sorted(visible, key=natural_key)

    def _by_class(self) -> tuple[tuple[str, ...], list[str]]:
        """Folders at the top, each a class, and the files one folder deep, class by class.

        Raises:
            InputError: ``KIND_missing`` without such files, ``empty_class`` for a folder without.
        """
        names, folders = self._found(1)
        if not 0 < len(names) <= MAX_FILES:
            deeper = ", ".join(f"{self.path}/{name}" for name in folders[:10])
            raise InputError(
                f"{self.kind}_missing",
                f"the folders in {self.path} hold {len(names)} {self.kind} "
                f"({', '.join(self.suffixes)}); expected is one folder of {self.kind} a class"
                + (f"; try one of {deeper}" if deeper else ""),
            )
        filled = {name.split("/")[0] for name in names}
        empty = [name for name in folders if name not in filled]
        if empty:
            raise InputError(
                "empty_class",
                f"{self.path} has {len(empty)} folders without {self.kind}: "
                f"{', '.join(empty[:10])}; each folder is a class: fill them, or take them away",
            )
        # Sorted by class first: "a b/1" must not come between "a/1" and "a/2".
        order = {name: k for k, name in enumerate(folders)}
        names.sort(key=lambda name: order[name.split("/")[0]])
        return tuple(folders), names

    def __len__(self) -> int:
        return len(self.names)

    def _holds(self, name: str) -> bool:
        """Whether there is a file of this name below the folder."""
        if self._zip is None:
            return (self.path / name).is_file()
        return self._prefix + name in self._zip.namelist()

    def read(self, name: str) -> bytes:
        """Bytes of one file below the folder, one of ``names`` or not.

        Raises:
            InputError: ``KIND_unreadable`` if the file is too large or cannot be read.
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
                    f"{self.kind}_unreadable",
                    f"{self.path}/{name} takes {size} bytes; at most {MAX_FILE_BYTES} are read",
                )
            return path.read_bytes() if self._zip is None else read_entry(self._zip, entry)
        except UNREADABLE as error:
            raise InputError(
                f"{self.kind}_unreadable", f"{self.path}/{name} cannot be read: {error}"
            ) from error

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


def spread(total: int, limit: int | None) -> list[int]:
    """Positions of ``limit`` of ``total`` things, spread evenly over all of them; None for all.

    Raises:
        InputError: ``invalid_option`` for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError("invalid_option", f"the limit is {limit}; at least 1")
    count = total if limit is None else min(limit, total)
    return [k * total // count for k in range(count)]


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


def split_at_zip(path: Path, kind: str = "images") -> tuple[Path, str]:
    """``FILE.zip/a/b`` as the zip file and the prefix ``a/b/`` of its entries.

    Raises:
        InputError: ``KIND_missing`` if neither the path nor a folder above it is a file.
    """
    for ancestor in (path, *path.parents):
        if ancestor.is_file():
            inner = path.relative_to(ancestor).as_posix()
            return ancestor, "" if inner == "." else f"{inner}/"
    raise InputError(
        f"{kind}_missing",
        f"{path} does not exist; allowed are a folder of {kind}, FILE.zip and FILE.zip/FOLDER",
    )


def open_zip(path: Path, kind: str = "images") -> zipfile.ZipFile:
    """A zip file.

    Raises:
        InputError: ``KIND_unreadable``.
    """
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise InputError(
            f"{kind}_unreadable", f"{path} is neither a folder nor a readable zip file: {error}"
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
