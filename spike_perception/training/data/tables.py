# SPDX-License-Identifier: Apache-2.0
"""Text that comes with image sets: captions and the words of their classes."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath

from spike_perception.errors import InputError
from spike_perception.training.data.archive import Archive

MAX_TABLE_BYTES = 256 << 20
MAX_TEXT_LENGTH = 4096


def read_captions(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Captions of photos, by the stem of the photo's file name.

    Args:
        path: ``captions.csv`` with the columns ``image`` and ``caption``, or a folder or zip file
            that holds it (``FILE.zip``, ``FILE.zip/FOLDER``).

    Raises:
        InputError: ``captions_missing``, ``bad_captions``, or as for images.
    """
    text = _table(Path(path), "captions.csv")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    found: dict[str, list[str]] = {}
    try:
        fields = set(rows.fieldnames or ())
        if not {"image", "caption"} <= fields:
            raise InputError(
                "bad_captions",
                f"{path} has the columns {', '.join(sorted(fields))[:200]}; needed are image and "
                "caption",
            )
        for row in rows:
            caption = (row["caption"] or "").strip()[:MAX_TEXT_LENGTH]
            if row["image"] and caption:
                found.setdefault(PurePosixPath(row["image"]).stem, []).append(caption)
    except csv.Error as error:
        raise InputError("bad_captions", f"{path}, line {rows.line_num}: {error}") from error
    if not found:
        raise InputError("bad_captions", f"{path} holds no caption")
    return {stem: tuple(captions) for stem, captions in found.items()}


def read_class_words(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Words of class folders, as Tiny-ImageNet lists them: WNID, tab, names between commas.

    Args:
        path: ``classes.tsv`` or ``words.txt``, or a folder or zip file that holds ``classes.tsv``.

    Raises:
        InputError: ``captions_missing``, ``bad_captions``, or as for images.
    """
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(_table(Path(path), "classes.tsv").splitlines(), 1):
        folder, tab, names = line.partition("\t")
        words = tuple(each.strip() for each in names.split(",") if each.strip())
        if not tab or not words:
            if not line.strip():
                continue
            raise InputError(
                "bad_captions",
                f"{path}, line {number}: expected FOLDER, a tab, names; got {line!r}",
            )
        found[folder.strip()] = words
    return found


def _table(path: Path, name: str) -> str:
    if path.is_file() and path.suffix.lower() != ".zip":
        path, name = path.parent, path.name
        if (path / name).stat().st_size > MAX_TABLE_BYTES:
            raise InputError("bad_captions", f"{path / name} exceeds {MAX_TABLE_BYTES} bytes")
        data = (path / name).read_bytes()
    else:
        archive = Archive(path)
        if name not in archive.entries:
            raise InputError("captions_missing", f"{path} holds no {name}")
        data = archive.read(name, MAX_TABLE_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("bad_captions", f"{path}/{name} is no UTF-8 text: {error}") from error
