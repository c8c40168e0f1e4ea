# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from spike_perception.config import from_flat
from spike_perception.errors import InputError
from spike_perception.sensing.event_camera import EventCamera, EventCameraConfig

IDEAL = {"spread": 0.0, "refractory_ms": 0.0, "noise_hz": 0.0}
DARK = EventCameraConfig.dark_level


def camera(**changes):
    return EventCamera(from_flat(EventCameraConfig, IDEAL | changes))


def frame(level):
    """The frame whose log intensity, with the dark level added, is ``level``."""
    return (np.exp(level) - DARK).astype(np.float32)


def ramp(levels, period_ns=10_000_000, **changes):
    """All events of one pixel that sees these levels, frame by frame."""
    model = camera(**changes)
    parts = [model(frame(np.full((1, 1), v)), k * period_ns) for k, v in enumerate(levels)]
    return np.concatenate([e.t_ns for e in parts]), np.concatenate([e.polarity for e in parts])


def counts(events, shape):
    flat = events.y.astype(int) * shape[1] + events.x
    return tuple(
        np.bincount(flat[events.polarity == sign], minlength=math.prod(shape)).reshape(shape)
        for sign in (True, False)
    )


def crossings(turns, on, off):
    """Threshold crossings of a signal that runs straight from turn to turn: ON, OFF."""
    reference, found = turns[0], [0, 0]
    for turn in turns[1:]:
        up = math.floor(max(turn - reference, 0) / on)
        down = math.floor(max(reference - turn, 0) / off)
        reference += up * on - down * off
        found[0] += up
        found[1] += down
    return found


@pytest.mark.parametrize(("on", "off"), [(0.2, 0.2), (0.13, 0.31)])
def test_a_drifting_grating_makes_as_many_events_as_it_crosses_thresholds(on, off):
    width, amplitude, periods, rate, frequency = 48, 0.93, 5, 400, 2.0
    # No pixel begins at a turn, where a crossing would hang on the last bit.
    phase = 2 * math.pi * np.arange(width) / 24 + 0.1
    model = camera(on_threshold=on, off_threshold=off)
    shape = (2, width)
    total = [np.zeros(shape, int), np.zeros(shape, int)]
    for k in range(round(periods / frequency * rate) + 1):
        level = -1.5 + amplitude * np.sin(phase - 2 * math.pi * frequency * k / rate)
        events = model(frame(np.broadcast_to(level, shape)), round(k / rate * 1e9))
        for signed, more in zip(total, counts(events, shape), strict=True):
            signed += more
    for x in range(width):
        # The signal turns wherever its phase is an odd quarter of a turn.
        begin, end = phase[x] - 2 * math.pi * periods, phase[x]
        quarters = np.arange(math.ceil(begin / math.pi - 0.5), math.floor(end / math.pi - 0.5) + 1)
        inner = (quarters + 0.5) * math.pi
        inner = inner[(inner > begin + 1e-9) & (inner < end - 1e-9)][::-1]
        expected = crossings(amplitude * np.sin([end, *inner, begin]), on, off)
        for signed, analytic in zip(total, expected, strict=True):
            assert analytic >= 20
            assert abs(signed[:, x] - analytic).max() <= 0.05 * analytic


def test_times_are_those_of_the_crossings_between_frames():
    t_ns, polarity = ramp([0.0, 0.5, -0.5], on_threshold=0.2, off_threshold=0.3)
    # Up at 0.2 and 0.4; down from there at 0.1 and -0.2 and -0.5.
    assert polarity.tolist() == [True, True, False, False, False]
    assert t_ns == pytest.approx([4e6, 8e6, 14e6, 17e6, 20e6], abs=20)


def test_refractory_time_hides_what_changes_within_it():
    # 0.1 a millisecond: crosses after 2 ms, sees nothing for 3 ms, crosses 2 ms later, and so on,
    # over the borders of the frames.
    t_ns, _ = ramp([0.0, 1.0, 2.0, 3.0], on_threshold=0.2, refractory_ms=3.0)
    assert t_ns == pytest.approx(np.arange(2e6, 30e6, 5e6), abs=50)


def test_thresholds_differ_by_their_spread_and_stay():
    model = camera(spread=0.2, on_threshold=0.1)
    shape = (40, 50)
    model(frame(np.zeros(shape)), 0)
    on, off = counts(model(frame(np.full(shape, 10.0)), 1_000_000), shape)
    thresholds = 10 / on
    assert thresholds.mean() == pytest.approx(0.1, rel=0.03)
    assert thresholds.std() == pytest.approx(0.02, rel=0.1)
    assert not off.any()
    model.reset()
    model(frame(np.zeros(shape)), 0)
    again, _ = counts(model(frame(np.full(shape, 10.0)), 1_000_000), shape)
    assert np.array_equal(on, again)


def test_noise_comes_at_its_rate_when_nothing_changes():
    model = camera(noise_hz=5.0)
    still = np.full((30, 40, 3), 90, np.uint8)
    assert len(model(still, 0)) == 0
    events = model(still, 2_000_000_000)
    assert len(events) == pytest.approx(5 * 1200 * 2, rel=0.04)
    assert events.polarity.mean() == pytest.approx(0.5, abs=0.03)
    assert (np.diff(events.t_ns) >= 0).all()
    assert 0 < events.t_ns[0] < 10_000_000
    assert events.t_ns[-1] <= 2_000_000_000
    assert (events.x.max(), events.y.max()) == (39, 29)


def test_colour_and_grey_frames_mean_the_same():
    grey = np.arange(200, 206, dtype=np.uint8).reshape(2, 3)
    brighter = np.full((2, 3), 255, np.uint8)
    found = []
    for first, second in (
        (grey // 4, brighter),
        (np.stack([grey // 4] * 3, -1), np.stack([brighter] * 3, -1)),
        ((grey // 4 / np.float32(255)).astype(np.float32), np.ones((2, 3), np.float32)),
    ):
        model = camera()
        model(first, 5)
        events = model(second, 10_000_005)
        found.append((events.x.tolist(), events.y.tolist(), events.t_ns))
    for x, y, t_ns in found[1:]:
        assert sorted(zip(x, y, strict=True)) == sorted(zip(*found[0][:2], strict=True))
        assert np.sort(t_ns) == pytest.approx(np.sort(found[0][2]), abs=50)


def test_it_begins_anew_when_time_or_size_change():
    model = camera()
    black, white = np.zeros((3, 4), np.uint8), np.full((3, 4), 255, np.uint8)
    assert len(model(black, 10)) == 0
    assert len(model(white, 10)) == 0
    assert len(model(black, 5)) == 0
    assert len(model(np.full((4, 3), 255, np.uint8), 20)) == 0
    assert len(model(np.zeros((4, 3), np.uint8), 30)) == 12 * 15  # log(1.02 / 0.02) / 0.25
    # The clock jumps from simulated to wall time: years of noise would not fit into memory.
    noisy = camera(noise_hz=1.0)
    noisy(black, 30)
    assert len(noisy(white, 1_700_000_000_000_000_000)) == 0


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((3, 4), np.uint16),
        np.zeros((0, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.full((3, 4), np.nan, np.float32),
        np.full((3, 4), -0.1, np.float32),
    ],
)
def test_other_frames_are_refused(bad):
    with pytest.raises(InputError) as error:
        camera()(bad, 0)
    assert error.value.reason == "invalid_frame"
