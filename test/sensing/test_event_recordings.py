# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike_perception.sensing.event_recordings import recording_windows
from spike_perception.sensing.events import EventError, Events, concatenate, no_events


def at(*times_ns: int) -> Events:
    count = len(times_ns)
    where = np.arange(count, dtype=np.uint16)
    return Events(where, where, np.ones(count, np.bool_), np.array(times_ns, np.int64))


def test_equal_windows_hold_every_event_once() -> None:
    events = at(*range(1_000_000_007, 1_000_000_607, 2))
    windows = recording_windows(events, 6)
    assert [len(each) for each in windows] == [50] * 6
    np.testing.assert_array_equal(concatenate(windows).t_ns, events.t_ns)


def test_overlapping_windows() -> None:
    windows = recording_windows(at(*range(70)), 6, overlap=0.5)
    assert [(each.t_ns[0], each.t_ns[-1]) for each in windows] == [
        (10 * k, 10 * k + 19) for k in range(6)
    ]


def test_stretches_without_events_are_left_out() -> None:
    assert [len(each) for each in recording_windows(at(0, 1, 99), 3)] == [2, 1]
    assert [len(each) for each in recording_windows(at(5, 5), 3)] == [2]


def test_windows_of_a_length() -> None:
    windows = recording_windows(at(0, 30_000_000, 49_999_999, 50_000_000, 120_000_000), 6, 50.0)
    assert [len(each) for each in windows] == [3, 1, 1]


@given(
    st.lists(st.integers(0, 10**15), min_size=1, max_size=30),
    st.integers(1, 9),
    st.floats(0, 0.95),
)
def test_no_event_is_lost(times: list[int], steps: int, overlap: float) -> None:
    windows = recording_windows(at(*sorted(times)), steps, overlap=overlap)
    assert 1 <= len(windows) <= steps
    assert set(concatenate(windows).t_ns.tolist()) == set(times)


@pytest.mark.parametrize(
    ("events", "steps", "duration_ms", "overlap"),
    [(no_events(), 1, 0, 0), (at(1), 0, 0, 0), (at(1), 1, -1, 0), (at(1), 1, 0, 1)],
)
def test_refusals(events: Events, steps: int, duration_ms: float, overlap: float) -> None:
    with pytest.raises(EventError):
        recording_windows(events, steps, duration_ms, overlap)
