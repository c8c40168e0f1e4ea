# SPDX-License-Identifier: Apache-2.0
"""Sessions and poses of the places in the index, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spike_perception.places.map import Place
from spike_perception.places.retrieval import Layout
from spike_perception.places.types import Pose

_NO_FRAME = -1
T = TypeVar("T", bound=np.generic)


class PlaceTable:
    """Columns beside the vectors of a ``PlaceIndex``; same rows, same order."""

    def __init__(self) -> None:
        """Start empty."""
        self._count = 0
        self._session: NDArray[np.int64] = np.empty(1024, dtype=np.int64)
        self._pose: NDArray[np.float64] = np.empty((1024, 7))
        self._frame: NDArray[np.int64] = np.empty(1024, dtype=np.int64)
        self._frames: list[str] = []

    def __len__(self) -> int:
        return self._count

    @property
    def session(self) -> NDArray[np.int64]:
        """Session of every row, int64 [places]."""
        return self._session[: self._count]

    def append(self, places: Sequence[Place]) -> None:
        """Add rows at the end."""
        needed = self._count + len(places)
        if needed > self._session.size:
            size = max(needed, 2 * self._session.size)
            self._session = _grown(self._session, self._count, size)
            self._pose = _grown(self._pose, self._count, size)
            self._frame = _grown(self._frame, self._count, size)
        for place in places:
            row = self._count
            self._session[row] = place.session
            if place.pose is None:
                self._pose[row] = np.nan
                self._frame[row] = _NO_FRAME
            else:
                self._pose[row] = (*place.pose.position, *place.pose.orientation)
                if place.pose.frame_id not in self._frames:
                    self._frames.append(place.pose.frame_id)
                self._frame[row] = self._frames.index(place.pose.frame_id)
            self._count += 1

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Remove rows: bool [places], True for those that stay."""
        count = int(kept.sum())
        for column in (self._session, self._pose, self._frame):
            column[:count] = column[: self._count][kept]
        self._count = count

    def pose(self, row: int) -> Pose | None:
        """Pose of a row, if known."""
        if self._frame[row] == _NO_FRAME:
            return None
        x, y, z, *orientation = self._pose[row].tolist()
        return Pose((x, y, z), tuple(orientation), self._frames[self._frame[row]])

    def layout(self, rows: NDArray[np.int64] | None = None) -> Layout:
        """Where rows lie in the map.

        Positions are those in the frame of the last place; places in other frames count as
        unknown, because distances across frames mean nothing.
        """
        chosen = slice(self._count) if rows is None else rows
        order = np.arange(self._count) if rows is None else rows
        position = None
        frame = self._frame[self._count - 1] if self._count else _NO_FRAME
        if frame != _NO_FRAME:
            position = self._pose[chosen, :3].copy()
            position[self._frame[chosen] != frame] = np.nan
        return Layout(order, self._session[chosen], position)

    def same_place(self, row: int, other: int, window: int, radius: float) -> bool:
        """Whether two rows show one place: by poses where known, else neighbours in a session."""
        pose, other_pose = self.pose(row), self.pose(other)
        if pose is not None and other_pose is not None and pose.frame_id == other_pose.frame_id:
            return pose.distance_to(other_pose) <= radius
        return bool(self._session[row] == self._session[other]) and abs(row - other) <= window


def _grown(column: NDArray[T], count: int, size: int) -> NDArray[T]:
    larger = np.empty((size, *column.shape[1:]), dtype=column.dtype)
    larger[:count] = column[:count]
    return larger
