# SPDX-License-Identifier: Apache-2.0
"""Recordings as replay publishes them: events of every kind become ``EventPacket`` messages."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from spike_perception.bags.event_files import Aedat4Recording
from spike_perception.bags.events import (
    ARRAY_TYPES,
    PACKET_TYPES,
    StampedEvents,
    events_from_cdr,
    events_from_ros1,
)
from spike_perception.bags.message_writer import MessageWriter
from spike_perception.bags.raw import Convert, RawBag, RawMessage
from spike_perception.sensing.event_packets import EventPacker, cut_to_packets

if TYPE_CHECKING:
    from typing_extensions import Self

EVENT_TOPIC = "/event_camera/events"
"""Where the events of a file are published."""
PACKET_TYPE = PACKET_TYPES[1]


class PacketMessages(MessageWriter):
    """Makes ``EventPacket`` messages of one camera's events, in ``mono``."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[bytes] = []
        self._size = 0, 0
        self._packer = EventPacker(*self._size)

    def serialized(
        self,
        topic: str,  # noqa: ARG002  # whoever asked knows
        stamp_ns: int,  # noqa: ARG002
        message_type: str,  # noqa: ARG002
        data: bytes | memoryview,
    ) -> None:
        """Keep the message."""
        self._made.append(bytes(data))

    def messages(self, given: StampedEvents) -> list[bytes]:
        """CDR of the packets that hold these events; none for no events.

        A packet's stamp is the host's time of its first event: the stamp given, moved on by the
        time that has passed since the first event given.
        """
        if (given.width, given.height) != self._size:
            self._size = given.width, given.height
            self._packer = EventPacker(*self._size)
        self._made = []
        for events in cut_to_packets(given.events):
            passed_ns = int(events.t_ns[0] - given.events.t_ns[0])
            stamp_ns = max(0, given.stamp_ns + passed_ns)
            packet = self._packer(events)
            self.event_packet("", stamp_ns, stamp_ns, given.frame_id, packet)
        return self._made


class PacketBag(RawBag):
    """A bag whose ``EventArray`` topics are read as ``EventPacket``."""

    @property
    def topics(self) -> dict[str, str]:
        """Name to type, as published, of every topic."""
        stored = super().topics
        return {n: PACKET_TYPE if kind in ARRAY_TYPES else kind for n, kind in stored.items()}

    def _converter(self, message_type: str) -> Convert:
        if message_type not in ARRAY_TYPES:
            return super()._converter(message_type)
        parse = events_from_cdr if self._reader.is2 else events_from_ros1
        packets = PacketMessages()
        return lambda data: packets.messages(parse(data))


class PacketFile:
    """An AEDAT4 file played like a bag of one topic, :data:`EVENT_TOPIC`.

    Args:
        path: the file.

    Raises:
        InputError: on entering: as :class:`~spike_perception.bags.event_files.Aedat4Recording`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics = {EVENT_TOPIC: PACKET_TYPE}

    def __enter__(self) -> Self:
        self._recording = Aedat4Recording(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    @property
    def duration_ns(self) -> int:
        """Time from the first to the last event (ns)."""
        return self._recording.duration_ns

    def latched(self, topic: str) -> bool:  # noqa: ARG002  # as of a bag
        """Events are not."""
        return False

    def raw(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Yield the packets, if their topic is among ``topics``.

        Raises:
            InputError: ``recording_unreadable`` for damaged data.
        """
        if EVENT_TOPIC not in topics:
            return
        packets = PacketMessages()
        size = self._recording.width, self._recording.height
        for events in self._recording:
            if not len(events):
                continue
            first_ns = int(events.t_ns[0])
            given = StampedEvents(first_ns, "event_camera", *size, events)
            for data in packets.messages(given):
                yield RawMessage(EVENT_TOPIC, first_ns, data)


Recording: TypeAlias = "PacketBag | PacketFile"


def open_recording(path: Path) -> Recording:
    """A bag, or an AEDAT4 file, to be played.

    Raises:
        InputError: on entering, as :class:`PacketBag` and :class:`PacketFile`.
    """
    return PacketFile(path) if path.suffix == ".aedat4" else PacketBag(path)
