# SPDX-License-Identifier: Apache-2.0
"""Messages of bags as CDR bytes: what replay moves without deserialising."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from spike_perception.bags.reader import BagReader
from spike_perception.errors import InputError

Convert = Callable[[bytes], Sequence[bytes]]


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
        if not connections:  # which rosbags takes for all of them
            return
        converters = {c.id: self._converter(c.msgtype) for c in connections}
        messages = self._reader.messages(connections)
        while True:
            try:
                connection, time_ns, data = next(messages)
                converted = converters[connection.id](data)
            except StopIteration:
                return
            except Exception as error:
                raise InputError("bag_unreadable", f"{self.path} is damaged: {error}") from error
            for each in converted:
                yield RawMessage(connection.topic, time_ns, each)

    def _converter(self, message_type: str) -> Convert:
        """What makes messages in CDR of one stored message."""
        if self._reader.is2:
            return lambda data: (bytes(data),)
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
        return lambda data: (bytes(convert(data)),)
