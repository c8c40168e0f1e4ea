# SPDX-License-Identifier: Apache-2.0
"""Events that come as a point cloud of x, y, time and polarity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.config import setting
from spike_perception.sensing.decoders.event_words import encode_mono
from spike_perception.sensing.event_stream import EventPacket
from spike_perception.sensing.events import EventError, Events
from spike_perception.sensing.image import RawBytes
from spike_perception.sensing.points import CloudLayout, columns_from_message_fields

TIME_FIELDS = ("t", "ts", "time", "timestamp")
POLARITY_FIELDS = ("p", "pol", "polarity")
UNITS_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@dataclass(frozen=True)
class EventCloudConfig:
    """What the message ``PointCloud2`` leaves open about events."""

    width: int = setting(640, "columns of the sensor (pixels)", minimum=1, maximum=(1 << 15) - 1)
    height: int = setting(480, "rows of the sensor (pixels)", minimum=1, maximum=(1 << 15) - 1)
    time_unit: str = setting(
        "auto",
        "unit of the time field; auto: ns where it holds integers, s where it holds floats",
        choices=("auto", *UNITS_NS),
    )


def packet_from_cloud(layout: CloudLayout, data: RawBytes, config: EventCloudConfig) -> EventPacket:
    """Pack a cloud of events as an ``EventPacket`` in ``mono``.

    Fields are ``x`` and ``y`` (pixels), the time (:data:`TIME_FIELDS`) and the polarity
    (:data:`POLARITY_FIELDS`; ON above 0), of any type. Events off the sensor are left to the
    decoder, which counts them as outside. ``seq`` is 0: clouds have none. A cloud without events
    becomes a packet without events: nothing has moved.

    Raises:
        PointsError: as :func:`~spike_perception.sensing.points.columns_from_message_fields`.
        EventError: ``invalid_events`` for times below zero, or 4.29 s apart.
    """
    if not layout.height * layout.width:
        return EventPacket(config.height, config.width, 0, 0, "mono", False, b"")
    names = {field.name for field in layout.fields}
    time_field = next((name for name in TIME_FIELDS if name in names), TIME_FIELDS[0])
    polarity_field = next((name for name in POLARITY_FIELDS if name in names), POLARITY_FIELDS[0])
    x, y, t, p = (
        column.ravel()
        for column in columns_from_message_fields(
            layout, data, ("x", "y", time_field, polarity_field)
        )
    )
    unit = config.time_unit
    if unit == "auto":
        unit = "s" if t.dtype.kind == "f" else "ns"
    if t.dtype.kind == "f" and not np.isfinite(t).all():
        raise EventError("invalid_events", f"field {time_field!r} holds times that are not finite")
    events = Events(
        _pixels(x, config.width), _pixels(y, config.height), p > 0, _nanoseconds(t, UNITS_NS[unit])
    )
    time_base, words = encode_mono(events)
    return EventPacket(config.height, config.width, 0, time_base, "mono", False, words)


def _pixels(column: NDArray[Any], end: int) -> NDArray[np.uint16]:
    """Whole pixels; ``end`` stands for everything off the sensor."""
    values = column.astype(np.float64)
    inside = (values >= 0) & (values < end)  # NaN is not
    return np.where(inside, values, end).astype(np.uint16)


def _nanoseconds(column: NDArray[Any], unit_ns: int) -> NDArray[np.int64]:
    """Times as int64; floats too large for it become so large that they are refused."""
    if column.dtype.kind != "f":
        return column.astype(np.int64) * unit_ns  # of at most 32 bits
    values = np.clip(column.astype(np.float64), -1.0, float(1 << 62) / unit_ns)
    return np.rint(values * unit_ns).astype(np.int64)
