# SPDX-License-Identifier: Apache-2.0
"""A whole recording of events as the windows that a network takes, one a time step."""

from __future__ import annotations

import numpy as np

from spike_perception.sensing.event_windows import SlidingWindows, WindowConfig
from spike_perception.sensing.events import EventError, Events


def recording_windows(
    events: Events, steps: int, duration_ms: float = 0.0, overlap: float = 0.0
) -> list[Events]:
    """Cut a recording into windows.

    SVL (arXiv 2505.17674) gives one window to each of T time steps and leaves their length open;
    equal parts of the recording are our reading.

    Args:
        events: of the recording, at least one, in order of time.
        steps: T, windows over the whole recording where no duration is given.
        duration_ms: length of a window (ms), as :class:`SlidingWindows` cuts a stream; any number
            of windows may result. 0: ``steps`` windows of equal length, from the first event to the
            last.
        overlap: share of a window that the next one repeats, 0 to 0.95.

    Returns:
        At least one window, in order of time; each holds at least one event: stretches without any
        are left out.

    Raises:
        EventError: ``invalid_events`` without events, or for steps, duration or overlap out of
            range.
    """
    if not len(events) or steps < 1 or duration_ms < 0 or not 0 <= overlap <= 0.95:
        raise EventError(
            "invalid_events",
            f"{len(events)} events, {steps} steps, windows of {duration_ms} ms, overlap {overlap}; "
            "expected are 1 event or more, 1 step or more, 0 ms or more, and 0 to 0.95",
        )
    if duration_ms:
        cutter = SlidingWindows(WindowConfig(duration_ms, overlap=overlap, min_events=1))
        return [each.events for each in (*cutter.feed(events), *cutter.flush())]
    first, span = int(events.t_ns[0]), int(events.t_ns[-1] - events.t_ns[0]) + 1
    step = 1 - overlap
    starts = np.arange(steps) * step
    scale = span / (starts[-1] + 1)
    edges = np.rint(np.stack([starts, starts + 1]) * scale).astype(np.int64) + first
    edges[1, -1] = first + span  # whatever rounding did, the last event belongs to it
    return [
        events[begin:end] for begin, end in np.searchsorted(events.t_ns, edges).T if end > begin
    ]
