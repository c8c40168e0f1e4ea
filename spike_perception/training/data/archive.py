# SPDX-License-Identifier: Apache-2.0
"""Files below a folder, or below a folder inside a zip file, by their relative names."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from spike_perception.bags.folder_files import UNREADABLE, open_zip, read_entry, split_at_zip
from spike_perception.errors import InputError
from spike_perception.identity import sha256_json

MAX_FILES = 10_000_000


@dataclass(frozen=True)
class Entry:
    """One file: what identifies its content without reading it.

    Attributes:
        bytes: size unpacked.
        mark: CRC-32 in a zip file, time of last change (ns) in a folder.
    """

    bytes: int
    mark: int


class Archive:
    """Read-only view of ``DIR``, ``FILE.zip`` or ``FILE.zip/FOLDER``.

    Attributes:
        path: as given.
        entries: every file below it by its name relative to it, with ``/`` between folders. Hidden
            files and macOS's copies are left out.
    """

    def __init__(self, path: Path) -> None:
        """List the files.

        Raises:
            InputError: ``images_missing`` if there is no such folder or file,
                ``images_unreadable`` if the zip file is broken.
        """
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._prefix = ""
        if path.is_dir():
            found = {
                each.relative_to(path).as_posix(): each
                for each in path.rglob("*")
                if each.is_file()
            }
            stats = {name: file.stat() for name, file in found.items() if _visible(name)}
            self.entries = {n: Entry(s.st_size, s.st_mtime_ns) for n, s in stats.items()}
        else:
            file, self._prefix = split_at_zip(path)
            self._zip = open_zip(file)
            start = len(self._prefix)
            self.entries = {
                each.filename[start:]: Entry(each.file_size, each.CRC)
                for each in self._zip.infolist()
                if each.filename.startswith(self._prefix)
                and not each.is_dir()
                and _visible(each.filename[start:])
            }
        if len(self.entries) > MAX_FILES:
            raise InputError(
                "images_unreadable", f"{path} holds {len(self.entries)} files, at most {MAX_FILES}"
            )

    def read(self, name: str, limit: int) -> bytes:
        """Bytes of one file.

        Raises:
            InputError: ``images_unreadable`` if it takes more than ``limit`` bytes or cannot be
                read.
        """
        size = self.entries[name].bytes
        if size > limit:
            raise InputError(
                "images_unreadable", f"{self.path}/{name} takes {size} bytes; at most {limit}"
            )
        try:
            if self._zip is None:
                return (self.path / name).read_bytes()
            return read_entry(self._zip, self._zip.getinfo(self._prefix + name))
        except UNREADABLE as error:
            raise InputError(
                "images_unreadable", f"{self.path}/{name} cannot be read: {error}"
            ) from error

    def identity(self, names: tuple[str, ...]) -> str:
        """SHA-256 over names, sizes and marks of some files."""
        listed = [(name, self.entries[name].bytes, self.entries[name].mark) for name in names]
        return sha256_json([list(each) for each in listed])


def _visible(name: str) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
