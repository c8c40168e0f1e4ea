# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.sensing.decoders.event_words import encode_mono
from spike_perception.sensing.event_stream import EventPacket, EventStream, decode_all
from spike_perception.sensing.events import EventError, Events

MS = 1_000_000


def mono(seq: int, times_ns: list[int], size: tuple[int, int] = (8, 6)) -> EventPacket:
    base = min(times_ns, default=0)
    words = [t - base | 1 << 32 | 1 << 48 for t in times_ns]
    data = np.array(words, "<u8").tobytes()
    return EventPacket(size[1], size[0], seq, base, "mono", False, data)


def evt3(seq: int, words: list[int]) -> EventPacket:
    return EventPacket(6, 8, seq, 0, "evt3", False, np.array(words, "<u2").tobytes())


def refused(stream: EventStream, packet: EventPacket) -> str:
    with pytest.raises(EventError) as caught:
        stream.decode(packet)
    return caught.value.reason


def test_a_gap_in_seq_resets_the_decoder() -> None:
    stream = EventStream()
    start = [0x8000, 0x6000, 0x0001, 0x2001]
    assert [len(stream.decode(evt3(0, start)).events), stream.width, stream.height] == [1, 8, 6]
    assert stream.decode(evt3(1, [0x2002])).continues
    events, continues = stream.decode(evt3(4, [0x2002]))  # row and time may have been lost
    assert (len(events), continues) == (0, False)
    events, continues = stream.decode(evt3(5, start))
    assert (len(events), continues) == (1, True)
    assert stream.counts == {"packets": 4, "lost_packets": 2, "unsynchronised": 1}
    assert not stream.decode(evt3(0, start)).continues  # a bag starts over
    assert stream.counts["seq_restarts"] == 1


def test_packets_without_numbers_follow_each_other() -> None:
    stream = EventStream()
    assert [stream.decode(mono(0, [k])).continues for k in range(3)] == [False, True, True]
    assert stream.counts == {"packets": 3}


def test_time_that_falls_a_little_is_levelled() -> None:
    stream = EventStream()
    first = stream.decode(mono(1, [5 * MS, 9 * MS, 7 * MS, 10 * MS]))
    assert first.events.t_ns.tolist() == [5 * MS, 9 * MS, 9 * MS, 10 * MS]
    second = stream.decode(mono(2, [8 * MS, 11 * MS]))
    assert second.continues
    assert second.events.t_ns.tolist() == [10 * MS, 11 * MS]
    assert stream.counts["stepped_back"] == 2


def test_time_that_jumps_back_begins_a_new_run() -> None:
    stream = EventStream()
    stream.decode(mono(1, [900 * MS]))
    events, continues = stream.decode(mono(2, [901 * MS, 100 * MS, 99 * MS, 102 * MS]))
    assert not continues
    assert events.t_ns.tolist() == [100 * MS, 100 * MS, 102 * MS]
    assert stream.counts["time_jumps"] == 1
    assert stream.decode(mono(3, [103 * MS])).continues


def test_a_refused_packet_ends_the_run_but_not_the_stream() -> None:
    stream = EventStream()
    good = mono(1, [1])
    stream.decode(good)
    for seq, (fields, reason) in enumerate(
        (
            ({"events": b"123456789"}, "truncated_packet"),
            ({"encoding": "evt9"}, "unknown_encoding"),
            ({"width": 0}, "zero_size"),
            ({"height": 1 << 31}, "too_large"),
            ({"width": 1 << 15, "height": 1 << 15}, "too_large"),
            ({"time_base": 1 << 63}, "invalid_time_base"),
        )
    ):
        assert refused(stream, good._replace(seq=2 + 2 * seq, **fields)) == reason
        assert not stream.decode(good._replace(seq=3 + 2 * seq)).continues
    assert stream.decode(good._replace(seq=14)).continues
    assert "lost_packets" not in stream.counts


def test_another_size_or_encoding_begins_a_new_run() -> None:
    stream = EventStream()
    stream.decode(mono(1, [1]))
    assert not stream.decode(mono(2, [2], (4, 4))).continues
    assert not stream.decode(evt3(3, [0x8000, 0x6000])).continues
    assert stream.counts["format_changes"] == 2
    stream.reset()
    assert not stream.decode(evt3(9, [])).continues
    assert "lost_packets" not in stream.counts


def test_messages_hold_bytes_in_several_ways() -> None:
    from array import array

    events = Events(
        np.array([1, 2], np.uint16),
        np.array([3, 4], np.uint16),
        np.array([True, False]),
        np.array([5, 6], np.int64),
    )
    base, data = encode_mono(events)
    for held in (data, data.tobytes(), array("B", data.tobytes()), memoryview(data)):
        packet = EventPacket(6, 8, 0, base, "mono", False, held)
        assert decode_all([packet]).t_ns.tolist() == [5, 6]
