# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from spike_perception.bags.events import EventBag
from spike_perception.sensing.decoders.event_words import encode_mono
from spike_perception.sensing.event_stream import (
    JOINED_BYTES,
    EventPacket,
    EventStream,
    decode_all,
    joined,
)
from spike_perception.sensing.events import EventError, Events, concatenate

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


def test_joined_packets_decode_as_single_ones() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 16, 4000).tolist()
    words[:3] = [0x8000, 0x6000, 0x0001]
    cuts = sorted(rng.integers(0, 4000, 19).tolist())
    edges = [0, *cuts, 4000]
    packets = [evt3(7 + k, words[a:b]) for k, (a, b) in enumerate(pairwise(edges))]
    one, other = EventStream(), EventStream()
    expected = concatenate([one.decode(each).events for each in packets])
    (whole,) = joined(packets)
    found = other.decode(whole)
    assert (whole.seq, whole.packets) == (7, 20)
    for name in ("x", "y", "polarity", "t_ns"):
        assert getattr(found.events, name).tolist() == getattr(expected, name).tolist()
    assert other.counts == one.counts
    assert other.decode(evt3(27, [0x2001])).continues


def test_only_what_follows_in_one_format_is_joined() -> None:
    a, b, c, d = (evt3(k, [0x8000]) for k in (0, 1, 3, 4))
    cut = evt3(5, [])._replace(events=b"123")
    other = evt3(6, [0x8000])._replace(width=9)
    packets = [a, b, c, d, cut, other, mono(7, [1]), mono(8, [2]), evt3(0, []), evt3(0, [])]
    sizes = [each.packets for each in joined(packets)]
    assert sizes == [2, 2, 1, 1, 1, 1, 1, 1]
    large = evt3(1, [0] * (JOINED_BYTES // 2))
    assert joined([a, large]) == [a, large]
    assert joined([]) == []
    for size in ({"width": 0}, {"width": 1 << 20, "height": 1 << 20}):  # counted singly
        refused = [evt3(k, [0x8000])._replace(**size) for k in (0, 1)]
        assert joined(refused) == refused


def test_words_that_turn_time_to_and_fro_for_ever_do_no_harm() -> None:
    """The upper half of the time, always half a turn on: no 64 bits hold where that leads."""
    stream = EventStream()
    for sign in (0x7FF, 0x801):
        half = np.array([0x8000 | k * sign & 0xFFF for k in range(1 << 15)], "<u2").tobytes()
        stream.decode(evt3(0, [0x0001, 0x6000]))
        decoder = stream._decoder
        decoder._high = (1 << 37) * (1 if sign == 0x7FF else -1)
        for k in range(3):
            events, _ = stream.decode(evt3(1 + k, [])._replace(events=half + b"\x01\x20"))
            assert (np.abs(events.t_ns) < 1 << 60).all()


@pytest.mark.slow
def test_ten_million_events_a_second(data: Path) -> None:
    path = data / "event_bag"
    if not path.exists():
        pytest.skip(f"no {path}")
    with EventBag(path) as bag:
        packets = [each.packet for each in bag.packets()]
    best = 0.0
    for _ in range(20):
        stream, number = EventStream(), 0
        started = time.process_time()
        for k in range(0, len(packets), 16):  # as a node finds them in its queue
            number += sum(len(stream.decode(p).events) for p in joined(packets[k : k + 16]))
        best = max(best, number / (time.process_time() - started))
    assert number == 343_474
    assert best >= 10e6
