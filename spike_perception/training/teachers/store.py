# SPDX-License-Identifier: Apache-2.0
"""Arrays computed image by image and kept on disk: resumed after a kill, never half read."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from spike_perception.errors import InputError

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 64 << 20
Rows = Mapping[str, NDArray[np.float32]]


class Images(Protocol):
    """What of an image set is needed here, such as an ``ImageSet``."""

    skipped: dict[str, str]

    @property
    def path(self) -> Path:
        """Where the set lies, or its name."""

    @property
    def id(self) -> str:
        """Of its content."""

    @property
    def names(self) -> Sequence[str]:
        """Of the images."""

    def __len__(self) -> int:
        """Number of images."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3] RGB; raises InputError after noting it in ``skipped``."""


@dataclass(frozen=True, eq=False)
class StoredArrays:
    """Arrays of an image set, row i of image i; rows of corrupt images are zero.

    Attributes:
        arrays: memory-mapped, float16 [N, ...].
        indices: images that could be decoded, int64 [M].
        skipped: the others, name to reason.
        folder: where they lie.
    """

    arrays: dict[str, NDArray[np.float16]]
    indices: NDArray[np.int64]
    skipped: dict[str, str]
    folder: Path


def stored(
    folder: Path,
    images: Images,
    compute: Callable[[list[NDArray[np.uint8]]], Rows],
    *,
    shard: int = 256,
    label: str = "encode",
    progress: bool = True,
) -> StoredArrays:
    """Arrays of an image set from disk; what is missing is computed and written first.

    Work goes shard by shard. A shard counts once it is on the disk, so a run that was killed goes
    on after its last whole shard. The folder appears under its name when all is done.

    Args:
        folder: place of these arrays alone; the caller's key must be in its name.
        images: the set.
        compute: decoded images to rows of every array, [B, ...].
        shard: images in one shard.
        label: text of the progress bar.
        progress: show it on a terminal.

    Raises:
        InputError: ``bad_cache`` if files there are not what they should be, ``images_missing`` if
            no image can be decoded, ``no_space``, ``cannot_write``.
    """
    if not (folder / MANIFEST).is_file():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _lock(folder.with_name(f"{folder.name}.lock")):
                if not (folder / MANIFEST).is_file():
                    _compute(folder, images, compute, shard, label, progress)
        except OSError as error:
            raise InputError("cannot_write", f"{folder} cannot be written: {error}") from error
    return _opened(folder, len(images))


def _compute(
    folder: Path,
    images: Images,
    compute: Callable[[list[NDArray[np.uint8]]], Rows],
    shard: int,
    label: str,
    progress: bool,
) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    state = _resume(partial, len(images))
    arrays: dict[str, NDArray[np.float16]] = {
        name: np.load(partial / f"{name}.npy", mmap_mode="r+", allow_pickle=False)
        for name in state["arrays"]
    }
    done, skipped = int(state["done"]), dict(state["skipped"])
    bar = tqdm(
        total=len(images),
        initial=done,
        desc=label,
        unit="image",
        disable=None if progress else True,
    )
    with bar, ThreadPoolExecutor(2) as pool:
        for start in range(done, len(images), shard):
            part = list(range(start, min(start + shard, len(images))))
            decoded = list(pool.map(lambda index: _decoded(images, index), part))
            whole = [
                (i, image) for i, image in zip(part, decoded, strict=True) if image is not None
            ]
            if whole:
                rows = compute([image for _, image in whole])
                if not arrays:
                    arrays = _allocated(partial, len(images), rows)
                for name, values in rows.items():
                    arrays[name][[i for i, _ in whole]] = values.astype(np.float16)
            for index, image in zip(part, decoded, strict=True):
                if image is None:
                    name = images.names[index]
                    skipped[name] = images.skipped[name]
            for array in arrays.values():
                _flush(array)
            state = {"done": part[-1] + 1, "arrays": _layout(arrays), "skipped": skipped}
            _write_json(partial / "progress.json", state)
            bar.update(len(part))
    if not arrays:
        raise InputError(
            "images_missing", f"none of the {len(images)} images of {images.path} can be decoded"
        )
    manifest = {
        "count": len(images),
        "data": images.id,
        "arrays": _layout(arrays),
        "skipped": skipped,
        "skipped_rows": [i for i, name in enumerate(images.names) if name in skipped],
    }
    _write_json(partial / MANIFEST, manifest)
    if folder.exists():  # without manifest: not one of ours that is whole
        shutil.rmtree(folder)
    partial.rename(folder)


