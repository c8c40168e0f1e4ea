# SPDX-License-Identifier: Apache-2.0
"""Routes: closed loops with rounded corners, driven in laps, as JSON files.

::

    {"corners": [[x, y], ...],            corners of the loop, in order of driving (m)
     "corner_radius": 3.0,                (m)
     "laps": [{"daylight": "noon",        a time of day
               "lateral_offset": 0.0,     to the left of the loop (m)
               "speed": 1.5}, ...]}       mean speed (m/s)
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.simulation.daylight import daylight

MAXIMUM_CORNERS = 1000
MAXIMUM_LAPS = 100
MAXIMUM_LENGTH = 10_000.0  # of a lap (m)


@dataclass(frozen=True)
class Lap:
    """One lap: time of day by name, offset to the left (m), mean speed (m/s)."""

    daylight: str
    lateral_offset: float
    speed: float


@dataclass(frozen=True)
class Route:
    """A closed loop of straights and arcs, and the laps to drive on it."""

    corners: tuple[tuple[float, float], ...]
    corner_radius: float
    laps: tuple[Lap, ...]

    def centreline(self, spacing: float = 0.05) -> NDArray[np.float64]:
        """Sample the loop.

        Args:
            spacing: largest distance between samples (m).

        Returns:
            ``[N, 4]``: distance along the loop (m), x, y (m), heading (rad, unwrapped). The first
            and the last row are the same place, half-way along the first straight.

        Raises:
            InputError: ``invalid_route`` if the arcs do not fit between the corners.
        """
        corners = np.asarray(self.corners, np.float64)
        count = len(corners)
        ahead = np.roll(corners, -1, axis=0) - corners
        lengths = np.linalg.norm(ahead, axis=1)
        headings = np.arctan2(ahead[:, 1], ahead[:, 0])
        # Turn at the end of straight i, and how much of it the arc takes away.
        turns = np.angle(np.exp(1j * (np.roll(headings, -1) - headings)))
        if np.abs(turns).max() > math.radians(170):
            raise InputError("invalid_route", "the route turns back on itself at a corner")
        cut = self.corner_radius * np.tan(np.abs(turns) / 2)
        if (cut + np.roll(cut, 1) > lengths).any():
            raise InputError(
                "invalid_route",
                f"corner_radius is {self.corner_radius:g} m: the arcs do not fit between the "
                "corners; give a smaller radius",
            )
        rows = []
        distance, heading = 0.0, float(headings[0])
        middle = (corners[0] + corners[1]) / 2

        def straight(start: NDArray[np.float64], end: NDArray[np.float64]) -> None:
            nonlocal distance
            length = float(np.linalg.norm(end - start))
            for share in np.linspace(0, 1, math.ceil(length / spacing), endpoint=False):
                point = start + share * (end - start)
                rows.append((distance + share * length, *point, heading))
            distance += length

        start = middle
        for i in range(count):
            direction = np.array([math.cos(headings[i]), math.sin(headings[i])])
            corner = corners[(i + 1) % count]
            end = corner - cut[i] * direction
            straight(start, end)
            turn = float(turns[i])
            arc = abs(turn) * self.corner_radius
            side = math.copysign(1.0, turn)
            centre = end + side * self.corner_radius * np.array([-direction[1], direction[0]])
            for share in np.linspace(0, 1, math.ceil(arc / spacing), endpoint=False):
                now = heading + share * turn
                radial = side * self.corner_radius * np.array([math.sin(now), -math.cos(now)])
                rows.append((distance + share * arc, *(centre + radial), now))
            distance += arc
            heading += turn
            following = headings[(i + 1) % count]
            start = corner + cut[i] * np.array([math.cos(following), math.sin(following)])
        straight(start, middle)
        rows.append((distance, *middle, heading))
        return np.array(rows)


def load_route(path: Path) -> Route:
    """Read a route.

    Raises:
        InputError: ``route_missing`` or ``invalid_route``.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError("route_missing", f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError("invalid_route", f"{path} is not JSON: {error}") from error
    corners = _get(path, content, "corners", list)
    laps = _get(path, content, "laps", list)
    if not 3 <= len(corners) <= MAXIMUM_CORNERS or not 1 <= len(laps) <= MAXIMUM_LAPS:
        raise InputError(
            "invalid_route",
            f"{path} has {len(corners)} corners and {len(laps)} laps; allowed are 3 to "
            f"{MAXIMUM_CORNERS} corners and 1 to {MAXIMUM_LAPS} laps",
        )
    points = []
    for corner in corners:
        if not isinstance(corner, list) or len(corner) != 2:
            raise InputError("invalid_route", f"{path}: corner {corner!r}; allowed is [x, y] (m)")
        points.append((_number(path, "x", corner[0], -5e3), _number(path, "y", corner[1], -5e3)))
    route = Route(
        tuple(points),
        _number(path, "corner_radius", _get(path, content, "corner_radius"), 0.1),
        tuple(_lap(path, lap) for lap in laps),
    )
    around = np.linalg.norm(np.diff([*points, points[0]], axis=0), axis=1)
    if around.min() == 0 or around.sum() > MAXIMUM_LENGTH:
        raise InputError(
            "invalid_route",
            f"{path}: the loop is {around.sum():g} m long; allowed are corners apart from each "
            f"other and at most {MAXIMUM_LENGTH:g} m",
        )
    return route


def _lap(path: Path, content: Any) -> Lap:
    name = _get(path, content, "daylight", str)
    daylight(name)
    return Lap(
        name,
        _number(path, "lateral_offset", _get(path, content, "lateral_offset"), -10.0),
        _number(path, "speed", _get(path, content, "speed"), 0.1),
    )


def _get(path: Path, content: Any, key: str, kind: type | None = None) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise InputError("invalid_route", f"{path}: {key!r} is missing")
    if kind and not isinstance(content[key], kind):
        raise InputError("invalid_route", f"{path}: {key!r} is no {kind.__name__}")
    return content[key]


def _number(path: Path, key: str, value: Any, minimum: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError("invalid_route", f"{path}: {key} is {value!r}; allowed is a number")
    if not minimum <= value <= 5e3:
        raise InputError(
            "invalid_route", f"{path}: {key} is {value:g}; allowed is {minimum:g} to 5000"
        )
    return float(value)
