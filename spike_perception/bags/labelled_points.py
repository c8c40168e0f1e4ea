# SPDX-License-Identifier: Apache-2.0
"""Objects as point sets with a class each: one ``.npz`` file, or one sub-folder a class.

Everything is read once when the set is opened, so that what cannot be read is known before a long
run starts: it is left out and named in ``skipped``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.folder_files import FolderFiles, open_zip, spread
from spike_perception.bags.npz_array import read_npz_array
from spike_perception.bags.point_files import POINT_SUFFIXES, decode_points
from spike_perception.errors import InputError
from spike_perception.identity import sha256_bytes, sha256_json
from spike_perception.sensing.cluster_input import z_up_from_y_up
from spike_perception.sensing.points import MAX_POINTS, finite_points

UP_AXES = ("y", "z")
MAX_OBJECTS = 1 << 22
MAX_CLASSES = 1 << 16
MAX_NAME_CHARACTERS = 256


@dataclass(frozen=True, eq=False)
class PointSet:
    """Objects as points, some or all of a data set.

    Attributes:
        path: where the set lies, as given.
        classes: names of the classes; empty if the set is unlabelled.
        labels: int64 ``[N]``, position of each object's class in ``classes``; -1 for none.
        names: of the objects: ``FOLDER/FILE``, or ``ARRAY[ROW]`` of an ``.npz`` file.
        id: SHA-256 of the content: points as stored, labels and names of classes.
        skipped: objects that were left out because they cannot be read, by name, with the reason.
        up: axis that is up in the file, "y" or "z".
    """

    path: Path
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    names: list[str]
    id: str
    skipped: dict[str, str]
    up: str
    _read: Callable[[int], NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.names)

    def points(self, index: int) -> NDArray[np.float32]:
        """One object: float32 ``[P, 3]``, z up, all finite; in the file's unit, metres as a rule.

        Raises:
            InputError: if its file has changed since the set was opened and cannot be read.
        """
        xyz = self._read(index)
        return np.asarray(z_up_from_y_up(xyz) if self.up == "y" else xyz, np.float32)

    def take(self, rows: NDArray[np.int64]) -> PointSet:
        """The objects at these positions, in this order."""
        read = self._read
        return replace(
            self,
            labels=self.labels[rows],
            names=[self.names[k] for k in rows],
            id=sha256_json([self.id, rows.tolist()]),
            _read=lambda index: read(int(rows[index])),
        )


def open_point_set(
    path: str | Path, split: str | None = None, *, up: str = "z", limit: int | None = None
) -> PointSet:
    """Open a data set of objects.

    Args:
        path: an ``.npz`` file (``points`` ``[N, P, 3]``, float, or integer times ``scale``;
            ``label`` ``[N]``; ``classes``, their names), or a folder or zip file, or a folder
            inside one, with one sub-folder a class of .bin, .npy, .pcd and .ply files; such files
            without sub-folders are unlabelled. ``FILE.npz/SPLIT`` is the split of an ``.npz``
            file.
        split: of an ``.npz`` file with several: ``points_SPLIT`` and ``label_SPLIT``; of a folder:
            the sub-folder that holds the classes.
        up: axis that is up in the file, "z", or "y" as some collections of shapes have it.
        limit: take so many objects at most, spread evenly over all of them; None for all.

    Raises:
        InputError: ``points_missing``, ``points_unreadable``, ``empty_class``, ``invalid_option``,
            or ``no_readable_object`` if all would be skipped.
    """
    path = Path(path)
    if up not in UP_AXES:
        raise InputError("invalid_option", f"the axis {up!r} cannot be up; it is one of {UP_AXES}")
    if path.suffix.lower() == ".npz" and path.is_file():
        found = _from_npz(path, split, up, limit)
    elif path.parent.suffix.lower() == ".npz" and path.parent.is_file() and split is None:
        found = _from_npz(path.parent, path.name, up, limit)
    else:
        found = _from_folder(path / split if split else path, up, limit)
    if not len(found):
        raise InputError(
            "no_readable_object",
            f"none of the {len(found.skipped)} objects in {path} can be read"
            + "".join(f"; the first, {name}: {why}" for name, why in [*found.skipped.items()][:1]),
        )
    return found


# --- folders ------------------------------------------------------------------------------------


class PointFiles(FolderFiles):
    """Files of points in one sub-folder a class, or, where no sub-folder has any, in none.

    Attributes:
        classes: names of the sub-folders; empty where the files are not in any.
    """

    kind = "points"
    suffixes = POINT_SUFFIXES

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        try:
            flat = self._found(0)[0]
            self.classes, names = ((), flat) if flat else self._by_class()
        except InputError:
            self.close()
            raise
        self.names = tuple(names)

    def points(self, name: str) -> NDArray[np.float32]:
        """The finite points of one file, float32 ``[P, 3]``; the error names the file."""
        try:
            return decode_points(self.read(name), Path(name).suffix).xyz
        except InputError as error:
            raise type(error)(error.reason, f"{self.path}/{name}: {error}") from error


def _from_folder(path: Path, up: str, limit: int | None) -> PointSet:
    files = PointFiles(path)
    names, skipped, digests = list[str](), dict[str, str](), list[str]()
    for k in spread(len(files), limit):
        name = files.names[k]
        try:
            files.points(name)
            digest = sha256_bytes(files.read(name))
        except InputError as error:
            skipped[name] = f"{error.reason}: {error}"
            continue
        names.append(name)
        digests.append(digest)
    labels = class_labels(files.classes, names)
    identity = sha256_json([digests, labels.tolist(), files.classes])
    return PointSet(
        path,
        files.classes,
        labels,
        names,
        identity,
        skipped,
        up,
        lambda index: files.points(names[index]),
    )


def class_labels(classes: tuple[str, ...], names: list[str]) -> NDArray[np.int64]:
    """int64 ``[N]``, the class of each file ``FOLDER/FILE``; -1 where there are no classes."""
    position = {name: k for k, name in enumerate(classes)}
    return np.array([position.get(name.split("/")[0], -1) for name in names], np.int64)


# --- .npz ---------------------------------------------------------------------------------------


def _from_npz(path: Path, split: str | None, up: str, limit: int | None) -> PointSet:
    with open_zip(path, "points") as archive:
        keys = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
        key, label_key = _keys(path, keys, split)
        points = _array(path, archive, key, "iuf", 3)
        scale, classes, labels = 1.0, tuple[str, ...](), None
        if "scale" in keys:
            scale = float(_array(path, archive, "scale", "iuf", 0))
        if "classes" in keys:
            classes = _class_names(path, _array(path, archive, "classes", "U", 1))
        if label_key in keys:
            labels = _array(path, archive, label_key, "iu", 1)
        elif classes:
            raise _wrong(path, f"it has classes but no {label_key}; there are {sorted(keys)[:10]}")
    if points.shape[2] != 3 or not points.shape[0] or not 0 < points.shape[1] <= MAX_POINTS:
        raise _wrong(path, f"{key} is {list(points.shape)}; expected are objects [N, P, 3]")
    if points.shape[0] > MAX_OBJECTS or not np.isfinite(scale) or scale <= 0:
        raise _wrong(path, f"{len(points)} objects (at most {MAX_OBJECTS}) at a scale of {scale}")
    if labels is None:
        classes, numbers = (), np.full(len(points), -1, np.int64)
    else:
        numbers = labels.astype(np.int64)
        if labels.shape != points.shape[:1] or numbers.min() < 0:
            raise _wrong(path, f"{label_key} is {list(labels.shape)}; expected one of 0, 1 … each")
        classes = classes or tuple(str(k) for k in range(min(int(numbers.max()), MAX_CLASSES) + 1))
        if numbers.max() >= len(classes):
            raise _wrong(path, f"{label_key} names class {numbers.max()} of {len(classes)}")
    kept, names, skipped = list[int](), list[str](), dict[str, str]()
    for k in spread(len(points), limit):
        if np.isfinite(points[k]).all(axis=1).any():
            kept.append(k)
            names.append(f"{key}[{k}]")
        else:
            skipped[f"{key}[{k}]"] = "no_finite_point: no point has three finite coordinates"
    points, numbers = points[kept], numbers[kept]
    little = points.astype(points.dtype.newbyteorder("<"), copy=False)
    identity = sha256_json(
        [sha256_bytes(little.tobytes()), str(little.dtype), scale, numbers.tolist(), classes]
    )

    def read(index: int) -> NDArray[np.float32]:
        return finite_points(np.asarray(points[index] * scale, np.float32)).xyz

    return PointSet(path, classes, numbers, names, identity, skipped, up, read)


def _keys(path: Path, keys: set[str], split: str | None) -> tuple[str, str]:
    """Names of the arrays with the points and the labels of a split."""
    splits = sorted(key.removeprefix("points_") for key in keys if key.startswith("points_"))
    if split is None and "points" not in keys and len(splits) == 1:
        split = splits[0]
    key = "points" if split is None else f"points_{split}"
    if key not in keys:
        raise InputError(
            "points_missing",
            f"{path} has no array {key}; "
            + (f"its splits are {', '.join(splits)}" if splits else f"it has {sorted(keys)[:10]}"),
        )
    return key, "label" if split is None else f"label_{split}"


def _array(
    path: Path, archive: zipfile.ZipFile, key: str, kinds: str, dimensions: int
) -> NDArray[Any]:
    try:
        return read_npz_array(archive, key, kinds, dimensions)
    except ValueError as error:
        raise _wrong(path, str(error)) from error


def _class_names(path: Path, array: NDArray[Any]) -> tuple[str, ...]:
    if len(array) > MAX_CLASSES or array.dtype.itemsize > 4 * MAX_NAME_CHARACTERS:
        raise _wrong(
            path,
            f"{len(array)} classes of {array.dtype}; at most {MAX_CLASSES} of "
            f"{MAX_NAME_CHARACTERS} characters",
        )
    return tuple(str(each) for each in array)


def _wrong(path: Path, what: str) -> InputError:
    return InputError("points_unreadable", f"{path} cannot be read: {what}")
