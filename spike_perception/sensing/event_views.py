# SPDX-License-Identifier: Apache-2.0
"""Events of a window as a point set or as an image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spike_perception.sensing.events import EventError, Events
from spike_perception.sensing.image import RgbImage

FRAME_KINDS = ("counts", "surface")


def sample_indices(
    available: int, wanted: int, rng: np.random.Generator | None = None
) -> npt.NDArray[np.int64]:
    """Choose a fixed number of a window's events, in order.

    Without ``rng`` the choice is the same every time: evenly spaced by position, so that time is
    covered as densely as events came. Where there are too few, each is taken equally often, or
    once more.

    Args:
        available: number of events, at least 1.
        wanted: number of indices, at least 1.
        rng: for augmentation in training: choose at random instead.

    Returns:
        int64 ``[wanted]``, ascending.

    Raises:
        EventError: ``invalid_events`` for a number below 1.
    """
    if available < 1 or wanted < 1:
        raise EventError(
            "invalid_events", f"{wanted} of {available} events asked for; both are at least 1"
        )
    if rng is None:
        return np.arange(wanted) * available // wanted
    whole, rest = divmod(wanted, available)
    drawn = rng.choice(available, rest, replace=False)
    return np.sort(np.concatenate([np.tile(np.arange(available), whole), drawn]))


def event_points(
    events: Events,
    width: int,
    height: int,
    points: int,
    rng: np.random.Generator | None = None,
) -> npt.NDArray[np.float32]:
    """Turn a window's events into a point set of fixed size.

    z = (t − t_min) / (t_max − t_min) over all events of the window is SVL's; x and y at one scale
    and the polarity as a feature are our reading.

    Args:
        events: at least one.
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).
        points: number of points, chosen by :func:`sample_indices`.
        rng: for augmentation in training: choose them at random.

    Returns:
        float32 ``[points, 4]``, in order of time: x right and y down, the longer side from −1 to
        1 and the shorter in proportion; z from 0 (first event) to 1 (last), 0 if all events are
        of one time; polarity, 1 for ON and −1 for OFF.

    Raises:
        EventError: ``invalid_events`` without events or points.
    """
    chosen = events[sample_indices(len(events), points, rng)]
    side = max(width, height)
    first, last = events.t_ns.min(), events.t_ns.max()
    cloud = np.empty((points, 4), np.float32)
    cloud[:, 0] = (2.0 * chosen.x + 1 - width) / side
    cloud[:, 1] = (2.0 * chosen.y + 1 - height) / side
    cloud[:, 2] = (chosen.t_ns - first) / max(int(last - first), 1)
    cloud[:, 3] = np.where(chosen.polarity, 1, -1)
    return cloud


def event_frame(events: Events, width: int, height: int, kind: str = "counts") -> RgbImage:
    """Draw events as an image, for descriptors that take images.

    Args:
        events: in order of time.
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).
        kind: "counts": how many events a pixel had, the brightest per cent of the pixels with
            events saturated, so that a fast and a slow drive look alike; "surface": how recent
            the last one is, from 0 (the window's first event, or none) to 255 (its last).

    Returns:
        uint8 ``[height, width, 3]``: ON events, all events, OFF events.

    Raises:
        EventError: ``invalid_events`` for another kind.
    """
    if kind not in FRAME_KINDS:
        raise EventError(
            "invalid_events", f"kind of event frame is {kind!r}, not one of {FRAME_KINDS}"
        )
    frame = np.zeros((height * width, 3), np.float64)
    cells = events.y.astype(np.int64) * width + events.x
    if kind == "surface" and len(events):
        span = max(int(events.t_ns[-1] - events.t_ns[0]), 1)
        recency = (events.t_ns - events.t_ns[0]) / span
    for channel, chosen in ((0, events.polarity), (2, ~events.polarity)):
        if kind == "counts":
            frame[:, channel] = np.bincount(cells[chosen], minlength=len(frame))
        elif len(events):
            frame[cells[chosen], channel] = recency[chosen]  # the last of a pixel stays
    if kind == "counts":
        frame[:, 1] = frame[:, 0] + frame[:, 2]
        hit = frame[:, 1][frame[:, 1] > 0]
        frame /= np.percentile(hit, 99) if hit.size else 1.0
    else:
        frame[:, 1] = frame.max(axis=1)
    image: RgbImage = np.rint(frame.clip(0, 1) * 255).astype(np.uint8)
    return image.reshape(height, width, 3)
