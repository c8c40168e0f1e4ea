# SPDX-License-Identifier: Apache-2.0
"""Messages of bags as CDR bytes: what replay and record move without deserialising."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from spike_perception.bags.reader import BagReader
from spike_perception.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self

Convert = Callable[[bytes], bytes]


@dataclass(frozen=True)
class RawMessage:
    """One message: topic, time of recording [ns], and CDR bytes of its ROS 2 type."""

    topic: str
    time_ns: int
    data: bytes


class RawBag(BagReader):
    """A bag read as ROS 2 CDR; messages of ROS 1 bags are converted on the way."""

    def latched(self, topic: str) -> bool:
        """Whether late subscribers expect the last message of ``topic``, as of ``/tf_static``."""
        for connection in self._reader.connections:
            if connection.topic == topic:
                profiles = getattr(connection.ext, "offered_qos_profiles", [])
                if any(profile.durability.name == "TRANSIENT_LOCAL" for profile in profiles):
                    return True
                if getattr(connection.ext, "latching", None):
                    return True
        return topic in ("/tf_static", "/map")

    def raw(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Yield the messages of ``topics`` in order of recording.

        Raises:
            InputError: ``bag_unreadable`` for damaged data.
        """
        connections = [c for c in self._reader.connections if c.topic in topics]
        converters = {c.id: self._converter(c.msgtype) for c in connections}
        messages = self._reader.messages(connections)
        while True:
            try:
                connection, time_ns, data = next(messages)
                data = converters[connection.id](data)
            except StopIteration:
                return
            except Exception as error:
                raise InputError("bag_unreadable", f"{self.path} is damaged: {error}") from error
            yield RawMessage(connection.topic, time_ns, data)

    def _converter(self, message_type: str) -> Convert:
        if self._reader.is2:
            return bytes
        from rosbags.convert.converter import generate_message_converter
        from rosbags.typesys import Stores, get_typestore

        target = get_typestore(Stores.ROS2_JAZZY)
        if message_type not in target.fielddefs:
            # Own types of the bag keep their definition; only std_msgs differ between ROS 1 and 2.
            target.register({message_type: self._reader.typestore.fielddefs[message_type]})
        convert = generate_message_converter(
            self._reader.typestore,
            target,
            message_type,
            message_type,
            {},
            src_is2=False,
            dst_is2=True,
        )
        return lambda data: bytes(convert(data))


class RawBagWriter:
    """A new bag of CDR messages, as a context manager; it is complete after the block ends.

    Args:
        path: folder of the new bag; must not exist.
        definitions: for types that are not of ROS itself: ``package/msg/Name`` to the text of its
            ``.msg`` file.
        storage: "mcap" or "sqlite3".
    """

    def __init__(
        self, path: Path, definitions: Mapping[str, str] | None = None, storage: str = "mcap"
    ) -> None:
        self.path = path
        self._definitions = definitions or {}
        self._storage = storage
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> Self:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        if self.path.exists():
            raise InputError(
                "output_exists", f"{self.path} exists; give another path or remove it first"
            )
        self._types = get_typestore(Stores.ROS2_JAZZY)
        for name, text in self._definitions.items():
            self._types.register(get_types_from_msg(text, name))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        plugin = StoragePlugin.MCAP if self._storage == "mcap" else StoragePlugin.SQLITE3
        self._writer = Writer(self.path, version=9, storage_plugin=plugin)
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    def add_topic(self, topic: str, message_type: str) -> None:
        """Declare a topic.

        Raises:
            InputError: ``type_unknown`` if the type's definition is not at hand.
        """
        if message_type not in self._types.fielddefs:
            raise InputError(
                "type_unknown", f"{topic} is of type {message_type}, whose definition is not known"
            )
        self._connections[topic] = self._writer.add_connection(
            topic, message_type, typestore=self._types
        )

    def write(self, message: RawMessage) -> None:
        """Append a message of a declared topic."""
        self._writer.write(self._connections[message.topic], message.time_ns, message.data)
