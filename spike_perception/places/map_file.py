# SPDX-License-Identifier: Apache-2.0
"""The file under a place map: SQLite connections, the writer's lock, quarantine.

SQLite calls are kept here and in ``map``; nothing here knows what a place is.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from spike_perception.errors import InputError

SIDECARS = ("", "-wal", "-shm")
PATIENCE_S = 1.0  # how long one opening waits for another


def sidecar(path: Path, suffix: str) -> Path:
    """The file beside ``path`` that SQLite names by adding ``suffix``."""
    return path.with_name(path.name + suffix)


def sqlite_error(path: Path, error: sqlite3.Error, doing: str) -> InputError:
    """Say what SQLite refused, as the suite's own error.

    ``sqlite3`` maps a full disk, a read-only file and input/output errors to OperationalError, a
    damaged file to plain DatabaseError.
    """
    if isinstance(error, sqlite3.OperationalError):
        if "locked" in str(error) or "busy" in str(error):
            return in_use(path)
        return InputError(
            "map_not_writable" if doing == "write" else "map_unreadable",
            f"cannot {doing} the place map {path}: {error}; check free space and the permissions "
            "of the file and its folder (the map also keeps files beside it while it is open)",
        )
    return InputError("map_corrupt", f"the place map {path} is damaged: {error}")


def in_use(path: Path) -> InputError:
    """The refusal that a second writer gets."""
    return InputError(
        "map_in_use",
        f"the place map {path} is open for writing elsewhere; one process writes a map at a time: "
        "use mode localisation, which opens it read only, or another file",
    )


class WriterLock:
    """Advisory lock that makes one process the writer; the kernel drops it with the process.

    It lies in a file of its own beside the map: closing any descriptor of the map itself would
    drop SQLite's locks on it.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock of the map ``path``; a reader that is just reading is waited for.

        Raises:
            InputError: ``map_in_use``, or ``map_not_writable`` if the folder takes no file.
        """
        self._path = sidecar(path, "-lock")
        latest = time.monotonic() + PATIENCE_S
        while not self._try(path):
            if time.monotonic() > latest:
                raise in_use(path)
            time.sleep(0.02)

    def _try(self, path: Path) -> bool:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise InputError(
                "map_not_writable",
                f"cannot write beside the place map {path}: {error.strerror}; choose a writable "
                "folder, or mode localisation, which writes nothing",
            ) from error
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder removes the file; a lock on a removed file protects nothing.
            if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                return True
        os.close(self._descriptor)
        return False

    def release(self) -> None:
        """Give the lock back and remove its file."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)

    def __enter__(self) -> WriterLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def connect(path: Path, options: str) -> sqlite3.Connection:
    """Open an existing SQLite file; nothing in its schema is trusted to run."""
    uri = f"{path.resolve().as_uri()}?{options}"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
    )
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open for writing: write-ahead log, and every commit synced to the disk."""
    connection = connect(path, "mode=rw")
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def no_writer(path: Path) -> Iterator[bool]:
    """Whether no process has the map open for writing; none can begin to while this is True."""
    try:
        descriptor = os.open(sidecar(path, "-lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no lock was ever taken, or none can be
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@contextmanager
def reading(path: Path, *, as_writer: bool = False) -> Iterator[sqlite3.Connection]:
    """Open for one reading, without writing a byte to the file, its log or its folder.

    While a writer is at work, SQLite reads its log and the index of that log in shared memory.
    Otherwise the file is opened as immutable; if a killed writer has left a log, that is read too,
    with an index in our own memory, because the one left behind may be half written.

    Args:
        path: the map.
        as_writer: True if this process has the writer's lock and no connection yet.
    """
    latest = time.monotonic() + PATIENCE_S
    while True:
        with ExitStack() as stack:
            alone = as_writer or stack.enter_context(no_writer(path))
            try:
                connection = _connect_reader(path, alone)
                stack.callback(connection.close)
                connection.execute("BEGIN")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError:
                # A writer that is just opening or closing has its log, but not yet its index.
                if alone or time.monotonic() > latest:
                    raise
            else:
                yield connection
                return
        time.sleep(0.02)


def _connect_reader(path: Path, alone: bool) -> sqlite3.Connection:
    log = sidecar(path, "-wal")
    if not alone:
        return connect(path, "mode=ro&readonly_shm=1")
    if log.exists() and log.stat().st_size > 0:
        connection = connect(path, "mode=ro&vfs=unix-none")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # then the index lies in our memory
        return connection
    return connect(path, "mode=ro&immutable=1")


def quarantine(path: Path) -> Path:
    """Rename a damaged map and its log, never over anything; returns the new name."""
    number = 1
    while any(sidecar(path, f".corrupt-{number}{s}").exists() for s in SIDECARS):
        number += 1
    kept = sidecar(path, f".corrupt-{number}")
    for suffix in SIDECARS:
        with suppress(FileNotFoundError):
            sidecar(path, suffix).rename(sidecar(kept, suffix))
    return kept


def sync_folder(path: Path) -> None:
    """Make a rename in the folder of ``path`` survive a power loss."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
