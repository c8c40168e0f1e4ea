# SPDX-License-Identifier: Apache-2.0
"""Events of an event camera as a struct of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spike_perception.errors import InputError


class EventError(InputError):
    """Events that cannot be used.

    Reasons: ``truncated_packet``, ``unknown_encoding``, ``zero_size``, ``too_large``,
    ``invalid_time_base``, ``invalid_events``.
    """


@dataclass(frozen=True, eq=False)
class Events:
    """Events in order of time, one entry of each array an event.

    Attributes:
        x: uint16 ``[N]``, column (pixels, 0 at the left).
        y: uint16 ``[N]``, row (pixels, 0 at the top).
        polarity: bool ``[N]``, True for ON (brighter), False for OFF.
        t_ns: int64 ``[N]``, time (ns), so that no encoding's times are rounded. Its zero is the
            encoding's: the sensor's own clock for ``evt3``, the host's clock for ``libcaer``,
            whatever the writer chose for ``mono``.
    """

    x: npt.NDArray[np.uint16]
    y: npt.NDArray[np.uint16]
    polarity: npt.NDArray[np.bool_]
    t_ns: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.t_ns)

    def __getitem__(self, which: slice | npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Events:
        return Events(self.x[which], self.y[which], self.polarity[which], self.t_ns[which])


def no_events() -> Events:
    """Arrays of length 0."""
    return Events(
        np.empty(0, np.uint16), np.empty(0, np.uint16), np.empty(0, np.bool_), np.empty(0, np.int64)
    )


def concatenate(parts: Sequence[Events]) -> Events:
    """The events of all parts, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return no_events()
    return Events(
        np.concatenate([each.x for each in parts]),
        np.concatenate([each.y for each in parts]),
        np.concatenate([each.polarity for each in parts]),
        np.concatenate([each.t_ns for each in parts]),
    )
