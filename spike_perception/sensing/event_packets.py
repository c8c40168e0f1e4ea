# SPDX-License-Identifier: Apache-2.0
"""Pack events as a camera's driver does: the way back of ``event_stream``."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spike_perception.sensing.decoders.event_words import encode_mono
from spike_perception.sensing.event_stream import EventPacket
from spike_perception.sensing.events import Events

MAX_EVENTS = 1 << 16
"""Events of one packet at most: half a megabyte."""
_MAX_SPAN_NS = (1 << 31) - 1  # to either side of the first event


def cut_to_packets(events: Events) -> Iterator[Events]:
    """Yield the events in pieces that fit into a packet each."""
    while len(events):
        far = np.flatnonzero(np.abs(events.t_ns - events.t_ns[0]) > _MAX_SPAN_NS)
        number = min(MAX_EVENTS, int(far[0]) if far.size else len(events))
        yield events[:number]
        events = events[number:]


class EventPacker:
    """Makes the packets of one camera, encoded as ``mono``, numbered from 0.

    Args:
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).
    """

    def __init__(self, width: int, height: int) -> None:
        self._size = height, width
        self._next = 0

    def __call__(self, events: Events) -> EventPacket:
        """Pack the next events; the packet's time base is the time of the first.

        Raises:
            EventError: ``invalid_events``, see
                :func:`~spike_perception.sensing.decoders.event_words.encode_mono`.
        """
        time_base, data = encode_mono(events)
        number, self._next = self._next, self._next + 1
        return EventPacket(*self._size, number, time_base, "mono", False, data)
