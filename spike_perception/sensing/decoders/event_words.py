# SPDX-License-Identifier: Apache-2.0
"""Encodings of 64-bit words that each hold one whole event: ``mono`` and ``libcaer``."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from spike_perception.sensing.events import EventError, Events

_MONO = np.dtype([("dt", "<u4"), ("x", "<u2"), ("y", "<u2")])  # polarity in the top bit of y
_MONO_SWAPPED = np.dtype([("y", ">u2"), ("x", ">u2"), ("dt", ">u4")])
_LIBCAER = np.dtype([("data", "<u4"), ("t", "<i4")])
_ROW = 0x7FFF
_POLARITY = 0x8000
_LIBCAER_TURN = 1 << 31  # µs until libcaer's 31 bits of time wrap


class MonoDecoder:
    """Decodes ``mono``; see :class:`~spike_perception.sensing.decoders.Decoder`.

    A word holds the time after the packet's time base (bits 0-31, ns), the column (32-47), the
    row (48-62) and the polarity (63).

    Args:
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).
    """

    def __init__(self, width: int, height: int) -> None:
        self.counts: Counter[str] = Counter()
        self._size = width, height

    def reset(self) -> None:
        """Nothing is kept from packet to packet."""

    def decode(
        self, data: npt.NDArray[np.uint8], time_base: int, is_bigendian: bool = False
    ) -> Events:
        """Decode one packet."""
        words = _whole(data).view(_MONO_SWAPPED if is_bigendian else _MONO)
        rows = words["y"]
        events = Events(
            words["x"].astype(np.uint16),
            (rows & _ROW).astype(np.uint16),
            (rows & _POLARITY) != 0,
            words["dt"].astype(np.int64) + time_base,
        )
        return _inside(events, self._size, self.counts)


class LibcaerDecoder:
    """Decodes ``libcaer``; see :class:`~spike_perception.sensing.decoders.Decoder`.

    A word is a polarity event as libcaer keeps it in memory, always little endian: its valid mark
    (bit 0, not looked at: drivers send no invalid events), polarity (1), row (2-16), column
    (17-31), and the lower 31 bits of its time (µs). The upper bits are in the packet's time base;
    a wrap within the packet is unwrapped.

    Args:
        width: columns of the sensor (pixels).
        height: rows of the sensor (pixels).
    """

    def __init__(self, width: int, height: int) -> None:
        self.counts: Counter[str] = Counter()
        self._size = width, height

    def reset(self) -> None:
        """Nothing is kept from packet to packet."""

    def decode(
        self,
        data: npt.NDArray[np.uint8],
        time_base: int,
        is_bigendian: bool = False,  # noqa: ARG002  # the order is fixed
    ) -> Events:
        """Decode one packet."""
        words = _whole(data).view(_LIBCAER)
        packed = words["data"]
        t_us = words["t"].astype(np.int64)
        wraps = np.diff(t_us, prepend=t_us[:1]) < -_LIBCAER_TURN // 2
        t_us += np.cumsum(wraps) * _LIBCAER_TURN
        events = Events(
            (packed >> 17).astype(np.uint16),
            ((packed >> 2) & _ROW).astype(np.uint16),
            (packed & 2) != 0,
            t_us * 1000 + time_base,
        )
        return _inside(events, self._size, self.counts)


def encode_mono(events: Events) -> tuple[int, npt.NDArray[np.uint8]]:
    """Pack events as ``mono``.

    Args:
        events: in any order, at most 2^32 ns = 4.29 s from the earliest to the latest, rows below
            32768.

    Returns:
        The packet's time base (ns), which is the earliest event's time (0 without events), and
        its bytes, uint8 ``[8 N]``, little endian.

    Raises:
        EventError: ``invalid_events`` for times or rows that do not fit.
    """
    words = np.empty(len(events), _MONO)
    if not len(events):
        return 0, words.view(np.uint8)
    time_base, last = int(events.t_ns.min()), int(events.t_ns.max())
    if time_base < 0 or last - time_base >= 1 << 32 or events.y.max() > _ROW:
        raise EventError(
            "invalid_events",
            f"events from {time_base} to {last} ns, rows to {events.y.max()}; mono holds times "
            f"from 0, at most {(1 << 32) - 1} ns from the earliest on, and rows to {_ROW}; "
            "write shorter packets",
        )
    words["dt"] = events.t_ns - time_base
    words["x"] = events.x
    words["y"] = events.y | (events.polarity * np.uint16(_POLARITY))
    return time_base, words.view(np.uint8)


def _whole(data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if data.size % 8:
        raise EventError(
            "truncated_packet", f"packet of {data.size} bytes; its words are 8 bytes each"
        )
    return data


def _inside(events: Events, size: tuple[int, int], counts: Counter[str]) -> Events:
    """The events on the sensor; others are counted."""
    width, height = size
    if not len(events) or (events.x.max() < width and events.y.max() < height):
        return events
    inside = (events.x < width) & (events.y < height)
    counts["outside"] += int(inside.size - np.count_nonzero(inside))
    return events[inside]
