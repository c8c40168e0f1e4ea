# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.sensing.decoders import create_decoder, encodings
from spike_perception.sensing.decoders.event_words import encode_mono
from spike_perception.sensing.events import EventError, Events, concatenate

WIDTH, HEIGHT = 640, 480
US = 1000
Event = tuple[int, int, int, int]


def as_tuples(events: Events) -> list[Event]:
    columns = (events.x, events.y, events.polarity, events.t_ns)
    return [tuple(int(v) for v in row) for row in zip(*columns, strict=True)]


def evt3(words: list[int], decoder=None) -> list[Event]:
    decoder = decoder or create_decoder("evt3", WIDTH, HEIGHT)
    return as_tuples(decoder.decode(np.array(words, "<u2").view(np.uint8), 0))


class Evt3Reference:
    """EVT 3.0 read word by word, as its description goes."""

    def __init__(self) -> None:
        self.y = self.base = self.low = self.high = None
        self.polarity = 0

    def feed(self, words: list[int]) -> Iterator[Event]:
        for word in words:
            code, payload = word >> 12, word & 0xFFF
            address, bit = payload & 0x7FF, payload >> 11
            if code == 0:
                self.y = address
            elif code == 2:
                yield from self.event(address, bit)
            elif code == 3:
                self.base, self.polarity = address, bit
            elif code in (4, 5) and self.base is not None:
                length = 12 if code == 4 else 8
                for k in range(length):
                    if payload >> k & 1:
                        yield from self.event(self.base + k, self.polarity)
                self.base += length
            elif code == 6:
                self.low = payload
            elif code == 8 and self.high is None:
                self.high = payload
            elif code == 8:
                forward = (payload - self.high) % 4096
                self.high += forward if forward < 2048 else forward - 4096

    def event(self, x: int, polarity: int) -> Iterator[Event]:
        if None not in (self.y, self.high, self.low) and x < WIDTH and self.y < HEIGHT:
            yield x, self.y, polarity, (self.high * 4096 + self.low) * US


