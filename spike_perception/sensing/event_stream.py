# SPDX-License-Identifier: Apache-2.0
"""The packets of one event camera, in order, as events whose time never falls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from spike_perception.sensing.decoders import Decoder, create_decoder
from spike_perception.sensing.events import EventError, Events, concatenate
from spike_perception.sensing.image import RawBytes

MAX_PACKET_BYTES = 1 << 23
"""Largest accepted packet: eight times what drivers gather, and 50 million events at worst."""
MAX_SIDE = 1 << 15
"""Largest accepted width and height of a sensor (pixels)."""
MAX_PIXELS = 1 << 22
"""Largest accepted sensor (4.2 million pixels): what is kept for every pixel is bounded by it."""
JOINED_BYTES = 1 << 16
"""Packets are joined up to this size: what a decoder works on at once."""
JOINABLE = ("evt3",)
"""Encodings whose packets are cuts of one stream of words, without a time base of their own."""
TOLERATED_STEP_BACK_NS = 50_000_000
"""Cameras' time bases fall back by some ms now and then; more is another recording."""


class EventPacket(NamedTuple):
    """The fields of an ``EventPacket`` message; see ``spike_perception_msgs/msg/EventPacket``.

    Attributes:
        packets: how many packets it was joined from (see :func:`joined`); ``seq`` and
            ``time_base`` are then the first one's.
    """

    height: int
    width: int
    seq: int
    time_base: int
    encoding: str
    is_bigendian: bool
    events: RawBytes
    packets: int = 1


def joined(packets: Sequence[EventPacket]) -> list[EventPacket]:
    """Join packets that follow on each other, where one encoding lets them be read as one.

    What a decoder costs beside its events it costs a packet, so a queue of small packets is worked
    off twice as fast. Events and counts are the same either way.

    Args:
        packets: in order of arrival.

    Returns:
        Packets of at most :data:`JOINED_BYTES` where they were joined, in the same order.
    """
    if len(packets) < 2:
        return list(packets)
    result: list[EventPacket] = []
    parts: list[RawBytes] = []
    held = 0  # bytes in parts, which wait to become the last of the result
    for packet in packets:
        size = _size(packet)
        before = result[-1] if result else None
        if before is not None and held + size <= JOINED_BYTES and _follows(before, packet, size):
            parts.append(packet.events)
            held += size
            result[-1] = before._replace(packets=before.packets + 1)
            continue
        _close(result, parts)
        result.append(packet)
        parts, held = [packet.events], size
    _close(result, parts)
    return result


def _follows(before: EventPacket, packet: EventPacket, size: int) -> bool:
    """Whether the packet's bytes may stand right behind those before; both of whole words."""
    same = (before.encoding, before.width, before.height)
    return (
        packet.encoding in JOINABLE
        and 0 < packet.width * packet.height <= MAX_PIXELS  # refused ones are counted singly
        and (packet.encoding, packet.width, packet.height) == same
        and packet.seq == before.seq + before.packets
        and size % 2 == 0
        and _size(before) % 2 == 0
    )


def _size(packet: EventPacket) -> int:
    return np.frombuffer(packet.events, np.uint8).size


def _close(result: list[EventPacket], parts: list[RawBytes]) -> None:
    if len(parts) > 1:
        result[-1] = result[-1]._replace(events=b"".join(bytes(each) for each in parts))


class Decoded(NamedTuple):
    """What one packet held.

    Attributes:
        events: in order of time, none before the last event of an earlier packet.
        continues: whether they follow on the events before without a gap. False for the first
            packet, after lost packets, and when time or camera changed: what was gathered from
            earlier events is then to be dropped.
    """

    events: Events
    continues: bool


