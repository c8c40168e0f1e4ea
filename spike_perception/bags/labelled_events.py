# SPDX-License-Identifier: Apache-2.0
"""Event recordings with a class each: a table of labels, or one sub-folder a class.

Every recording is read once when the set is opened, so that what cannot be read is known before a
long run starts: it is left out and named in ``skipped``.
"""

from __future__ import annotations

import csv
import io
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.event_files import Aedat4Recording, events_from_bs2
from spike_perception.bags.folder_files import FolderFiles, natural_key, spread
from spike_perception.bags.labelled_points import class_labels
from spike_perception.errors import InputError
from spike_perception.identity import sha256_bytes, sha256_json
from spike_perception.sensing.events import EventError, Events, concatenate

LABELS_FILE = "labels.csv"
MAX_TABLE_BYTES = 64 << 20
MAX_EVENTS = 1 << 26
"""Most events of one recording."""
NMNIST_SIZE = 34, 34
"""Columns and rows of the sensor that N-MNIST states; a ``.bs2`` file names none."""


@dataclass(frozen=True, eq=False)
class EventSet:
    """Event recordings, some or all of a data set.

    Attributes:
        path: where the set lies, as given.
        classes: names of the classes; empty if the set is unlabelled.
        labels: int64 ``[N]``, position of each recording's class in ``classes``; -1 for none.
        names: paths of the recordings below ``path``.
        id: SHA-256 of the content: recordings as stored, labels and names of classes.
        skipped: recordings that were left out because they cannot be read, by name, with the
            reason.
        size: columns and rows of the sensor (pixels).
    """

    path: Path
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    names: list[str]
    id: str
    skipped: dict[str, str]
    size: tuple[int, int]
    _files: EventFiles

    def __len__(self) -> int:
        return len(self.names)

    def events(self, index: int) -> Events:
        """One recording, at least one event, in order of time.

        Raises:
            InputError: if its file has changed since the set was opened and cannot be read.
        """
        return self._files.events(self.names[index])[0]

    def take(self, rows: NDArray[np.int64]) -> EventSet:
        """The recordings at these positions, in this order."""
        return replace(
            self,
            labels=self.labels[rows],
            names=[self.names[k] for k in rows],
            id=sha256_json([self.id, rows.tolist()]),
        )


class EventFiles(FolderFiles):
    """Recordings named in ``labels.csv``, in one sub-folder a class, or in none.

    Attributes:
        classes: names of the classes; empty without labels.
        labels: int64 ``[N]``, class of each recording; -1 for none.
    """

    kind = "events"
    suffixes = (".aedat4", ".bs2")

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        try:
            labels = self._table() if self._holds(LABELS_FILE) else None
            if labels is not None:
                names = sorted(labels, key=natural_key)
                self.classes = tuple(sorted(set(labels.values()), key=natural_key))
                position = {name: k for k, name in enumerate(self.classes)}
                self.labels = np.array([position[labels[name]] for name in names], np.int64)
            else:
                flat = self._found(0)[0]
                self.classes, names = ((), flat) if flat else self._by_class()
                self.labels = class_labels(self.classes, names)
        except InputError:
            self.close()
            raise
        self.names = tuple(names)

    def _table(self) -> dict[str, str]:
        """Class of each recording that ``labels.csv`` names: its number or its path, the class."""
        data = self.read(LABELS_FILE)
        try:
            if len(data) > MAX_TABLE_BYTES:
                raise ValueError(f"{len(data)} bytes, at most {MAX_TABLE_BYTES} are read")
            rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if row]
        except (ValueError, csv.Error) as error:
            raise self._bad_table(str(error)) from error
        there = {name.rsplit(".", 1)[0]: name for name in self._found(1)[0] + self._found(0)[0]}
        labels = {}
        for number, row in enumerate(rows):
            key = row[0].strip().rsplit(".", 1)[0]
            name = there.get(key) or there.get(f"events/{key}")
            if number == 0 and name is None:
                continue  # the header; without one the first line is a recording like the others
            if len(row) != 2:
                raise self._bad_table(f"the line {row} has not two columns")
            if name is None:
                raise self._bad_table(f"there is no recording {row[0]!r}")
            labels[name] = row[1].strip()
        if not labels:
            raise self._bad_table("it names no recording")
        return labels

    def _bad_table(self, why: str) -> InputError:
        return InputError(
            "events_unreadable",
            f"{self.path}/{LABELS_FILE}: {why}; expected are a header and lines SAMPLE,CLASS, "
            "SAMPLE being the N of events/N.bs2",
        )

    def events(self, name: str) -> tuple[Events, tuple[int, int] | None]:
        """One recording and the size of its sensor where it states it; the error names it."""
        try:
            if name.lower().endswith(".bs2"):
                events, size = events_from_bs2(self.read(name)), None
            else:
                events, size = self._aedat4(name)
            if not len(events):
                raise EventError("invalid_events", "it holds no event")
            return events, size
        except InputError as error:
            raise type(error)(error.reason, f"{self.path}/{name}: {error}") from error

    def _aedat4(self, name: str) -> tuple[Events, tuple[int, int]]:
        """dv-processing reads files alone; one from a zip file is unpacked beside."""
        if self.path.is_dir():
            return _whole(Aedat4Recording(self.path / name))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "recording.aedat4"
            path.write_bytes(self.read(name))
            return _whole(Aedat4Recording(path))


