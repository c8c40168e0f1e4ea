# SPDX-License-Identifier: Apache-2.0
"""An event camera made of frames: what a simulator's camera would have sent as events.

Between two frames the logarithm of each pixel's intensity is taken to change linearly (ESIM,
Rebecq et al. 2018, section 3.1). A pixel sends an event when it has changed by its threshold since
the pixel's reference level, which is then the level of the event. Thresholds differ from pixel to
pixel, and background noise comes on top (Gallego et al. 2020, section 2.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.sensing.events import Events, concatenate, no_events

LONGEST_GAP_NS = 60_000_000_000
SMALLEST_THRESHOLD = 0.01  # of the thresholds that are drawn (change of the natural logarithm)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

_Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class EventCameraConfig:
    """What a pixel does; levels are natural logarithms of intensity."""

    on_threshold: float = setting(
        0.25, "rise of log intensity that makes an ON event", minimum=0.01, maximum=5.0
    )
    off_threshold: float = setting(
        0.25, "fall of log intensity that makes an OFF event", minimum=0.01, maximum=5.0
    )
    spread: float = setting(
        0.1,
        "standard deviation of the pixels' thresholds, as a share of them",
        minimum=0.0,
        maximum=0.5,
    )
    refractory_ms: float = setting(
        0.1,
        "a pixel is blind so long after an event; its reference is the level then (ms)",
        minimum=0.0,
        maximum=1000.0,
    )
    noise_hz: float = setting(
        0.1, "events of background noise per pixel, of either sign (Hz)", minimum=0.0, maximum=100.0
    )
    dark_level: float = setting(
        0.02,
        "intensity added before the logarithm, where 1 is white; weakens events in the dark",
        minimum=0.0001,
        maximum=1.0,
    )


class EventCamera:
    """Turns frames into the events between them.

    The first frame, one of another size, and one that is not later than the frame before, or more
    than a minute, begin anew: no events, every pixel's reference is what it sees. Thresholds are
    drawn for each size.

    Noise events are added beside the signal's and change no pixel's state (our reading).

    Args:
        config: what a pixel does.
        rng: source of thresholds and noise; without it always the same.
    """

    def __init__(
        self, config: EventCameraConfig | None = None, rng: np.random.Generator | None = None
    ) -> None:
        self._config = config or EventCameraConfig()
        self._rng = rng or np.random.default_rng(0)
        self._shape = (0, 0)
        self._on: _Doubles = np.empty(0)
        self._off: _Doubles = np.empty(0)
        self.reset()

    def reset(self) -> None:
        """Begin anew with the next frame, with the same thresholds."""
        self._level: _Doubles | None = None  # of the last frame
        self._stamp_ns = 0

    def __call__(self, frame: NDArray[np.uint8] | NDArray[np.float32], stamp_ns: int) -> Events:
        """The events after the last frame's time, up to and with this frame's.

        Args:
            frame: uint8 ``[H, W, 3]`` RGB or ``[H, W]`` grey, taken as linear in intensity, or
                float32 ``[H, W]`` intensity, 0 black, 1 white, more allowed.
            stamp_ns: time of the frame (ns).

        Returns:
            Events in order of time; their times are on the clock of ``stamp_ns``.

        Raises:
            InputError: ``invalid_frame``.
        """
        intensity = _intensity(frame)
        level: _Doubles = np.log(intensity + self._config.dark_level).astype(np.float64).ravel()
        before, begun_ns = self._level, self._stamp_ns
        self._level, self._stamp_ns = level, stamp_ns
        follows = 0 < stamp_ns - begun_ns <= LONGEST_GAP_NS
        if before is None or intensity.shape != self._shape or not follows:
            self._begin(level, intensity.shape)
            return no_events()
        found = self._crossings(before, level, begun_ns, stamp_ns)
        found.append(self._noise(begun_ns, stamp_ns))
        events = concatenate(found)
        return events[np.argsort(events.t_ns, kind="stable")]

    def _begin(self, level: _Doubles, shape: tuple[int, ...]) -> None:
        if shape != self._shape:
            self._shape = shape[0], shape[1]
            self._on = self._thresholds(self._config.on_threshold, level.size)
            self._off = self._thresholds(self._config.off_threshold, level.size)
        self._reference = level.copy()
        # Until when each pixel is blind (ns), and whether its reference is only known then.
        self._blind_ns = np.zeros(level.size)
        self._waits = np.zeros(level.size, np.bool_)

    def _thresholds(self, mean: float, count: int) -> _Doubles:
        drawn = mean * (1 + self._config.spread * self._rng.standard_normal(count))
        return np.maximum(drawn, SMALLEST_THRESHOLD)

    def _crossings(
        self, before: _Doubles, after: _Doubles, begun_ns: int, ended_ns: int
    ) -> list[Events]:
        """Events of pixels that cross their thresholds; the k-th part is each one's k-th event."""
        duration = ended_ns - begun_ns
        blind = self._config.refractory_ms * 1e6 / duration  # as a share of the time between
        reference, rise = self._reference, after - before
        woken = np.flatnonzero(self._waits & (self._blind_ns <= ended_ns))
        reference[woken] = before[woken] + rise[woken] * (
            (self._blind_ns[woken] - begun_ns) / duration
        )
        self._waits[woken] = False
        change = after - reference
        pixels = np.flatnonzero(((change >= self._on) | (-change >= self._off)) & ~self._waits)
        found = []
        while pixels.size:
            rising = after[pixels] > reference[pixels]
            crossed = reference[pixels] + np.where(rising, self._on[pixels], -self._off[pixels])
            share = np.clip((crossed - before[pixels]) / rise[pixels], 0, 1)
            found.append(self._events(pixels, rising, begun_ns + np.rint(share * duration)))
            if blind:
                share += blind
                crossed = before[pixels] + rise[pixels] * share
                late = share > 1
                self._blind_ns[pixels[late]] = begun_ns + share[late] * duration
                self._waits[pixels[late]] = True
                pixels, crossed = pixels[~late], crossed[~late]
            reference[pixels] = crossed
            change = after[pixels] - crossed
            pixels = pixels[(change >= self._on[pixels]) | (-change >= self._off[pixels])]
        return found

    def _noise(self, begun_ns: int, ended_ns: int) -> Events:
        count = self._on.size
        expected = self._config.noise_hz * count * (ended_ns - begun_ns) / 1e9
        number = int(self._rng.poisson(expected))
        return self._events(
            self._rng.integers(0, count, number),
            self._rng.random(number) < 0.5,
            self._rng.integers(begun_ns + 1, ended_ns + 1, number),
        )

    def _events(
        self,
        pixels: NDArray[np.int64],
        rising: NDArray[np.bool_],
        t_ns: NDArray[np.int64] | _Doubles,
    ) -> Events:
        y, x = np.divmod(pixels, self._shape[1])
        return Events(x.astype(np.uint16), y.astype(np.uint16), rising, t_ns.astype(np.int64))


def _intensity(frame: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Intensity ``[H, W]``, 1 for white."""
    colour = frame.ndim == 3 and frame.shape[2] == 3
    if frame.dtype == np.uint8 and frame.size and (colour or frame.ndim == 2):
        grey = frame @ _LUMA if colour else frame.astype(np.float32)
        return np.asarray(grey / np.float32(255), np.float32)
    if frame.dtype == np.float32 and frame.size and frame.ndim == 2:
        if frame.min() >= 0 and np.isfinite(frame.max()):  # False for NaN, too
            return np.asarray(frame, np.float32)
        raise InputError(
            "invalid_frame",
            f"frame holds {frame.min():g} to {frame.max():g}; allowed are finite values from 0",
        )
    raise InputError(
        "invalid_frame",
        f"frame is {frame.dtype}{list(frame.shape)}; allowed is uint8 [H, W, 3] or [H, W], or "
        "float32 [H, W]",
    )
