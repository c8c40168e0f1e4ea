# SPDX-License-Identifier: Apache-2.0
"""Sets of shapes in memory, as the training of point students takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.labelled_points import open_point_set
from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.errors import InputError
from spike_perception.identity import sha256_file, sha256_json

#: Words that name a thing that may show a class, class by class. Who holds a class out holds these
#: out too; each is looked for as a part of a name, so ``chair`` covers ``armchair``.
KIN: dict[str, tuple[str, ...]] = {
    "bathtub": ("bath", "jacuzzi", "tub"),
    "bed": (
        "bed",
        "crib",
        "futon",
        "cot",
        "mattress",
        "bunk",
        "hammock",
        "sleeping bag",
        "tatami",
    ),
    "chair": ("chair", "seat", "armchair", "pool lounge"),
    "desk": ("desk", "office table", "technical table", "workbench", "dressing table"),
    "dresser": (
        "dresser",
        "drawers",
        "chest",
        "commode",
        "cupboard",
        "sideboard",
        "cabinet",
        "vanity",
        "locker",
    ),
    "monitor": ("monitor", "tv", "television", "screen", "imac", "display"),
    "night stand": ("night", "bedside", "side table", "chest", "drawers", "cabinet"),
    # A whole "living room" shows both of them.
    "sofa": ("sofa", "couch", "futon", "armchair", "settee", "lounge", "living room"),
    "table": ("table", "island", "living room"),
    "toilet": ("toilet", "lavatory", "bidet", "urinal", "potty"),
}


@dataclass(frozen=True, eq=False)
class Shapes:
    """Shapes of one number of points.

    Attributes:
        name: of the set, for people.
        points: float32 [M, P, 3], z up, unit sphere: centred on the mean, the farthest at 1.
        labels: int64 [M], index into ``classes``; -1 for none.
        classes: names, underscores as spaces.
        id: SHA-256 of what was read and how.
        skipped: shapes that could not be read, name to reason.
        colours: of the points, float32 [M, P, 3] in 0..1, where the set has them.
        pictures: file with pictures of each shape, one below the other, where the set has them.
    """

    name: str
    points: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    id: str
    skipped: dict[str, str]
    colours: NDArray[np.float32] | None = None
    pictures: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.points)

    def subset(self, rows: NDArray[np.int64]) -> Shapes:
        """These shapes alone, with the same classes."""
        return replace(
            self,
            points=self.points[rows],
            labels=self.labels[rows],
            id=sha256_json([self.id, rows.tolist()]),
            colours=None if self.colours is None else self.colours[rows],
            pictures=tuple(self.pictures[row] for row in rows) if self.pictures else (),
        )


def open_shapes(
    path: str | Path,
    split: str | None = None,
    *,
    points: int = 1024,
    only: Sequence[str] | None = None,
    without: Sequence[str] | None = None,
    limit: int | None = None,
    up: str = "z",
) -> Shapes:
    """Read shapes that :func:`~spike_perception.bags.labelled_points.open_point_set` reads.

    Args:
        path: ``.npz`` file, or folder or zip with one sub-folder a class. Files ``.npy`` in a
            folder may have red, green and blue (0..1) as their fourth to sixth column, and pictures
            beside them (``.png``), as ``spike-train meshes`` writes them.
        split: of an ``.npz`` file, or a sub-folder.
        points: of each shape; thinned evenly in their order, or repeated.
        only: keep these classes alone, in this order.
        without: leave out these classes and what may show one (see :data:`KIN`): neither their
            shapes nor their names remain.
        limit: shapes at most, spread evenly over the set.
        up: axis that is up in the file, "z" or "y".

    Raises:
        InputError: of the reader; ``unknown_class`` for one in ``only`` that the set lacks;
            ``no_readable_object`` if nothing is left.
    """
    found = open_point_set(path, split, up=up, limit=limit)
    names = tuple(plain(each) for each in found.classes)
    classes = tuple(
        each for each in chosen(names, only) if not any(shows(each, held) for held in without or ())
    )
    position = {name: index for index, name in enumerate(classes)}
    labels = np.array(
        [position.get(names[each], -1) if each >= 0 else -1 for each in found.labels], np.int64
    )
    kept = np.arange(len(found))
    if only is not None or without is not None:
        kept = np.flatnonzero(labels >= 0)
    if not len(kept):
        raise InputError(
            "no_readable_object", f"{path} has no shape of the classes {', '.join(classes)}"
        )
    clouds = np.empty((len(kept), points, 6), np.float32)
    coloured = 0
    # There are none for what lies in an archive.
    files = [found.path / found.names[index] for index in kept]
    for row, (index, file) in enumerate(zip(kept, files, strict=True)):
        xyz = found.points(int(index))
        colours = _colours(file, len(xyz))
        coloured += colours is not None
        cloud = np.concatenate([xyz, np.zeros_like(xyz) if colours is None else colours], 1)
        clouds[row] = prepare_points(cloud, {**_PREPARE, "points": points})
    pictures = tuple(file.with_suffix(".png") for file in files)
    if not all(each.is_file() for each in pictures):
        pictures = ()
    digests = [sha256_file(each) for each in pictures]
    return Shapes(
        Path(path).stem,
        np.ascontiguousarray(clouds[..., :3]),
        labels[kept],
        classes,
        sha256_json([found.id, found.up, points, list(classes), kept.tolist(), digests]),
        found.skipped,
        np.ascontiguousarray(clouds[..., 3:]) if coloured == len(kept) else None,
        pictures,
    )


_PREPARE = {"channels": ["x", "y", "z", "red", "green", "blue"], "normalise": "unit_sphere"}


def plain(name: str) -> str:
    """A class name as a text tower should read it: lower case, spaces for underscores."""
    return " ".join(name.replace("_", " ").lower().split())


def shows(name: str, held: str) -> bool:
    """Whether a thing of that name may show the class that is held out."""
    name, held = plain(name), plain(held)
    return any(word in name for word in (held, *KIN.get(held, ())))


def chosen(names: tuple[str, ...], only: Sequence[str] | None) -> tuple[str, ...]:
    """The classes of ``only``, or all.

    Raises:
        InputError: ``unknown_class``.
    """
    if only is None:
        return names
    wanted = tuple(dict.fromkeys(plain(each) for each in only))
    missing = [each for each in wanted if each not in names]
    if missing:
        raise InputError(
            "unknown_class",
            f"the set has no class {', '.join(missing)}; its classes are {', '.join(names)}",
        )
    return wanted


def _colours(file: Path, count: int) -> NDArray[np.float32] | None:
    """Colours of a ``.npy`` file whose points are all finite, float32 [P, 3]."""
    if file.suffix != ".npy" or not file.is_file():
        return None
    table = np.load(file, mmap_mode="r", allow_pickle=False)
    if table.shape != (count, 6):
        return None
    return np.asarray(np.clip(table[:, 3:], 0.0, 1.0), np.float32)