class EventStream:
    """Decodes packets and watches over their order.

    A jump in ``seq``, a new size or encoding, a refused packet, and time that falls by more than
    :data:`TOLERATED_STEP_BACK_NS` begin a new run: the decoder starts afresh. Smaller steps back
    are levelled: such an event gets the time of the one before.

    Attributes:
        width: columns of the sensor (pixels); 0 before the first packet.
        height: rows of the sensor (pixels); 0 before the first packet.
    """

    def __init__(self) -> None:
        self.width = self.height = 0
        self._encoding = ""
        self._decoder: Decoder | None = None
        self._counts: Counter[str] = Counter()
        self._seq: int | None = None
        self._last_ns: int | None = None
        self._broken = True

    @property
    def counts(self) -> Counter[str]:
        """What happened so far.

        ``packets``, ``lost_packets`` (by ``seq``), ``seq_restarts`` (it fell or stood still),
        ``format_changes``, ``stepped_back`` (events levelled), ``time_jumps``, and the counts of
        :class:`~spike_perception.sensing.decoders.Decoder`. Refused packets are the caller's to
        count, by the reason of their error.
        """
        return self._counts + (self._decoder.counts if self._decoder else Counter())

    def reset(self) -> None:
        """Begin a new run with the next packet; counts go on."""
        self._broken = True
        self._seq = None

    def decode(self, packet: EventPacket) -> Decoded:
        """Decode the next packet.

        Raises:
            EventError: ``unknown_encoding``, ``zero_size``, ``too_large``, ``invalid_time_base``
                or ``truncated_packet``. The stream can go on; the next packet begins a new run.
        """
        try:
            return self._decode(packet)
        except EventError:
            self._broken = True
            raise

    def _decode(self, packet: EventPacket) -> Decoded:
        self._follow(packet.seq, packet.packets)
        data = np.frombuffer(packet.events, np.uint8)
        if (
            data.size > MAX_PACKET_BYTES
            or max(packet.width, packet.height) > MAX_SIDE
            or packet.width * packet.height > MAX_PIXELS
        ):
            raise EventError(
                "too_large",
                f"packet of {data.size} bytes from a {packet.width}x{packet.height} sensor; at "
                f"most {MAX_PACKET_BYTES} bytes, {MAX_SIDE} pixels a side and {MAX_PIXELS} in all "
                "are accepted",
            )
        if not 0 <= packet.time_base < 1 << 62:
            raise EventError(
                "invalid_time_base", f"time base is {packet.time_base} ns; allowed is 0 to 2^62"
            )
        decoder = self._matching_decoder(packet)
        if self._broken:
            decoder.reset()
            self._last_ns = None
        events = decoder.decode(data, packet.time_base, packet.is_bigendian)
        self._counts["packets"] += packet.packets
        continues = not self._broken
        self._broken = False
        return self._in_order(events, continues)

    def _matching_decoder(self, packet: EventPacket) -> Decoder:
        wanted = packet.encoding, packet.width, packet.height
        if self._decoder is None or wanted != (self._encoding, self.width, self.height):
            decoder = create_decoder(*wanted)
            if self._decoder is not None:
                self._counts.update(self._decoder.counts)
                self._counts["format_changes"] += 1
            self._encoding, self.width, self.height = wanted
            self._decoder, self._broken = decoder, True
        return self._decoder

    def _follow(self, seq: int, packets: int) -> None:
        """Compare ``seq`` with the packet before; a stream of zeros has none."""
        before, self._seq = self._seq, seq + packets - 1
        if before is None or seq == before + 1 or seq == before == 0:
            return
        self._broken = True
        if seq > before:
            self._counts["lost_packets"] += seq - before - 1
        else:
            self._counts["seq_restarts"] += 1

    def _in_order(self, events: Events, continues: bool) -> Decoded:
        if not len(events):
            return Decoded(events, continues)
        t_ns = events.t_ns
        last = int(t_ns[0]) if self._last_ns is None else self._last_ns
        if t_ns[0] < last or bool((t_ns[1:] < t_ns[:-1]).any()):
            steps = np.diff(t_ns, prepend=last)
            jumps = np.flatnonzero(steps < -TOLERATED_STEP_BACK_NS)
            if jumps.size:
                self._counts["time_jumps"] += int(jumps.size)
                events, continues = events[int(jumps[-1]) :], False
                t_ns = events.t_ns
                last = int(t_ns[0])
            level = np.maximum.accumulate(np.maximum(t_ns, last))
            self._counts["stepped_back"] += int(np.count_nonzero(level != t_ns))
            events = Events(events.x, events.y, events.polarity, level)
        self._last_ns = int(events.t_ns[-1])
        return Decoded(events, continues)


def decode_all(packets: list[EventPacket]) -> Events:
    """All events of a complete recording, in order.

    Raises:
        EventError: as :meth:`EventStream.decode`.
    """
    stream = EventStream()
    return concatenate([stream.decode(each).events for each in packets])
