# SPDX-License-Identifier: Apache-2.0
"""The file under a place map: SQLite connections, the writer's lock, quarantine.

SQLite calls are kept here and in ``map``; nothing here knows what a place is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType

from spike_perception.errors import InputError

SIDECARS = ("", "-wal", "-shm")


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
        """Take the lock of the map ``path`` or refuse at once.

        Raises:
            InputError: ``map_in_use``, or ``map_not_writable`` if the folder takes no file.
        """
        self._path = sidecar(path, "-lock")
        while True:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise InputError(
                    "map_not_writable",
                    f"cannot write beside the place map {path}: {error.strerror}; choose a "
                    "writable folder, or mode localisation, which writes nothing",
                ) from error
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(self._descriptor)
                raise in_use(path) from error
            # The last holder removes the file; a lock on a removed file protects nothing.
            try:
                if os.path.samestat(os.fstat(self._descriptor), self._path.stat()):
                    return
            except FileNotFoundError:
                pass
            os.close(self._descriptor)

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
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open for one reading, without writing a byte to the file, its log or its folder.

    Three cases: a clean file is opened as immutable; with a log and its shared index beside it
    (a writer is at work, or was killed) SQLite reads both without touching them; a log whose index
    is missing (the file was copied) is read from a temporary copy, because SQLite would have to
    write the index.
    """
    log, index = sidecar(path, "-wal"), sidecar(path, "-shm")
    with ExitStack() as stack:
        if log.exists() and index.exists():
            connection = connect(path, "mode=ro&readonly_shm=1")
        elif log.exists() and log.stat().st_size > 0:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="place-map-")))
            copy = scratch / "copy"
            shutil.copyfile(path, copy)
            shutil.copyfile(log, sidecar(copy, "-wal"))
            connection = connect(copy, "mode=rw")
        else:
            connection = connect(path, "mode=ro&immutable=1")
        stack.callback(connection.close)
        connection.execute("BEGIN")
        yield connection


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