# Mostly words that occur, with small addresses; sometimes anything.
word = st.one_of(
    st.integers(0, 0xFFFF),
    st.builds(
        lambda code, payload: code << 12 | payload,
        st.sampled_from([0, 2, 2, 3, 3, 4, 5, 6, 8]),
        st.integers(0, 0xFFF) | st.integers(0, 500),
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(word, max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_evt3_equals_the_state_machine_however_it_is_cut(words: list[int], cuts: list[int]) -> None:
    expected = list(Evt3Reference().feed(words))
    assert evt3(words) == expected
    decoder = create_decoder("evt3", WIDTH, HEIGHT)
    at = [0, *sorted(cuts), len(words)]
    pieces = [evt3(words[a:b], decoder) for a, b in pairwise(at)]
    assert [event for piece in pieces for event in piece] == expected


def test_evt3_longer_than_a_block_equals_the_state_machine() -> None:
    rng = np.random.default_rng(0)
    codes = rng.choice([0, 2, 3, 4, 5, 6, 8, 14], 100_000)
    words = (codes << 12 | rng.integers(0, 4096, codes.size)).tolist()
    expected = list(Evt3Reference().feed(words))
    assert len(expected) > 10_000
    assert evt3(words) == expected


def test_evt3_time_wraps_and_may_fall_back() -> None:
    words = [0x8FFF, 0x6001, 0x0005, 0x2007]  # high 4095, low 1, row 5, column 7
    words += [0x8000, 0x2007]  # wrapped: 4096
    words += [0x8FFF, 0x2007]  # fell back across the wrap
    words += [0x8001, 0x2007]
    times = [t // US for *_, t in evt3(words)]
    assert times == [4095 * 4096 + 1, 4096 * 4096 + 1, 4095 * 4096 + 1, 4097 * 4096 + 1]
    decoder = create_decoder("evt3", WIDTH, HEIGHT)
    for turn in range(300):  # 75 turns of 16.8 s, more than an int32 of µs holds
        ((*_, t),) = evt3([0x8000 | turn * 1024 % 4096, 0x6000, 0x0000, 0x2000], decoder)
        assert t == turn * 1024 * 4096 * US


def test_evt3_counts_what_it_passes_over() -> None:
    decoder = create_decoder("evt3", WIDTH, HEIGHT)
    assert evt3([0x2001, 0x3000, 0x5003, 0x0001, 0x2001], decoder) == []  # no time yet
    assert +decoder.counts == {"unsynchronised": 4}
    assert evt3([0x8000, 0x6000, 0x2001], decoder) == [(1, 1, 0, 0)]
    assert evt3([0x2000 | 640, 0x27FF, 0x0000 | 480, 0x2000], decoder) == []
    assert evt3([0xB000, 0xC123, 0x1000, 0xA000, 0x9000, 0xE018, 0xF000, 0x7000], decoder) == []
    assert +decoder.counts == {"unsynchronised": 4, "outside": 3, "unknown_words": 3}
    decoder.reset()
    assert evt3([0x2001], decoder) == []
    assert decoder.counts["unsynchronised"] == 5
    assert evt3([], decoder) == []


def test_evt3_is_little_endian_on_every_machine() -> None:
    data = np.array([0x8000, 0x6002, 0x0003, 0x2804], "<u2").view(np.uint8)
    decoder = create_decoder("evt3", WIDTH, HEIGHT)
    assert as_tuples(decoder.decode(data, 77, True)) == [(4, 3, 1, 2 * US)]


def test_libcaer_cmp() -> None:
    words = [
        0x2000 | 17,  # column
        0x3800 | 9,  # ON in row 9, at the time base
        0x1000 | 5,  # time low: 5 µs
        0x4000 | 16,  # OFF from row 16
        0x5000 | 0b10000001,
        0x0001,  # time high: the low half stays as it was
        0x3000 | 2,
    ]
    expected = [(17, 9, 1, 0), (17, 16, 0, 5), (17, 23, 0, 5), (17, 2, 0, 4096 + 5)]
    base = 1_700_000_000_000_000_007
    for order, swapped in (("<u2", False), (">u2", True)):
        decoder = create_decoder("libcaer_cmp", WIDTH, HEIGHT)
        data = np.array(words, order).view(np.uint8)
        for _ in range(2):  # time starts at the base in every packet
            seen = as_tuples(decoder.decode(data, base, swapped))
            assert seen == [(x, y, p, base + t * US) for x, y, p, t in expected]


def test_libcaer() -> None:
    rows = [(3, 4, 1, 2**31 - 2), (639, 479, 0, 2**31 - 1), (640, 0, 1, 0), (1, 2, 1, 1)]
    words = np.array([(x << 17 | y << 2 | p << 1 | 1, t) for x, y, p, t in rows], "<u4")
    decoder = create_decoder("libcaer", WIDTH, HEIGHT)
    seen = as_tuples(decoder.decode(words.view(np.uint8).ravel(), 10))
    wrapped = [2**31 - 2, 2**31 - 1, 2**31 + 1]
    assert seen == [
        (*row[:3], 10 + t * US) for row, t in zip([*rows[:2], rows[3]], wrapped, strict=True)
    ]
    assert +decoder.counts == {"outside": 1}


def test_mono_bits() -> None:
    value = 123 | 5 << 32 | 6 << 48 | 1 << 63
    for order, swapped in (("<u8", False), (">u8", True)):
        decoder = create_decoder("mono", WIDTH, HEIGHT)
        data = np.array([value, 7 << 32], order).view(np.uint8)
        assert as_tuples(decoder.decode(data, 1000, swapped)) == [(5, 6, 1, 1123), (7, 0, 0, 1000)]


event = st.tuples(
    st.integers(0, 0xFFFF), st.integers(0, 0x7FFF), st.booleans(), st.integers(0, 2**32 - 1)
)


@settings(deadline=None)
@given(st.lists(event, max_size=50), st.integers(0, 2**61))
def test_mono_round_trip(rows: list[tuple[int, int, bool, int]], start: int) -> None:
    x, y, polarity, dt = zip(*rows, strict=True) if rows else ([], [], [], [])
    events = Events(
        np.array(x, np.uint16),
        np.array(y, np.uint16),
        np.array(polarity, np.bool_),
        np.array(dt, np.int64) + start,
    )
    base, data = encode_mono(events)
    assert data.size == 8 * len(rows)
    decoder = create_decoder("mono", 1 << 16, 1 << 15)
    assert as_tuples(decoder.decode(data, base)) == as_tuples(events)


def test_mono_holds_four_seconds_of_rows_below_32768() -> None:
    one = np.zeros(2, np.uint16)
    flags = np.zeros(2, np.bool_)
    for row, times in ((0, [0, 1 << 32]), (0, [1 << 32, 0]), (0, [-1, 0]), (1 << 15, [0, 1])):
        events = Events(one, one + row, flags, np.array(times, np.int64))
        with pytest.raises(EventError) as caught:
            encode_mono(events)
        assert caught.value.reason == "invalid_events"


@pytest.mark.parametrize("encoding", encodings())
def test_packet_cut_within_a_word(encoding: str) -> None:
    decoder = create_decoder(encoding, WIDTH, HEIGHT)
    with pytest.raises(EventError) as caught:
        decoder.decode(np.zeros(9, np.uint8), 0)
    assert caught.value.reason == "truncated_packet"
    assert len(decoder.decode(np.zeros(0, np.uint8), 0)) == 0


@pytest.mark.parametrize("encoding", encodings())
@settings(deadline=None, max_examples=30)
@given(data=st.binary(max_size=64), big=st.booleans())
def test_any_bytes_decode_to_events_on_the_sensor(encoding: str, data: bytes, big: bool) -> None:
    decoder = create_decoder(encoding, 33, 17)
    whole = np.frombuffer(data[: len(data) // 8 * 8], np.uint8)
    events = decoder.decode(whole, 1 << 61, big)
    assert (events.x < 33).all()
    assert (events.y < 17).all()
    assert (events.x.dtype, events.polarity.dtype) == (np.uint16, np.bool_)
    assert (events.y.dtype, events.t_ns.dtype) == (np.uint16, np.int64)


def test_refusals() -> None:
    for arguments, reason in (
        (("evt2", 4, 4), "unknown_encoding"),
        (("", 4, 4), "unknown_encoding"),
        (("mono", 0, 4), "zero_size"),
        (("evt3", 4, -1), "zero_size"),
    ):
        with pytest.raises(EventError) as caught:
            create_decoder(*arguments)
        assert caught.value.reason == reason
    assert len(concatenate([])) == 0
