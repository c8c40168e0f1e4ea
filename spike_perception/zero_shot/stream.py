# SPDX-License-Identifier: Apache-2.0
"""The order of time within a stream of sensor data."""

from __future__ import annotations

import threading

from spike_perception.errors import InputError


def check_stamp(stamp_ns: int, what: str) -> None:
    """Refuse what has no stamp.

    Args:
        stamp_ns: of the header [ns].
        what: messages of this kind in the plural, such as ``images``.

    Raises:
        InputError: ``zero_stamp``.
    """
    if stamp_ns <= 0:
        raise InputError(
            "zero_stamp",
            f"stamp is {stamp_ns} ns; {what} need the time of their exposure (set the header)",
        )


class StreamOrder:
    """Refuses what has no stamp, or one before the last frame's. Thread-safe."""

    def __init__(self, what: str) -> None:
        """Begin a stream.

        Args:
            what: its frames in the plural, such as ``images``, for messages.
        """
        self._what = what
        self._lock = threading.Lock()
        self._last_ns: int | None = None

    def check(self, stamp_ns: int) -> None:
        """See whether a frame taken at ``stamp_ns`` [ns] may come now.

        Raises:
            InputError: ``zero_stamp`` or ``stamp_out_of_order``.
        """
        check_stamp(stamp_ns, self._what)
        with self._lock:
            last = self._last_ns
        if last is not None and stamp_ns < last:
            raise InputError(
                "stamp_out_of_order",
                f"stamp {stamp_ns} ns is before the last one, {last} ns; {self._what} must come "
                "in order of time (after a jump of the clock, reset first)",
            )

    def follow(self, stamp_ns: int) -> None:
        """Take the stamp of a frame that was answered [ns]."""
        with self._lock:
            self._last_ns = stamp_ns

    def reset(self) -> None:
        """Begin a new stream: its first stamp may be anything."""
        with self._lock:
            self._last_ns = None