def _decoded(images: Images, index: int) -> NDArray[np.uint8] | None:
    try:
        return images.image(index)
    except InputError:
        return None


def _resume(partial: Path, count: int) -> dict[str, Any]:
    """State of a run that was killed, or of a new one."""
    start: dict[str, Any] = {"done": 0, "arrays": {}, "skipped": {}}
    if partial.is_dir():
        try:
            state = _read_json(partial / "progress.json")
            for name, shape in state["arrays"].items():
                _check(partial / f"{name}.npy", [count, *shape])
            if 0 <= state["done"] <= count:
                return {**start, **state}
        except (InputError, KeyError, TypeError, AttributeError):
            pass  # begun and killed before its first shard, or damaged: begin again
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    return start


def _allocated(partial: Path, count: int, rows: Rows) -> dict[str, NDArray[np.float16]]:
    needed = sum(2 * count * int(np.prod(each.shape[1:])) for each in rows.values())
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise InputError(
            "no_space",
            f"{partial} needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free; give another "
            "folder, fewer images or a smaller token_dim",
        )
    return {
        name: open_memmap(
            partial / f"{name}.npy", mode="w+", dtype=np.float16, shape=(count, *values.shape[1:])
        )
        for name, values in rows.items()
    }


def _layout(arrays: Mapping[str, NDArray[np.float16]]) -> dict[str, list[int]]:
    return {name: [int(size) for size in each.shape[1:]] for name, each in arrays.items()}


def _opened(folder: Path, count: int) -> StoredArrays:
    manifest = _read_json(folder / MANIFEST)
    try:
        if manifest["count"] != count:
            raise InputError("bad_cache", f"{folder} is of another image set; delete it")
        arrays = {}
        for name, shape in manifest["arrays"].items():
            if not str(name).isidentifier():
                raise InputError("bad_cache", f"{folder} names an array {name!r}; delete it")
            arrays[name] = _check(folder / f"{name}.npy", [count, *shape])
        left = np.setdiff1d(np.arange(count), np.array(manifest["skipped_rows"], np.int64))
        return StoredArrays(arrays, left.astype(np.int64), dict(manifest["skipped"]), folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError("bad_cache", f"{folder} is damaged ({error}); delete it") from error


def _check(file: Path, shape: Sequence[int]) -> NDArray[np.float16]:
    try:
        array: NDArray[np.float16] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError("bad_cache", f"{file} cannot be read ({error}); delete it") from error
    if array.dtype != np.float16 or list(array.shape) != list(shape):
        raise InputError(
            "bad_cache",
            f"{file} is {array.dtype} {list(array.shape)}, not float16 {list(shape)}; delete it",
        )
    return array


def _flush(array: NDArray[np.float16]) -> None:
    if isinstance(array, np.memmap):
        array.flush()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise InputError("bad_cache", f"{file} exceeds {MAX_MANIFEST_BYTES} bytes; delete it")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("bad_cache", f"{file} cannot be read ({error}); delete it") from error
    if not isinstance(found, dict):
        raise InputError("bad_cache", f"{file} holds no JSON object; delete it")
    return found


def _write_json(file: Path, document: Mapping[str, Any]) -> None:
    fresh = file.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as stream:
        json.dump(document, stream)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)


@contextlib.contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Hold a file's lock: of two runs that want the same arrays, one waits for the other."""
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
