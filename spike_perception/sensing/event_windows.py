# SPDX-License-Identifier: Apache-2.0
"""Sliding windows over events, cut the same however the events arrive."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from spike_perception.config import section, setting
from spike_perception.sensing.event_noise import NoiseConfig, NoiseFilter, create_filter
from spike_perception.sensing.event_stream import EventPacket, EventStream
from spike_perception.sensing.events import Events, concatenate

MAX_WINDOW_EVENTS = 1 << 22
"""A window of so many events is closed in any case: what a flood may take of memory."""


@dataclass(frozen=True)
class WindowConfig:
    """How events are cut into windows. Our reading: the papers give neither length nor count."""

    duration_ms: float = setting(50.0, "length of a window (ms)", minimum=0.01, maximum=60_000.0)
    events: int = setting(
        0,
        "close a window early once it holds so many events; 0: by duration alone",
        minimum=0,
        maximum=MAX_WINDOW_EVENTS,
    )
    overlap: float = setting(
        0.5, "share of a window that the next one repeats", minimum=0.0, maximum=0.95
    )
    min_events: int = setting(
        64,
        "windows with fewer events are passed over (counted as sparse)",
        minimum=1,
        maximum=MAX_WINDOW_EVENTS,
    )


@dataclass(frozen=True)
class EventConfig:
    """From packets to windows."""

    window: WindowConfig = section(WindowConfig)
    noise: NoiseConfig = section(NoiseConfig)


@dataclass(frozen=True)
class Window:
    """Events of ``[start_ns, end_ns)``; a window closed by its count ends with its last event."""

    events: Events
    start_ns: int
    end_ns: int


class SlidingWindows:
    """Cuts a stream of events into windows.

    The first window starts at the first event. A window is closed by the first event past its
    duration, or by its last one if it is full; the next starts ``1 - overlap`` of a duration, or
    of its events, later. Stretches without events are skipped by whole steps.

    Attributes:
        counts: ``windows`` given out, ``sparse`` (too few events), ``dropped`` (open at a reset).

    Args:
        config: lengths and overlap.
    """

    def __init__(self, config: WindowConfig) -> None:
        self.counts: Counter[str] = Counter()
        self._config = config
        self._duration = round(config.duration_ms * 1e6)
        self._step = max(1, round(self._duration * (1 - config.overlap)))
        self._full = config.events or MAX_WINDOW_EVENTS
        self._step_events = max(1, round(self._full * (1 - config.overlap)))
        self._pending: list[Events] = []
        self._held = 0
        self._start_ns: int | None = None

    def reset(self) -> None:
        """Drop the open window; the next event starts a new one."""
        if self._held:
            self.counts["dropped"] += 1
        self._pending, self._held, self._start_ns = [], 0, None

    def feed(self, events: Events) -> list[Window]:
        """Take events and give out the windows that they close.

        Args:
            events: in order of time, none earlier than those before.
        """
        if not len(events):
            return []
        if self._start_ns is None:
            self._start_ns = int(events.t_ns[0])
        self._pending.append(events)
        self._held += len(events)
        if self._held < self._full and events.t_ns[-1] < self._start_ns + self._duration:
            return []
        held = concatenate(self._pending)
        windows: list[Window] = []
        while True:
            past = int(np.searchsorted(held.t_ns, self._start_ns + self._duration))
            if past >= self._full:
                end_ns = int(held.t_ns[self._full - 1]) + 1
                self._close(windows, held[: self._full], self._start_ns, end_ns)
                held = held[self._step_events :]
                if not len(held):
                    self._start_ns = None
                    break
                self._start_ns = int(held.t_ns[0])
            elif past < len(held):
                self._close(windows, held[:past], self._start_ns, self._start_ns + self._duration)
                self._start_ns += self._step
                held = held[int(np.searchsorted(held.t_ns, self._start_ns)) :]
                late = int(held.t_ns[0]) - self._start_ns - self._duration
                if late >= 0:
                    self._start_ns += (late // self._step + 1) * self._step
                    held = held[int(np.searchsorted(held.t_ns, self._start_ns)) :]
            else:
                break
        self._pending, self._held = ([held], len(held)) if len(held) else ([], 0)
        return windows

    def flush(self) -> list[Window]:
        """Close the open window at the end of a recording."""
        windows: list[Window] = []
        if self._held and self._start_ns is not None:
            held = concatenate(self._pending)
            self._close(windows, held, self._start_ns, self._start_ns + self._duration)
        self._pending, self._held, self._start_ns = [], 0, None
        return windows

    def _close(self, windows: list[Window], events: Events, start_ns: int, end_ns: int) -> None:
        if len(events) < self._config.min_events:
            self.counts["sparse"] += 1
            return
        self.counts["windows"] += 1
        windows.append(Window(events, start_ns, end_ns))


class WindowedPackets:
    """Packets of one camera in, windows of its events out: decoder, noise filter, windows.

    Where a packet does not follow on the one before (lost packets, another size or encoding, time
    that jumps back), the open window is dropped and noise filter and windows start afresh.

    Attributes:
        stream: the decoder, which knows the sensor's size.
        first_ns: time of the last packet's first event (ns), or None if it held none.

    Args:
        config: windows and noise filter.
    """

    def __init__(self, config: EventConfig) -> None:
        self.stream = EventStream()
        self.first_ns: int | None = None
        self._config = config
        self._windows = SlidingWindows(config.window)
        self._noise: NoiseFilter | None = None
        self._noise_size = 0, 0
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Counter[str]:
        """Counts of :class:`EventStream` and :class:`SlidingWindows`, and of events.

        ``events`` that were decoded, ``on`` and ``off`` ones of them, and ``noise``.
        """
        return self.stream.counts + self._windows.counts + self._counts

    def reset(self) -> None:
        """Begin a new run, as when the clock jumps."""
        self.stream.reset()
        self._windows.reset()

    def configure(self, config: EventConfig) -> None:
        """Begin a new run, with other windows and another noise filter; counts go on."""
        self.reset()
        self._counts.update(self._windows.counts)
        self._windows = SlidingWindows(config.window)
        self._config, self._noise_size = config, (0, 0)

    def feed(self, packet: EventPacket) -> tuple[list[Window], bool]:
        """Take the next packet.

        Returns:
            The windows that it closes, and whether they follow on those before: if not, a
            network's state is to be reset first.

        Raises:
            EventError: as :meth:`EventStream.decode`; the open window is dropped.
        """
        try:
            events, continues = self.stream.decode(packet)
        except ValueError:
            self._windows.reset()
            raise
        size = self.stream.width, self.stream.height
        if size != self._noise_size:
            self._noise, self._noise_size = create_filter(self._config.noise, *size), size
        if not continues:
            self._windows.reset()
            if self._noise is not None:
                self._noise.reset()
        self.first_ns = int(events.t_ns[0]) if len(events) else None
        on = int(np.count_nonzero(events.polarity))
        self._counts.update(events=len(events), on=on, off=len(events) - on)
        if self._noise is not None and len(events):
            kept = self._noise.keep(events)
            self._counts["noise"] += int(kept.size - np.count_nonzero(kept))
            events = events[kept]
        return self._windows.feed(events), continues

    def flush(self) -> list[Window]:
        """Close the open window at the end of a recording."""
        return self._windows.flush()
