# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.sensing.decoders.event_words import encode_mono
from spike_perception.sensing.event_noise import NoiseConfig
from spike_perception.sensing.event_stream import EventPacket
from spike_perception.sensing.event_windows import (
    EventConfig,
    SlidingWindows,
    Window,
    WindowConfig,
    WindowedPackets,
)
from spike_perception.sensing.events import EventError, Events

MS = 1_000_000


def at(times_ns: list[int] | np.ndarray) -> Events:
    """Events that are told apart by their column."""
    t_ns = np.asarray(times_ns, np.int64)
    number = len(t_ns)
    return Events(
        np.arange(number, dtype=np.uint16),
        np.zeros(number, np.uint16),
        np.ones(number, np.bool_),
        t_ns,
    )


def columns(windows: list[Window]) -> list[list[int]]:
    return [each.events.x.tolist() for each in windows]


def test_by_duration() -> None:
    windows = SlidingWindows(WindowConfig(duration_ms=10, overlap=0.5, min_events=1))
    seen = windows.feed(at([0, 4 * MS, 5 * MS, 9 * MS, 10 * MS, 16 * MS]))
    assert columns(seen) == [[0, 1, 2, 3], [2, 3, 4]]
    assert [(w.start_ns, w.end_ns) for w in seen] == [(0, 10 * MS), (5 * MS, 15 * MS)]
    assert columns(windows.flush()) == [[4, 5]]
    assert windows.flush() == []


def test_by_count() -> None:
    windows = SlidingWindows(WindowConfig(duration_ms=1000, events=4, overlap=0.5, min_events=1))
    seen = windows.feed(at([10, 20, 30, 40, 50, 60, 70]))
    assert columns(seen) == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert (seen[1].start_ns, seen[1].end_ns) == (30, 61)


def test_whichever_comes_first() -> None:
    windows = SlidingWindows(WindowConfig(duration_ms=10, events=3, overlap=0, min_events=1))
    times = [0, 1 * MS, 2 * MS, 3 * MS, 14 * MS, 15 * MS, 40 * MS]
    assert columns(windows.feed(at(times))) == [[0, 1, 2], [3], [4, 5]]


def test_silence_is_skipped_in_steps() -> None:
    windows = SlidingWindows(WindowConfig(duration_ms=10, overlap=0.5, min_events=1))
    year = 365 * 86_400_000 * MS
    seen = windows.feed(at([0, year + 1, year + 20 * MS]))
    assert columns(seen) == [[0], [1], [1]]
    assert all(w.start_ns % (5 * MS) == 0 for w in seen)
    assert columns(windows.flush()) == [[2]]


def test_sparse_windows_are_counted() -> None:
    windows = SlidingWindows(WindowConfig(duration_ms=10, overlap=0, min_events=2))
    assert columns(windows.feed(at([0, 11 * MS, 12 * MS, 21 * MS]))) == [[1, 2]]
    assert windows.counts == {"windows": 1, "sparse": 1}


def test_reset_drops_the_open_window() -> None:
    windows = SlidingWindows(WindowConfig(duration_ms=10, overlap=0, min_events=1))
    windows.feed(at([0, 1]))
    windows.reset()
    windows.reset()
    assert columns(windows.feed(at([5 * MS, 16 * MS]))) == [[0]]
    assert windows.counts == {"windows": 1, "dropped": 1}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 60), max_size=120),
    st.lists(st.integers(0, 120), max_size=5),
    st.sampled_from([0, 1, 7, 30]),
    st.sampled_from([0.0, 0.3, 0.9]),
)
def test_windows_do_not_depend_on_packets(
    gaps: list[int], cuts: list[int], events: int, overlap: float
) -> None:
    whole = at(np.cumsum(gaps) * (MS // 10))
    config = WindowConfig(duration_ms=10, events=events, overlap=overlap, min_events=1)
    one = SlidingWindows(config)
    expected = one.feed(whole)
    other = SlidingWindows(config)
    edges = [0, *sorted(cuts), len(whole)]
    seen = [w for a, b in pairwise(edges) for w in other.feed(whole[a:b])]
    assert columns(seen) == columns(expected)
    assert [w.start_ns for w in seen] == [w.start_ns for w in expected]
    assert columns(other.flush()) == columns(one.flush())
    for window in expected:
        t_ns = window.events.t_ns
        assert window.start_ns <= t_ns[0]
        assert t_ns[-1] < window.end_ns <= window.start_ns + 10 * MS
        assert len(window.events) <= (events or 10**9)


def packet(seq: int, start_ms: int) -> EventPacket:
    """A line of 20 columns within 1 ms, and one event far from it."""
    number = 21
    events = Events(
        np.append(np.arange(20), 60).astype(np.uint16),
        np.append(np.full(20, 5), 40).astype(np.uint16),
        np.ones(number, np.bool_),
        start_ms * MS + np.arange(number, dtype=np.int64) * (MS // number),
    )
    base, data = encode_mono(events)
    return EventPacket(48, 64, seq, base, "mono", False, data)


def config(**window: float) -> EventConfig:
    return EventConfig(WindowConfig(**{"duration_ms": 3, "overlap": 0, **window}), NoiseConfig())


def test_packets_to_windows_without_noise() -> None:
    source = WindowedPackets(config(min_events=10))
    fed = [source.feed(packet(k, k)) for k in range(4)]
    assert [continues for _, continues in fed] == [False, True, True, True]
    windows = [w for each, _ in fed for w in each]
    # From the second event, as the first has no neighbour yet, to the first of the fourth packet.
    assert [len(w.events) for w in windows] == [19 + 20 + 20 + 1]
    assert not (windows[0].events.x == 60).any()
    assert source.counts["noise"] == 5
    assert source.counts["events"] == 84


def test_a_lost_packet_drops_the_window() -> None:
    source = WindowedPackets(config(min_events=1))
    source.feed(packet(0, 0))
    windows, continues = source.feed(packet(2, 2))
    assert (windows, continues) == ([], False)
    (window,) = [w for k in (3, 4, 5) for w in source.feed(packet(k, k))[0]]
    assert window.start_ns >= 2 * MS
    counts = source.counts
    assert (counts["lost_packets"], counts["dropped"], counts["windows"]) == (1, 1, 1)


def test_a_refused_packet_drops_the_window() -> None:
    source = WindowedPackets(config(min_events=1))
    source.feed(packet(0, 0))
    with pytest.raises(EventError):
        source.feed(packet(1, 1)._replace(events=b"1"))
    assert source.counts["dropped"] == 1
    assert not source.feed(packet(2, 2))[1]
    source.reset()
    assert source.counts["dropped"] == 2
    assert len(source.flush()) == 0
