# SPDX-License-Identifier: Apache-2.0
"""The place map: one SQLite file that holds every place and says what made it.

What :meth:`PlaceMap.add` has returned is on the disk. The search index is no part of the file: it
is rebuilt from :meth:`PlaceMap.places` when a map is loaded.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.identity import canonical_json
from spike_perception.places import map_file
from spike_perception.places.descriptors import DescriptorIdentity, Kind
from spike_perception.places.types import Pose

SCHEMA_VERSION = 1
APPLICATION_ID = 0x5350504D  # "SPPM" in the header: a place map, for file(1) and for us

_TABLES = {
    "manifest": "CREATE TABLE manifest (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "place": (
        "CREATE TABLE place (place_id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL,"
        " stamp_ns INTEGER NOT NULL, frame_id TEXT NOT NULL, pose BLOB, pose_frame_id TEXT,"
        " descriptor BLOB NOT NULL, checksum INTEGER NOT NULL)"
    ),
    "thumbnail": (
        "CREATE TABLE thumbnail (place_id INTEGER PRIMARY KEY, image BLOB NOT NULL,"
        " checksum INTEGER NOT NULL)"
    ),
}
_LONGEST_TEXT = 1 << 20  # bytes of a manifest value, a frame name or a thumbnail
_LARGEST_DIMENSION = 1 << 20
_COLUMNS = "place_id, session, stamp_ns, frame_id, pose, pose_frame_id, descriptor, checksum"


@dataclass(frozen=True)
class MapDescriptor:
    """The descriptor that made a map, as its manifest names it."""

    name: str
    kind: Kind
    dimension: int
    weights_id: str


@dataclass(frozen=True)
class NewPlace:
    """A place to be added.

    Attributes:
        descriptor: float32 [dimension], or uint8 [dimension / 8] of packed bits.
        stamp_ns: time of the image in nanoseconds.
        frame_id: the camera's frame.
        pose: where the camera was, if known.
        thumbnail: small encoded picture (JPEG, PNG or WebP), if any.
        session: session it belongs to; None for the map's current one.
    """

    descriptor: NDArray[Any]
    stamp_ns: int
    frame_id: str = ""
    pose: Pose | None = None
    thumbnail: bytes | None = None
    session: int | None = None


@dataclass(frozen=True)
class Place:
    """A stored place (fields as in :class:`NewPlace`)."""

    place_id: int
    session: int
    stamp_ns: int
    frame_id: str
    pose: Pose | None
    descriptor: NDArray[Any]


class PlaceMap:
    """One place map, open for writing by one process or read only by many.

    All methods may be called from any thread. Use as a context manager, or call :meth:`close`.

    Attributes:
        path: the file.
        read_only: True if nothing is ever written.
        map_id: identity of this map (uuid4 text), made when it was created.
        descriptor: name, kind, dimension and weights of the descriptor.
        config: the resolved configuration that the map was created with.
        created_ns: time of creation, nanoseconds since 1970.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        """Open and check; use :meth:`open`, :meth:`create` or :meth:`open_or_create` instead."""
        self.path = path
        self.read_only = read_only
        self._lock = threading.RLock()
        self._closed = False
        self._max_places: int | None = None
        self._drop_oldest = False
        self._generation = 0
        self._removals = 0
        self._writer_lock = None if read_only else map_file.WriterLock(path)
        self._connection: sqlite3.Connection | None = None
        try:
            # Checked before it is opened for writing: SQLite changes the header of a file that is
            # not yet in its write-ahead mode, and a foreign or damaged file must stay as it is.
            if path.stat().st_size == 0:
                raise InputError("map_corrupt", f"the place map {path} is empty")
            self._load()
            if not read_only:
                self._connection = map_file.connect_writer(path)
        except BaseException as error:
            self._abandon()
            if isinstance(error, sqlite3.Error):
                error = map_file.sqlite_error(path, error, "read")
            if not read_only and isinstance(error, InputError) and error.reason == "map_corrupt":
                error = _quarantined(path, error)
            if self._writer_lock is not None:
                self._writer_lock.release()
            raise error from None

    # ---------------------------------------------------------------- opening and closing

    @classmethod
    def create(
        cls,
        path: str | Path,
        descriptor: DescriptorIdentity,
        config: Mapping[str, Any] | None = None,
    ) -> PlaceMap:
        """Make a new, empty map and open it for writing.

        Args:
            path: file to make; it must not exist.
            descriptor: the descriptor whose vectors the map will hold.
            config: resolved configuration to keep beside it (JSON-serialisable).

        Raises:
            InputError: ``map_exists``, ``map_in_use`` or ``map_not_writable``.
        """
        path = Path(path)
        _check_identity(descriptor)
        with map_file.WriterLock(path):
            if path.exists():
                raise InputError(
                    "map_exists", f"{path} exists already; open it, or choose another file"
                )
            # A half-made map must never be found under the final name.
            unfinished = map_file.sidecar(path, "-new")
            try:
                unfinished.unlink(missing_ok=True)
                _write_empty(unfinished, descriptor, dict(config or {}))
                unfinished.rename(path)
                map_file.sync_folder(path)
            except (OSError, sqlite3.Error) as error:
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)
                raise InputError(
                    "map_not_writable", f"cannot make the place map {path}: {error}"
                ) from error
        return cls.open(path, descriptor)

    @classmethod
    def open(
        cls,
        path: str | Path,
        descriptor: DescriptorIdentity | None = None,
        *,
        read_only: bool = False,
    ) -> PlaceMap:
        """Open an existing map and check it.

        A file that fails its checks is refused; opened for writing it is also renamed to
        ``NAME.corrupt-1`` (or the next free number), so that nothing is ever written over it.

        Args:
            path: the file.
            descriptor: descriptor that will be used with it; None to take any (inspection).
            read_only: True to write nothing at all, neither to the file nor beside it.

        Raises:
            InputError: ``map_missing``, ``map_corrupt``, ``map_schema``, ``map_other_descriptor``,
                ``map_other_weights``, ``map_in_use``, ``map_not_writable`` or ``map_unreadable``.
        """
        path = Path(path)
        try:
            found = path.is_file()
        except OSError as error:
            raise InputError(
                "map_unreadable", f"cannot read the place map {path}: {error.strerror}"
            ) from error
        if not found:
            raise InputError(
                "map_missing",
                f"there is no place map {path}; make one in mode mapping or both, or correct the "
                "path",
            )
        place_map = cls(path, read_only=read_only)
        if descriptor is not None:
            try:
                place_map.require(descriptor)
            except InputError:
                place_map.close()
                raise
        return place_map

    @classmethod
    def open_or_create(
        cls,
        path: str | Path,
        descriptor: DescriptorIdentity,
        config: Mapping[str, Any] | None = None,
    ) -> PlaceMap:
        """Open the map for writing, or make it where there is none."""
        if Path(path).exists():
            return cls.open(path, descriptor)
        return cls.create(path, descriptor, config)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._connection is not None:
                with suppress(sqlite3.Error):  # everything is committed; the log may stay
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._abandon()
            if self._writer_lock is not None:
                self._writer_lock.release()

    def _abandon(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def __enter__(self) -> PlaceMap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _load(self) -> None:
        """Check the file and read what is kept in memory."""
        with map_file.reading(self.path, as_writer=not self.read_only) as connection:
            manifest = _check_file(self.path, connection)
            self.map_id = str(manifest["map_id"])
            self.created_ns = int(manifest["created_ns"])
            self.config: dict[str, Any] = manifest["config"]
            self._calibration: dict[str, Any] | None = manifest.get("calibration")
            self.descriptor = MapDescriptor(**manifest["descriptor"])
            self._row_bytes = _row_bytes(self.descriptor)
            self._refresh_counts(connection)
            self._check_rows(connection)

    def _check_rows(self, connection: sqlite3.Connection) -> None:
        # Sizes first, by SQL alone: a blob is fetched only once its length is known to be right.
        wrong = connection.execute(
            "SELECT place_id FROM place WHERE typeof(descriptor) != 'blob' OR length(descriptor)"
            " != ? OR typeof(session) != 'integer' OR typeof(stamp_ns) != 'integer' OR"
            " typeof(frame_id) != 'text' OR length(frame_id) > ? OR"
            " (pose IS NOT NULL AND (typeof(pose) != 'blob' OR"
            " length(pose) != 56 OR typeof(pose_frame_id) != 'text' OR"
            " length(pose_frame_id) > ?)) LIMIT 1",
            (self._row_bytes, _LONGEST_TEXT, _LONGEST_TEXT),
        ).fetchone()
        if wrong is not None:
            raise InputError(
                "map_corrupt",
                f"the place map {self.path} is damaged: place {wrong[0]} does not have the "
                f"{self._row_bytes} descriptor bytes or the fields that its manifest promises",
            )
        for _ in self._rows(connection, 0, None):
            pass

    def _refresh_counts(self, connection: sqlite3.Connection) -> None:
        row = connection.execute(
            "SELECT count(*), coalesce(max(place_id), 0), coalesce(max(session), 0),"
            " count(DISTINCT session), count(pose), coalesce(min(stamp_ns), 0),"
            " coalesce(max(stamp_ns), 0) FROM place"
        ).fetchone()
        self._count, self._last_id, last_session, self._sessions, self._posed = row[:5]
        self._first_stamp, self._last_stamp = row[5:]
        self._counted_session = int(last_session)
        sequence = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'place'")
        self._next_id = max(self._last_id, *(int(r[0]) for r in sequence), 0) + 1
        self._session = int(last_session) + 1

    # ---------------------------------------------------------------- reading

    def __len__(self) -> int:
        return int(self._count)

    @property
    def generation(self) -> int:
        """Grows with every change (add, remove, refresh)."""
        return self._generation

    @property
    def removals(self) -> int:
        """Grows whenever places may have gone, so that an index knows when to compare ids."""
        return self._removals

    @property
    def last_place_id(self) -> int:
        """The greatest id that a place has; 0 in an empty map."""
        return int(self._last_id)

    def require(self, descriptor: DescriptorIdentity) -> None:
        """Check that the map was made with this descriptor and these weights.

        Raises:
            InputError: ``map_other_descriptor`` or ``map_other_weights``, naming both.
        """
        _check_same_descriptor(self.path, self.descriptor, descriptor)

    @property
    def session(self) -> int:
        """The session that new places get: an unbroken run of neighbouring places."""
        return int(self._session)

    def refresh(self) -> None:
        """Read only: see what has been committed since the map was opened.

        Raises:
            InputError: as for :meth:`open`.
        """
        with self._lock:
            if self.read_only:
                try:
                    self._load()
                except sqlite3.Error as error:
                    raise map_file.sqlite_error(self.path, error, "read") from error
                self._generation += 1
                self._removals += 1

    def ids(self) -> NDArray[np.int64]:
        """Ids of all places, ascending, int64 [places]."""
        with self._checked_reading() as connection:
            rows = connection.execute(
                "SELECT place_id FROM place WHERE place_id <= ? ORDER BY place_id", (self._last_id,)
            ).fetchall()
        return np.array([r[0] for r in rows], dtype=np.int64)

    def places(self, after: int = 0, batch: int = 1024) -> Iterator[list[Place]]:
        """Read all places in order of their ids, in batches, each with its checksum verified.

        Args:
            after: only places with a greater id.
            batch: places read at a time; the lock is held for one batch only.

        Raises:
            InputError: ``map_corrupt``.
        """
        while True:
            with self._checked_reading() as connection:
                found = list(self._rows(connection, after, batch))
            if not found:
                return
            yield found
            after = found[-1].place_id

    def get(self, place_id: int) -> Place:
        """Read one place.

        Raises:
            InputError: ``unknown_place`` or ``map_corrupt``.
        """
        with self._checked_reading() as connection:
            known = 0 < place_id <= self._last_id
            found = list(self._rows(connection, place_id - 1, 1)) if known else []
        if not found or found[0].place_id != place_id:
            raise InputError("unknown_place", f"there is no place {place_id} in {self.path}")
        return found[0]

    def thumbnail(self, place_id: int) -> bytes | None:
        """The encoded thumbnail of a place, or None.

        Raises:
            InputError: ``map_corrupt``.
        """
        with self._checked_reading() as connection:
            row = connection.execute(
                "SELECT CASE WHEN typeof(image) = 'blob' AND length(image) <= ? THEN image END,"
                " checksum FROM thumbnail WHERE place_id = ?",
                (_LONGEST_TEXT, place_id),
            ).fetchone()
        if row is None:
            return None
        if row[0] is None or _checksum(place_id, row[0]) != row[1]:
            raise InputError(
                "map_corrupt", f"the thumbnail of place {place_id} in {self.path} is damaged"
            )
        return cast(bytes, row[0])

    def info(self) -> dict[str, Any]:
        """What the map holds, as plain values; cheap enough for every diagnostics period."""
        with self._lock:
            try:
                size = self.path.stat().st_size
            except OSError:
                size = 0
            return {
                "path": str(self.path),
                "map_id": self.map_id,
                "schema": SCHEMA_VERSION,
                "created_ns": self.created_ns,
                "read_only": self.read_only,
                "descriptor": self.descriptor.name,
                "kind": self.descriptor.kind,
                "dimension": self.descriptor.dimension,
                "weights_id": self.descriptor.weights_id,
                "places": self._count,
                "places_with_pose": self._posed,
                "sessions": self._sessions,
                "max_places": self._max_places,
                "when_full": "drop_oldest" if self._drop_oldest else "refuse",
                "last_place_id": self._last_id,
                "first_stamp_ns": self._first_stamp,
                "last_stamp_ns": self._last_stamp,
                "bytes": size,
                "calibration": self._calibration,
            }

    @property
    def calibration(self) -> dict[str, Any] | None:
        """What :meth:`set_calibration` stored, if anything."""
        return self._calibration

    # ---------------------------------------------------------------- writing

    def set_limit(self, max_places: int | None, *, drop_oldest: bool = False) -> None:
        """Bound the size of the map.

        A full map either refuses new places (``map_full``), or first drops its oldest hundredth
        (at least one place): in portions, because every removal costs the index a pass.

        Args:
            max_places: most places; None for no bound.
            drop_oldest: drop the oldest instead of refusing the new.
        """
        with self._lock:
            self._max_places, self._drop_oldest = max_places, drop_oldest

    def begin_session(self) -> int:
        """Start a new session: what comes next is no neighbour of what came before."""
        with self._lock:
            self._session += 1
            return self._session

    def add(
        self,
        descriptor: NDArray[Any],
        stamp_ns: int,
        frame_id: str = "",
        pose: Pose | None = None,
        thumbnail: bytes | None = None,
    ) -> int:
        """Store one place in the current session; it is on the disk when this returns.

        Args:
            descriptor: float32 [dimension], or uint8 [dimension / 8] of packed bits.
            stamp_ns: time of the image in nanoseconds.
            frame_id: the camera's frame.
            pose: where the camera was, if known.
            thumbnail: small encoded picture, if any.

        Returns:
            The id of the place, never used again for another.

        Raises:
            InputError: ``map_full``, ``map_read_only``, ``map_not_writable``,
                ``invalid_descriptor``; nothing is stored then.
        """
        return self.add_many([NewPlace(descriptor, stamp_ns, frame_id, pose, thumbnail)])[0]

    def add_many(self, places: Sequence[NewPlace]) -> list[int]:
        """Store several places at once, all or none; see :meth:`add`."""
        with self._lock:
            vectors = [self._checked_vector(place.descriptor) for place in places]
            ids = list(range(self._next_id, self._next_id + len(places)))
            sessions = [self._session if p.session is None else p.session for p in places]
            if sessions != sorted(sessions) or (sessions and sessions[0] < self._counted_session):
                raise ValueError("sessions must not fall: the places of one follow one another")
            dropped: list[int] = []
            with self._writing() as connection:
                if self._max_places is not None:
                    excess = self._count + len(places) - self._max_places
                    if excess > 0:
                        dropped = self._oldest(connection, excess)
                        _delete(connection, dropped)
                rows, pictures = [], []
                for place_id, session, place, vector in zip(
                    ids, sessions, places, vectors, strict=True
                ):
                    row = _row(place_id, session, place, vector)
                    rows.append((*row, _checksum(*row)))
                    if place.thumbnail is not None:
                        checksum = _checksum(place_id, place.thumbnail)
                        pictures.append((place_id, place.thumbnail, checksum))
                connection.executemany(
                    f"INSERT INTO place ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    rows,
                )
                connection.executemany("INSERT INTO thumbnail VALUES (?, ?, ?)", pictures)
            # Committed: only now does memory follow.
            if dropped:
                self._recount()
                self._removals += 1
            else:
                for place in places:
                    self._count_in(place)
            self._generation += 1
            return ids

    def _count_in(self, place: NewPlace) -> None:
        session = self._session if place.session is None else place.session
        if self._count == 0:
            self._first_stamp = self._last_stamp = place.stamp_ns
        if self._count == 0 or session != self._counted_session:
            self._counted_session = session
            self._sessions += 1
        self._count += 1
        self._posed += place.pose is not None
        self._first_stamp = min(self._first_stamp, place.stamp_ns)
        self._last_stamp = max(self._last_stamp, place.stamp_ns)
        self._last_id = self._next_id
        self._next_id += 1
        self._session = max(self._session, session)

    def remove(self, ids: Iterable[int]) -> int:
        """Remove places; ids that are not there are passed over.

        Returns:
            How many were removed. Their ids are never used again.

        Raises:
            InputError: ``map_read_only`` or ``map_not_writable``; nothing is removed then.
        """
        with self._lock:
            with self._writing() as connection:
                # SQLite's integers have 64 bits; no larger number can be an id.
                removed = _delete(connection, [int(i) for i in ids if 0 < int(i) < 1 << 63])
            if removed:
                self._recount()
                self._generation += 1
                self._removals += 1
            return removed

    def set_calibration(self, calibration: Mapping[str, Any]) -> None:
        """Keep thresholds calibrated for this map in its manifest.

        Raises:
            InputError: ``map_read_only`` or ``map_not_writable``.
        """
        with self._lock:
            text = canonical_json(dict(calibration))
            with self._writing() as connection:
                connection.execute(
                    "INSERT OR REPLACE INTO manifest VALUES ('calibration', ?)", (text,)
                )
            self._calibration = json.loads(text)

    # ---------------------------------------------------------------- inside

    def _recount(self) -> None:
        session = self._session
        with self._reading() as connection:
            next_id = self._next_id
            self._refresh_counts(connection)
            self._next_id = max(self._next_id, next_id)
        self._session = session

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        if self._connection is not None:
            return nullcontext(self._connection)
        return map_file.reading(self.path)

    @contextmanager
    def _checked_reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._require_open()
            try:
                with self._reading() as connection:
                    yield connection
            except sqlite3.Error as error:
                raise map_file.sqlite_error(self.path, error, "read") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; whatever goes wrong inside, nothing of it stays."""
        self._require_open()
        if self._connection is None:
            raise InputError(
                "map_read_only",
                f"the place map {self.path} is open read only (mode localisation); open it in mode "
                "mapping or both to change it",
            )
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk has often rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise map_file.sqlite_error(self.path, error, "write") from error

    def _require_open(self) -> None:
        if self._closed:
            raise InputError("map_closed", f"the place map {self.path} has been closed")

    def _oldest(self, connection: sqlite3.Connection, excess: int) -> list[int]:
        assert self._max_places is not None  # noqa: S101
        if not self._drop_oldest or excess > self._count:
            raise InputError(
                "map_full",
                f"the place map {self.path} holds {self._count} places and may hold "
                f"{self._max_places} (map.max_places); raise that, remove places, or set "
                "map.when_full to drop_oldest",
            )
        portion = max(excess, self._max_places // 100)
        rows = connection.execute(
            "SELECT place_id FROM place ORDER BY place_id LIMIT ?", (min(portion, self._count),)
        )
        return [r[0] for r in rows]

    def _checked_vector(self, vector: NDArray[Any]) -> bytes:
        wanted = np.float32 if self.descriptor.kind == "float" else np.uint8
        size = self._row_bytes // np.dtype(wanted).itemsize
        if vector.dtype != wanted or vector.shape != (size,):
            raise InputError(
                "invalid_descriptor",
                f"descriptor is {vector.dtype} {list(vector.shape)}; this map takes "
                f"{np.dtype(wanted)} [{size}] from {self.descriptor.name}",
            )
        if wanted is np.float32 and not np.isfinite(vector).all():
            raise InputError("invalid_descriptor", "descriptor holds numbers that are not finite")
        return np.ascontiguousarray(vector).tobytes()

    def _rows(
        self, connection: sqlite3.Connection, after: int, limit: int | None
    ) -> Iterator[Place]:
        # What a reader sees ends where the map ended when it was opened or refreshed.
        found = connection.execute(
            f"SELECT {_COLUMNS} FROM place WHERE place_id > ? AND place_id <= ?"  # noqa: S608
            " ORDER BY place_id LIMIT ?",
            (after, self._last_id, -1 if limit is None else limit),
        )
        dtype = np.float32 if self.descriptor.kind == "float" else np.uint8
        with closing(found) as cursor:  # an open one would keep the file open after an error
            for *row, checksum in cursor:
                if _checksum(*row) != checksum:
                    raise InputError(
                        "map_corrupt",
                        f"the place map {self.path} is damaged: place {row[0]} fails its checksum",
                    )
                pose = None
                if row[4] is not None:
                    numbers = struct.unpack("<7d", row[4])
                    try:
                        pose = Pose(numbers[:3], numbers[3:], row[5])
                    except InputError as error:
                        raise InputError(
                            "map_corrupt", f"place {row[0]} of {self.path}: {error}"
                        ) from error
                vector = np.frombuffer(row[6], dtype=dtype)
                if dtype is np.float32 and not np.isfinite(vector).all():
                    raise InputError(
                        "map_corrupt",
                        f"the place map {self.path} is damaged: the descriptor of place {row[0]} "
                        "holds numbers that are not finite",
                    )
                yield Place(row[0], row[1], row[2], row[3], pose, vector)


def _row_bytes(descriptor: DescriptorIdentity) -> int:
    return descriptor.dimension * 4 if descriptor.kind == "float" else descriptor.dimension // 8


def _check_identity(descriptor: DescriptorIdentity) -> None:
    bad_bits = descriptor.kind == "bits" and descriptor.dimension % 8
    if (
        descriptor.kind not in ("float", "bits")
        or not 1 <= descriptor.dimension <= _LARGEST_DIMENSION
        or bad_bits
    ):
        raise InputError(
            "invalid_descriptor",
            f"descriptor {descriptor.name!r} has kind {descriptor.kind!r} and dimension "
            f"{descriptor.dimension}; kinds are float and bits, the dimension is 1 to "
            f"{_LARGEST_DIMENSION}, of bits a multiple of 8",
        )


def _check_same_descriptor(
    path: Path, stored: DescriptorIdentity, wanted: DescriptorIdentity
) -> None:
    def words(d: DescriptorIdentity) -> tuple[str, str, int]:
        return (d.name, d.kind, d.dimension)

    if words(stored) != words(wanted):
        raise InputError(
            "map_other_descriptor",
            f"the place map {path} was made with descriptor {stored.name!r} ({stored.kind}, "
            f"{stored.dimension}); now {wanted.name!r} ({wanted.kind}, {wanted.dimension}) is "
            f"configured: set descriptor.name to {stored.name!r}, or map anew into another file",
        )
    if stored.weights_id != wanted.weights_id:
        raise InputError(
            "map_other_weights",
            f"the place map {path} was made with weights {stored.weights_id} of descriptor "
            f"{stored.name!r}; those loaded now are {wanted.weights_id}: load the map's weights, "
            "or map anew into another file",
        )


def _write_empty(path: Path, descriptor: DescriptorIdentity, config: dict[str, Any]) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # Three 512-d rows share a page of 8 KiB, of which the default 4 KiB would hold one.
        connection.execute("PRAGMA page_size=8192")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.values():
            connection.execute(statement)
        manifest = {
            "map_id": str(uuid.uuid4()),
            "created_ns": time.time_ns(),
            "descriptor": {
                "name": descriptor.name,
                "kind": descriptor.kind,
                "dimension": descriptor.dimension,
                "weights_id": descriptor.weights_id,
            },
            "config": config,
        }
        connection.executemany(
            "INSERT INTO manifest VALUES (?, ?)",
            [(key, canonical_json(value)) for key, value in manifest.items()],
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _check_file(path: Path, connection: sqlite3.Connection) -> dict[str, Any]:
    """Check everything but the rows; returns the manifest."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    schema = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {
        (row[0], row[1])
        for row in connection.execute("SELECT type, name FROM sqlite_master")
        if not str(row[1]).startswith("sqlite_")
    }
    if application != APPLICATION_ID:
        raise InputError(
            "map_schema", f"{path} is an SQLite file, but no place map; give the path of a map"
        )
    if schema != SCHEMA_VERSION:
        raise InputError(
            "map_schema",
            f"the place map {path} has schema version {schema}; this release reads version "
            f"{SCHEMA_VERSION}: use the release that made it, or export and map anew",
        )
    # Nothing may hide in the file that would run when it is read or written.
    if tables != {("table", name) for name in _TABLES}:
        raise InputError("map_corrupt", f"the place map {path} has other tables than a map has")
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise InputError("map_corrupt", f"the place map {path} is damaged: {damage}")
    rows = connection.execute(
        "SELECT key, CASE WHEN length(value) <= ? THEN value END FROM manifest LIMIT 100",
        (_LONGEST_TEXT,),
    )
    try:
        manifest = {str(key): json.loads(value) for key, value in rows}
        identity = MapDescriptor(**manifest["descriptor"])
        _check_identity(identity)
        if not isinstance(manifest["config"], dict) or not isinstance(identity.name, str):
            raise TypeError("config and descriptor must be objects")
        int(manifest["created_ns"])
        str(manifest["map_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            "map_corrupt", f"the manifest of the place map {path} is damaged: {error}"
        ) from error
    return manifest


def _quarantined(path: Path, error: InputError) -> InputError:
    try:
        kept = map_file.quarantine(path)
    except OSError as failure:
        return InputError("map_corrupt", f"{error}; it could not be set aside: {failure}")
    return InputError(
        "map_corrupt",
        f"{error}; it was set aside as {kept} and nothing was lost with that: a new start makes a "
        "new map, or put a copy back under the old name",
    )


def _row(place_id: int, session: int, place: NewPlace, vector: bytes) -> tuple[Any, ...]:
    pose = place.pose
    packed = None if pose is None else struct.pack("<7d", *pose.position, *pose.orientation)
    frame = None if pose is None else pose.frame_id
    return (place_id, session, place.stamp_ns, place.frame_id, packed, frame, vector)


def _checksum(*values: int | str | bytes | None) -> int:
    """CRC-32 of a row, its id included: a vector under another id fails."""
    checksum = 0
    for value in values:
        if isinstance(value, int):
            data = struct.pack("<q", value)
        elif isinstance(value, str):
            data = value.encode()
        else:
            data = value or b""
        checksum = zlib.crc32(data, zlib.crc32(struct.pack("<q", len(data)), checksum))
    return checksum


def _delete(connection: sqlite3.Connection, ids: list[int]) -> int:
    before = connection.total_changes
    connection.executemany("DELETE FROM place WHERE place_id = ?", [(i,) for i in ids])
    removed: int = connection.total_changes - before
    connection.executemany("DELETE FROM thumbnail WHERE place_id = ?", [(i,) for i in ids])
    return removed
