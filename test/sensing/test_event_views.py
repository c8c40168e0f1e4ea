# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.sensing.event_views import event_frame, event_points, sample_indices
from spike_perception.sensing.events import EventError, Events, no_events


def events(rows: list[tuple[int, int, int, int]]) -> Events:
    x, y, p, t = np.array(rows).T
    return Events(x.astype(np.uint16), y.astype(np.uint16), p.astype(bool), t.astype(np.int64))


def test_samples_are_spread_evenly_and_repeat_evenly() -> None:
    assert sample_indices(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert sample_indices(2, 5).tolist() == [0, 0, 0, 1, 1]
    assert sample_indices(5, 5).tolist() == [0, 1, 2, 3, 4]
    drawn = sample_indices(4, 10, np.random.default_rng(0))
    assert np.bincount(drawn).min() >= 2
    assert len(drawn) == 10
    assert (np.diff(drawn) >= 0).all()
    for available, wanted in ((0, 5), (5, 0)):
        with pytest.raises(EventError):
            sample_indices(available, wanted)


def test_points() -> None:
    window = events([(0, 0, 1, 100), (639, 479, 0, 150), (320, 240, 1, 300)])
    points = event_points(window, 640, 480, 3)
    assert points.dtype == np.float32
    half = 1 / 640
    expected = [
        [half - 1, half - 0.75, 0, 1],
        [1 - half, 0.75 - half, 0.25, -1],
        [half, half, 1, 1],
    ]
    np.testing.assert_allclose(points, expected, atol=1e-6)
    # z spans the window's events, not the chosen ones.
    assert event_points(window, 640, 480, 2)[:, 2].tolist() == [0, 0.25]


def test_points_of_one_time_and_of_large_times() -> None:
    assert event_points(events([(1, 1, 1, 7)]), 4, 4, 3)[:, 2].tolist() == [0, 0, 0]
    epoch = 1_700_000_000 * 10**9
    points = event_points(events([(1, 1, 1, epoch + k) for k in (0, 1, 2)]), 4, 4, 3)
    assert points[:, 2].tolist() == [0, 0.5, 1]
    with pytest.raises(EventError):
        event_points(no_events(), 4, 4, 3)


def test_frame_of_counts() -> None:
    window = events([(0, 0, 1, 0), (0, 0, 1, 1), (0, 0, 0, 2), (2, 1, 0, 3)])
    frame = event_frame(window, 3, 2)
    assert frame.shape == (2, 3, 3)
    assert frame.dtype == np.uint8
    assert frame[0, 0, 1] == 255
    assert frame[0, 0, 0] > frame[0, 0, 2] == frame[1, 2, 2] > 0
    assert frame[1, 2, 0] == 0
    assert np.count_nonzero(frame[:, :, 1]) == 2


def test_frame_of_recency() -> None:
    window = events([(0, 0, 1, 0), (1, 0, 1, 100), (1, 0, 0, 50), (1, 0, 0, 100)])
    frame = event_frame(window, 3, 2, "surface")
    assert frame[0, :, 1].tolist() == [0, 255, 0]
    assert frame[0, 1].tolist() == [255, 255, 255]


def test_frames_without_events_are_black() -> None:
    for kind in ("counts", "surface"):
        assert not event_frame(no_events(), 5, 4, kind).any()
    with pytest.raises(EventError):
        event_frame(no_events(), 5, 4, "colour")
