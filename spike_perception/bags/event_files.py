# SPDX-License-Identifier: Apache-2.0
"""Event recordings as files: N-MNIST's ``.bs2`` and iniVation's AEDAT4."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spike_perception.errors import InputError
from spike_perception.sensing.event_noise import import_dv_processing
from spike_perception.sensing.events import EventError, Events

_BS2_OVERFLOW_ROW = 240
_BS2_OVERFLOW_US = 1 << 13


def events_from_bs2(data: bytes) -> Events:
    """Decode a ``.bs2`` recording (N-MNIST; Orchard et al., Frontiers in Neuroscience 2015).

    An event is 40 bits, big endian: x (8), y (8), polarity (1), time (23, µs). An event in row
    240 stands for a lapse of 2^13 µs. Times are as stored, from the recording's start.

    Raises:
        EventError: ``truncated_packet`` for a length that is no multiple of 5 bytes.
    """
    if len(data) % 5:
        raise EventError(
            "truncated_packet", f"recording of {len(data)} bytes; its events are 5 bytes each"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, 5)
    packed = rows[:, 2:].astype(np.int64)
    t_us = (packed[:, 0] & 0x7F) << 16 | packed[:, 1] << 8 | packed[:, 2]
    lapse = rows[:, 1] == _BS2_OVERFLOW_ROW
    t_us += np.cumsum(lapse) * _BS2_OVERFLOW_US
    events = Events(
        rows[:, 0].astype(np.uint16),
        rows[:, 1].astype(np.uint16),
        rows[:, 2] >= 0x80,
        np.maximum.accumulate(t_us * 1000) if t_us.size else t_us,
    )
    return events[~lapse] if lapse.any() else events


class Aedat4Recording:
    """The events of an AEDAT4 file, read by dv-processing batch by batch.

    Attributes:
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).

    Args:
        path: an ``.aedat4`` file with an event stream.

    Raises:
        InputError: ``recording_missing``, ``recording_unreadable``, or ``package_missing`` where
            dv-processing is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError("recording_missing", f"there is no file {self.path}")
        dv = import_dv_processing()
        try:
            self._reader = dv.io.MonoCameraRecording(str(self.path))
            size = self._reader.getEventResolution()
        except (RuntimeError, ValueError, OSError) as error:
            raise self._unreadable(error) from error
        if size is None:
            raise self._unreadable("it has no event stream")
        self.width, self.height = (int(side) for side in size)

    @property
    def duration_ns(self) -> int:
        """Time from the first to the last event (ns)."""
        first_us, last_us = self._reader.getTimeRange()
        return (int(last_us) - int(first_us)) * 1000

    def __iter__(self) -> Iterator[Events]:
        """Yield the events in order of time; times are the host's (ns since 1970).

        Raises:
            InputError: ``recording_unreadable`` for damaged data.
        """
        self._reader.resetSequentialRead()
        while True:
            try:
                batch = self._reader.getNextEventBatch()
            except (RuntimeError, ValueError, OSError) as error:
                raise self._unreadable(error) from error
            if batch is None:
                return
            array = batch.numpy()
            x, y = array["x"].astype(np.uint16), array["y"].astype(np.uint16)
            events = Events(x, y, array["polarity"] != 0, array["timestamp"] * np.int64(1000))
            yield events[(x < self.width) & (y < self.height)]

    def _unreadable(self, why: object) -> InputError:
        # dv-processing tells where in its source, what, and then the whole stack.
        told = str(why).partition("\nStacktrace")[0].strip().rpartition("\n")[2]
        return InputError(
            "recording_unreadable", f"{self.path} is no readable AEDAT4 file of events: {told}"
        )