def _whole(recording: Aedat4Recording) -> tuple[Events, tuple[int, int]]:
    parts, count = [], 0
    for part in recording:
        parts.append(part)
        count += len(part)
        if count > MAX_EVENTS:
            raise EventError("too_large", f"it holds more than {MAX_EVENTS} events")
    return concatenate(parts), (recording.width, recording.height)


def open_event_set(
    path: str | Path, split: str | None = None, *, limit: int | None = None
) -> EventSet:
    """Open a data set of event recordings.

    Args:
        path: a folder, a zip file, or a folder inside one. It holds ``labels.csv`` (a header, then
            lines ``N,CLASS``) and the recordings ``events/N.bs2``; or one sub-folder a class of
            .bs2 and .aedat4 files; or such files alone, which are unlabelled. Recordings are in
            natural order of their names.
        split: the sub-folder that holds that.
        limit: take so many recordings at most, spread evenly over all of them; None for all.

    Raises:
        InputError: ``events_missing``, ``events_unreadable``, ``empty_class``, ``invalid_option``,
            or ``no_readable_recording`` if all would be skipped.
    """
    path = Path(path) / split if split else Path(path)
    files = EventFiles(path)
    skipped, digests, kept = dict[str, str](), list[str](), list[int]()
    size: tuple[int, int] = (0, 0)
    for k in spread(len(files), limit):
        name = files.names[k]
        try:
            events, stated = files.events(name)
            digest = sha256_bytes(files.read(name))
        except InputError as error:
            if error.reason == "package_missing":
                raise
            skipped[name] = f"{error.reason}: {error}"
            continue
        seen = stated or (
            max(NMNIST_SIZE[0], int(events.x.max()) + 1),
            max(NMNIST_SIZE[1], int(events.y.max()) + 1),
        )
        size = max(size[0], seen[0]), max(size[1], seen[1])
        kept.append(k)
        digests.append(digest)
    if not kept:
        files.close()
        raise InputError(
            "no_readable_recording",
            f"none of the {len(skipped)} recordings in {path} can be read; the first: "
            f"{next(iter(skipped.values()))}",
        )
    labels = files.labels[kept]
    identity = sha256_json([digests, labels.tolist(), files.classes])
    names = [files.names[k] for k in kept]
    return EventSet(path, files.classes, labels, names, identity, skipped, size, files)
