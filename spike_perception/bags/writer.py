# SPDX-License-Identifier: Apache-2.0
"""Write ROS 2 bags without ROS, in MCAP or sqlite3."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from spike_perception.bags.message_writer import MessageWriter
from spike_perception.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

STORAGES = ("mcap", "sqlite3")


class BagWriter(MessageWriter):
    """A new ROS 2 bag, written as a context manager.

    The bag is built in a hidden folder beside its destination and moved there when the block ends
    well, so that a bag that exists is complete; when the block raises, nothing is left behind,
    unless ``keep_partial`` asks for what there is.
    Connections appear with the first message of their topic. Every message is logged at its own
    stamp (ns); callers write in order of time.

    Args:
        path: folder of the new bag; must not exist.
        storage: "mcap" or "sqlite3".
        keep_partial: keep the bag even if the block raises.

    Raises:
        InputError: ``unknown_storage``, ``output_exists`` or ``output_unwritable``.
    """

    def __init__(
        self, path: str | Path, storage: str = "mcap", *, keep_partial: bool = False
    ) -> None:
        super().__init__()
        if storage not in STORAGES:
            raise InputError(
                "unknown_storage",
                f"bag storage is {storage!r}; allowed is one of {', '.join(STORAGES)}",
            )
        self.path = Path(path)
        self.storage = storage
        self._keep_partial = keep_partial
        self._connections: dict[str, tuple[str, Any]] = {}

    def __enter__(self) -> Self:
        from rosbags.rosbag2 import StoragePlugin, Writer

        if self.path.exists():
            raise InputError(
                "output_exists", f"{self.path} exists; give another path or remove it first"
            )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = Path(tempfile.mkdtemp(prefix=".bag-", dir=self.path.parent))
        except OSError as error:
            raise InputError(
                "output_unwritable", f"cannot write a bag at {self.path}: {error.strerror}"
            ) from error
        plugin = StoragePlugin.MCAP if self.storage == "mcap" else StoragePlugin.SQLITE3
        self._writer = Writer(self._scratch / self.path.name, version=9, storage_plugin=plugin)
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._writer.close()
            if kind is None or self._keep_partial:
                (self._scratch / self.path.name).rename(self.path)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def declare(self, topic: str, message_type: str) -> None:
        """Declare a topic before its first message, so that it is in the bag even without one.

        Raises:
            InputError: ``type_unknown`` if the type's definition is not at hand,
                ``topic_type_changed`` if the topic carries another type.
        """
        self._connection(topic, message_type)

    def serialized(
        self, topic: str, stamp_ns: int, message_type: str, data: bytes | memoryview
    ) -> None:
        """Write one message that is CDR already; its type is ROS's own or made known before."""
        connection = self._connection(topic, message_type)
        self._writer.write(connection, stamp_ns, data)
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def _connection(self, topic: str, message_type: str) -> Any:
        if topic not in self._connections:
            try:
                self._types.generate_msgdef(message_type, ros_version=2)
            except KeyError as error:
                raise InputError(
                    "type_unknown", f"{topic} is of type {message_type}; no definition of {error}"
                ) from error
            connection = self._writer.add_connection(
                topic,
                message_type,
                typestore=self._types,
                offered_qos_profiles=[_latched()] if topic == "/tf_static" else [],
            )
            self._connections[topic] = message_type, connection
        known, connection = self._connections[topic]
        if known != message_type:
            raise InputError(
                "topic_type_changed", f"{topic} carries {known}; {message_type} was given"
            )
        return connection


def _latched() -> Any:
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    forever = QosTime(2147483647, 4294967295)
    return Qos(
        QosHistory.KEEP_LAST,
        1,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        False,
    )
