# SPDX-License-Identifier: Apache-2.0
"""Background activity filter: keep the events that a neighbouring pixel's event announced.

An event is kept if one of its pixel's eight neighbours had an event less than a set time before it
(Delbruck, "Frame-free dynamic digital vision", 2008). Both filters here keep the same events; the
NumPy one is the default, because dv-processing takes events from Python only one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.sensing.events import Events


@dataclass(frozen=True)
class NoiseConfig:
    """Removal of background activity."""

    filter: str = setting(
        "numpy",
        "what removes events without a neighbour's event shortly before: numpy, dv_processing "
        "(slower here; the package has to be installed) or none",
        choices=("numpy", "dv_processing", "none"),
        fixed=True,
    )
    support_ms: float = setting(
        2.0, "how long before an event a neighbour's counts (ms)", minimum=0.001, maximum=1000.0
    )


class NoiseFilter(Protocol):
    """Filters one camera's events, in order of time."""

    def keep(self, events: Events) -> npt.NDArray[np.bool_]:
        """Which of the next events are signal: bool ``[N]``."""
        ...

    def reset(self) -> None:
        """Forget all events so far."""
        ...


def create_filter(config: NoiseConfig, width: int, height: int) -> NoiseFilter | None:
    """The filter that the configuration names, or None.

    Args:
        config: which filter.
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).

    Raises:
        InputError: ``package_missing`` where dv-processing is asked for and not installed.
    """
    if config.filter == "none":
        return None
    if config.filter == "numpy":
        return BackgroundActivityFilter(width, height, config.support_ms)
    return DvBackgroundActivityFilter(width, height, config.support_ms)


_LONG_AGO = -(1 << 62)
_NEVER = 1 << 31
_PAIRWISE = 64  # events that are compared each with each


class BackgroundActivityFilter:
    """The filter in NumPy, exact however the events are cut into pieces.

    Args:
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).
        support_ms: how long before an event a neighbour's counts (ms).
    """

    def __init__(self, width: int, height: int, support_ms: float = 2.0) -> None:
        self._support_ns = round(support_ms * 1e6)
        self._pitch = width + 2  # a border of pixels that never fire
        cells = self._pitch * (height + 2)
        self._last_ns = np.full(cells, _LONG_AGO)
        self._first_index = np.full(cells, _NEVER)
        row = self._pitch
        self._neighbours = (-row - 1, -row, -row + 1, -1, 1, row - 1, row, row + 1)

    def reset(self) -> None:
        """Forget all events so far."""
        self._last_ns[:] = _LONG_AGO

    def keep(self, events: Events) -> npt.NDArray[np.bool_]:
        """Which of the next events are signal: bool ``[N]``.

        Args:
            events: in order of time, none earlier than those before, all on the sensor.
        """
        t_ns = events.t_ns
        cells = (events.y.astype(np.int64) + 1) * self._pitch + events.x + 1
        kept = np.zeros(len(events), np.bool_)
        start = 0
        while start < len(events):
            # Within a piece shorter than the support, any earlier neighbour will do: the first.
            end = int(np.searchsorted(t_ns, t_ns[start] + self._support_ns))
            pairwise = end - start < _PAIRWISE
            end = start + _PAIRWISE if pairwise else end
            kept[start:end] = self._piece(cells[start:end], t_ns[start:end], pairwise)
            start = end
        return kept

    def _piece(
        self, cells: npt.NDArray[np.int64], t_ns: npt.NDArray[np.int64], pairwise: bool
    ) -> npt.NDArray[np.bool_]:
        since = t_ns - self._support_ns
        latest = self._last_ns[cells + self._neighbours[0]]
        for step in self._neighbours[1:]:
            np.maximum(latest, self._last_ns[cells + step], out=latest)
        supported = latest > since
        index = np.arange(cells.size)
        if pairwise:
            apart = np.abs(cells[:, None] - cells)
            near = (apart == 1) | (np.abs(apart - self._pitch) <= 1)
            near &= index < index[:, None]
            near &= t_ns > since[:, None]
            supported |= near.any(axis=1)
        else:
            # Of several values for one cell NumPy keeps the last written: here the first event's.
            self._first_index[cells[::-1]] = index[::-1]
            for step in self._neighbours:
                supported |= self._first_index[cells + step] < index
            self._first_index[cells] = _NEVER
        self._last_ns[cells] = t_ns
        return supported


class DvBackgroundActivityFilter:
    """The filter of dv-processing; it counts whole µs.

    Args:
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).
        support_ms: how long before an event a neighbour's counts (ms).

    Raises:
        InputError: ``package_missing`` if dv-processing is not installed.
    """

    def __init__(self, width: int, height: int, support_ms: float = 2.0) -> None:
        self._dv = import_dv_processing()
        self._size = width, height
        self._support = timedelta(milliseconds=support_ms)
        self.reset()

    def reset(self) -> None:
        """Forget all events so far."""
        self._filter = self._dv.noise.BackgroundActivityNoiseFilter(self._size, self._support)
        self._origin_ns: int | None = None

    def keep(self, events: Events) -> npt.NDArray[np.bool_]:
        """Which of the next events are signal: bool ``[N]``."""
        if not len(events):
            return np.empty(0, np.bool_)
        if self._origin_ns is None:
            # Its pixels start at time 0, which must be long before the first event.
            self._origin_ns = int(events.t_ns[0]) - round(self._support.total_seconds() * 2e9)
        t_us = (events.t_ns - self._origin_ns) // 1000
        columns = (t_us, events.x, events.y, events.polarity)
        retain, event = self._filter.retain, self._dv.Event
        lists = (column.tolist() for column in columns)
        return np.array([retain(event(*each)) for each in zip(*lists, strict=True)], np.bool_)


def import_dv_processing() -> Any:
    """The package dv_processing.

    Raises:
        InputError: ``package_missing`` if it is not installed.
    """
    try:
        import dv_processing
    except ImportError as error:
        raise InputError(
            "package_missing",
            f"dv_processing cannot be imported ({error}); run: pip install dv-processing==2.0.4",
        ) from error
    return dv_processing
