# SPDX-License-Identifier: Apache-2.0
"""Height of every LiDAR point above the ground.

A polar grid around the sensor: its lowest point says where a cell's ground is, if that can be
reached from the ground nearer to the sensor without exceeding a slope. No plane is assumed, so
hills, kerbs and ramps are ground; a wall, a car or a reflection from below the road is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spike_perception.config import setting


@dataclass(frozen=True)
class GroundConfig:
    """How the ground is found."""

    method: str = setting(
        "polar",
        "how the ground is found; none: every point belongs to an object",
        choices=("polar", "none"),
    )
    sensor_height: float = setting(
        0.0,
        "height of the sensor above the ground (m); 0: estimated from every scan",
        minimum=0.0,
        maximum=100.0,
    )
    slope: float = setting(0.15, "steepest ground, rise over distance", minimum=0.0, maximum=1.0)
    step: float = setting(
        0.15, "highest step of the ground beside its slope (m)", minimum=0.0, maximum=1.0
    )
    clearance: float = setting(
        0.2, "points lower than this above the ground are ground (m)", minimum=0.0, maximum=2.0
    )
    ceiling: float = setting(
        4.0,
        "points higher than this above the ground are left out: leaves, signs, bridges (m)",
        minimum=0.5,
        maximum=1000.0,
    )


_SECTORS = 180  # of two degrees
_CELL = 0.5  # m, length of the cells near the sensor; they grow with the range
_GROWTH = 0.05


def height_above_ground(
    xyz: NDArray[np.float32], distance: NDArray[np.float32], config: GroundConfig
) -> NDArray[np.float32]:
    """Height of every point above the ground below it.

    Args:
        xyz: float32 ``[N, 3]`` (m), z up, the sensor at the origin.
        distance: float32 ``[N]``, horizontal range (m).
        config: ``method`` is not looked at.

    Returns:
        float32 ``[N]`` (m).
    """
    if not len(xyz):
        return np.empty(0, np.float32)
    # Cells of length _CELL + _GROWTH * range: the ring is the integral of its inverse.
    ring = (np.log1p(distance * np.float32(_GROWTH / _CELL)) / np.float32(_GROWTH)).astype(np.int32)
    turn = np.arctan2(xyz[:, 1], xyz[:, 0])
    sector = ((turn + np.float32(np.pi)) * np.float32(_SECTORS / (2 * np.pi))).astype(np.int32)
    rings = int(ring.max()) + 1
    cell = ring * _SECTORS + sector % _SECTORS
    z = xyz[:, 2]
    lowest = np.full((rings, _SECTORS), np.inf, np.float32)
    np.minimum.at(lowest.reshape(-1), cell, z)
    middle = np.expm1((np.arange(rings) + 0.5) * _GROWTH) * (_CELL / _GROWTH)
    start = -config.sensor_height or _start(lowest)
    return np.asarray(z - _grown(lowest, middle, start, config)[cell], np.float32)


def _start(lowest: NDArray[np.float32]) -> float:
    """Ground below the sensor.

    A low quantile, over the sectors, of what each sees nearest to the sensor: in some that is no
    ground, and on a slope half of them look uphill.
    """
    seen = np.isfinite(lowest)
    sectors = np.flatnonzero(seen.any(axis=0))
    return float(np.quantile(lowest[seen.argmax(axis=0)[sectors], sectors], 0.25))


def _grown(
    lowest: NDArray[np.float32],
    middle: NDArray[np.float64],
    start: float,
    config: GroundConfig,
) -> NDArray[np.float32]:
    """Ground height of every cell, flat [rings * sectors], from the sensor outwards."""
    ground = np.empty_like(lowest)
    height = np.full(lowest.shape[1], start, np.float32)
    at = np.zeros(lowest.shape[1], np.float32)  # where it was last seen
    for ring, distance in enumerate(middle):
        reach = config.step + config.slope * (np.float32(distance) - at)
        seen = np.abs(lowest[ring] - height) <= reach
        height = np.where(seen, lowest[ring], height)
        at = np.where(seen, np.float32(distance), at)
        ground[ring] = height
    return ground.reshape(-1)
