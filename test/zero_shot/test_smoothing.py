# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.smoothing import CountsAverage

from .example import pack, spike_counts

SECOND = 1_000_000_000


def frames(count: int = 5) -> np.ndarray:
    return spike_counts(pack().rows, np.arange(count) % 6).astype(np.float32)


def test_without_a_time_constant_every_frame_is_itself():
    average = CountsAverage(0.0)
    for k, frame in enumerate(frames()):
        assert np.array_equal(average.update(frame, k * SECOND), frame)


def test_logits_of_the_average_are_the_average_of_the_logits():
    head, average, expected = Head(pack()), CountsAverage(2.0), None
    keep = np.exp(-0.5 / 2.0)
    for k, frame in enumerate(frames()):
        new = head.logits(frame)
        expected = new if expected is None else keep * expected + (1 - keep) * new
        found = head.logits(average.update(frame, k * SECOND // 2))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.05)


def test_after_a_long_gap_the_newest_counts_alone_and_after_a_reset_at_once():
    first, second, third = frames(3)
    average = CountsAverage(1.0)
    average.update(first, SECOND)
    np.testing.assert_allclose(average.update(second, 101 * SECOND), second)
    average.reset()
    assert np.array_equal(average.update(third, 101 * SECOND), third)


def test_two_frames_of_one_stamp_leave_the_average_as_it_is():
    first, second = frames(2)
    average = CountsAverage(1.0)
    average.update(first, SECOND)
    assert np.array_equal(average.update(second, SECOND), first)


def test_the_answer_belongs_to_the_caller():
    first, _ = frames(2)
    average = CountsAverage(1.0)
    average.update(first, SECOND)[:] = -1
    assert average.update(first, 2 * SECOND) == pytest.approx(first)


def test_a_sensor_that_sees_nothing_any_more_falls_silent():
    average = CountsAverage(0.5)
    seen = frames(1)[0]
    average.update(seen, SECOND)
    totals = [average.update(0 * seen, (k + 2) * SECOND).sum() for k in range(10)]
    assert totals[0] > 0
    assert totals[-1] == 0


def test_what_comes_into_view_is_seen_under_a_long_time_constant():
    average, interval = CountsAverage(10.0), SECOND // 30
    average.update(np.array([2.0, 0.0], np.float32), interval)
    for k in range(2, 602):
        found = average.update(np.array([0.0, 1.0], np.float32), k * interval)
    assert found == pytest.approx([2 * np.exp(-2), 1 - np.exp(-2)], abs=0.01)
