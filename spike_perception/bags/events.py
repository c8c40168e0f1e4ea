# SPDX-License-Identifier: Apache-2.0
"""Events of bags: ``EventPacket`` as ROS 2 drivers record it, ``EventArray`` of older bags."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spike_perception.bags.reader import BagReader
from spike_perception.sensing.event_stream import EventPacket
from spike_perception.sensing.events import EventError, Events

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

PACKET_TYPES = ("event_camera_msgs/msg/EventPacket", "spike_perception_msgs/msg/EventPacket")
ARRAY_TYPES = ("dvs_msgs/msg/EventArray", "prophesee_event_msgs/msg/EventArray")

# Bags that hold no definitions are read by these.
_PACKET = """\
std_msgs/Header header
uint32 height
uint32 width
uint64 seq
uint64 time_base
string encoding
bool is_bigendian
uint8[] events
"""
_EVENT = """\
uint16 x
uint16 y
builtin_interfaces/Time ts
bool polarity
"""
_ARRAY = """\
std_msgs/Header header
uint32 height
uint32 width
Event[] events
"""
DEFINITIONS = {
    **dict.fromkeys(PACKET_TYPES, _PACKET),
    **{name.replace("EventArray", "Event"): _EVENT for name in ARRAY_TYPES},
    **dict.fromkeys(ARRAY_TYPES, _ARRAY),
}
"""Texts of the message types, by ``package/msg/Name``."""


@dataclass(frozen=True)
class StampedPacket:
    """One packet of a bag: header stamp (ns), optical frame, and its fields."""

    stamp_ns: int
    frame_id: str
    packet: EventPacket


@dataclass(frozen=True)
class StampedEvents:
    """One ``EventArray`` of a bag.

    Attributes:
        stamp_ns: header stamp (ns).
        frame_id: optical frame.
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).
        events: times are the host's (ns since 1970); events off the sensor are left out.
    """

    stamp_ns: int
    frame_id: str
    width: int
    height: int
    events: Events


class EventBag(BagReader):
    """A bag opened for reading events; see :class:`~spike_perception.bags.reader.BagReader`."""

    def _typestore(self) -> Typestore:
        return _with_definitions(super()._typestore())

    def event_topic(self, topic: str = "") -> str:
        """The event topic named, or the only one if none is named.

        Raises:
            InputError: ``topic_missing`` or ``topic_ambiguous``; both list what there is.
        """
        return self._choose(topic, PACKET_TYPES + ARRAY_TYPES, "event")

    def packets(self, topic: str = "") -> Iterator[StampedPacket]:
        """Yield the packets of one ``EventPacket`` topic, in order of recording.

        Raises:
            InputError: ``topic_missing``, ``topic_ambiguous``, or ``bag_unreadable`` for damaged
                data. What the packets hold is not looked at.
        """
        topic = self._choose(topic, PACKET_TYPES, "EventPacket")
        for stamp_ns, message in self.messages(topic):
            yield _stamped_packet(stamp_ns, message)

    def arrays(self, topic: str = "") -> Iterator[StampedEvents]:
        """Yield the events of one ``EventArray`` topic, in order of recording.

        Raises:
            InputError: ``topic_missing``, ``topic_ambiguous``, or ``bag_unreadable``.
        """
        topic = self._choose(topic, ARRAY_TYPES, "EventArray")
        parse = events_from_cdr if self._reader.is2 else events_from_ros1
        for _, data in self._data(topic):
            try:
                yield parse(data)
            except EventError as error:
                raise self._damaged(topic, error) from error


def packet_from_cdr(data: bytes) -> StampedPacket:
    """Read an ``EventPacket`` in CDR; what it holds is not looked at.

    Raises:
        EventError: ``truncated_packet``.
    """
    try:
        message: Any = _packet_types().deserialize_cdr(data, PACKET_TYPES[1])
    # Damaged data breaks the parser in its own ways.
    except Exception as error:
        raise EventError("truncated_packet", f"no EventPacket in {len(data)} bytes") from error
    stamp = message.header.stamp
    return _stamped_packet(stamp.sec * 1_000_000_000 + stamp.nanosec, message)


@cache
def _packet_types() -> Typestore:
    from rosbags.typesys import Stores, get_typestore

    return _with_definitions(get_typestore(Stores.ROS2_JAZZY))


def _with_definitions(store: Typestore) -> Typestore:
    from rosbags.typesys import get_types_from_msg

    for name, text in DEFINITIONS.items():
        store.register(get_types_from_msg(text, name))
    return store


def _stamped_packet(stamp_ns: int, message: Any) -> StampedPacket:
    packet = EventPacket(
        message.height,
        message.width,
        message.seq,
        message.time_base,
        message.encoding,
        bool(message.is_bigendian),
        message.events,
    )
    return StampedPacket(stamp_ns, message.header.frame_id, packet)


_ROS1_EVENT = np.dtype(
    [("x", "<u2"), ("y", "<u2"), ("sec", "<u4"), ("nanosec", "<u4"), ("polarity", "u1")]
)


def events_from_ros1(data: bytes) -> StampedEvents:
    """Read a serialised ROS 1 ``EventArray`` without making an object of every event.

    Raises:
        EventError: ``truncated_packet``, ``zero_size``.
    """
    try:
        _, seconds, nanoseconds, length = struct.unpack_from("<IIII", data)
        frame_id = bytes(data[16 : 16 + length])
        height, width, count = struct.unpack_from("<III", data, 16 + length)
        events = np.frombuffer(data, _ROS1_EVENT, count, 28 + length)
    except (struct.error, ValueError) as error:
        raise EventError("truncated_packet", f"EventArray of {len(data)} bytes: {error}") from error
    return _stamped(
        (seconds, nanoseconds, frame_id, width, height),
        (events["x"], events["y"], events["sec"], events["nanosec"], events["polarity"]),
    )


def events_from_cdr(data: bytes) -> StampedEvents:
    """Read an ``EventArray`` in CDR without making an object of every event.

    Raises:
        EventError: ``truncated_packet``, ``zero_size``.
    """
    try:
        order = "<" if data[1] & 1 else ">"
        body = memoryview(data)[4:]
        seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", body)
        frame_id = bytes(body[12 : 12 + length]).rstrip(b"\0")
        at = (12 + length + 3) & ~3
        height, width, count = struct.unpack_from(f"{order}III", body, at)
        packed = np.frombuffer(body, np.uint8, max(16 * count - 3, 0), at + 12)
    except (struct.error, ValueError, IndexError) as error:
        raise EventError("truncated_packet", f"EventArray of {len(data)} bytes: {error}") from error
    # Alignment puts the first event at 0 and event k at 16 k - 2, its time always at 16 k + 4.
    rows = np.concatenate([packed, np.zeros(3 if count else 0, np.uint8)]).reshape(-1, 16)
    x = np.concatenate([rows[:1, 0:2], rows[:-1, 14:16]]).copy().view(f"{order}u2").ravel()
    y = np.concatenate([rows[:1, 2:4], rows[1:, 0:2]]).copy().view(f"{order}u2").ravel()
    sec = rows[:, 4:8].copy().view(f"{order}i4").ravel()
    nanosec = rows[:, 8:12].copy().view(f"{order}u4").ravel()
    header = seconds, nanoseconds, frame_id, width, height
    return _stamped(header, (x, y, sec, nanosec, rows[:, 12]))


def _stamped(
    header: tuple[int, int, bytes, int, int],
    fields: tuple[npt.NDArray[np.generic], ...],
) -> StampedEvents:
    seconds, nanoseconds, frame_id, width, height = header
    if width < 1 or height < 1:
        raise EventError("zero_size", f"event sensor is {width}x{height}; both must be at least 1")
    x, y, sec, nanosec, polarity = fields
    events = Events(
        x.astype(np.uint16),
        y.astype(np.uint16),
        polarity.astype(np.bool_),
        sec.astype(np.int64) * 1_000_000_000 + nanosec.astype(np.int64),
    )
    inside = (events.x < width) & (events.y < height)
    return StampedEvents(
        seconds * 1_000_000_000 + nanoseconds,
        frame_id.decode(errors="replace"),
        width,
        height,
        events if inside.all() else events[inside],
    )
