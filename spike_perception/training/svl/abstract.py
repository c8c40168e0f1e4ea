# SPDX-License-Identifier: Apache-2.0
"""Shapes of nothing in particular: random assemblies of boxes, plates, cylinders, legs and shells.

A student learns from their pictures how the teacher sees form without being shown, or told of, any
class that it is to name later.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.errors import InputError

Float = NDArray[np.float64]

_DENSE = 4  # candidates of each part for every point that the shape gets
_PREPARE = {"channels": ["x", "y", "z"], "normalise": "unit_sphere"}


def abstract_shapes(count: int, seed: int, points: int = 1024) -> NDArray[np.float32]:
    """Random assemblies, float32 [count, points, 3], z up, unit sphere.

    Shape i depends on ``seed`` and i alone.

    Raises:
        InputError: ``invalid_option`` without a shape or with fewer than 4 points.
    """
    if count < 1 or points < 4:
        raise InputError(
            "invalid_option",
            f"{count} shapes of {points} points; at least 1 of 4 points can be made",
        )
    made = np.empty((count, points, 3), np.float32)
    for index in range(count):
        cloud = _assembly(np.random.default_rng([seed, index]), points)
        made[index] = prepare_points(cloud, {**_PREPARE, "points": points})
    return made


def _assembly(rng: np.random.Generator, points: int) -> Float:
    """Points evenly over the surface of two to five parts that touch, float64 [points, 3]."""
    parts: list[tuple[Float, float]] = []
    low, high = np.zeros(3), np.zeros(3)
    for number in range(int(rng.integers(2, 6))):
        cloud, area = _part(rng, points)
        begin, end = cloud.min(0), cloud.max(0)
        if number:
            axis = int(rng.choice(3, p=[0.2, 0.2, 0.6]))
            move = low + rng.random(3) * (high - low) - (begin + end) / 2
            above = rng.random() < 0.6
            move[axis] = high[axis] - begin[axis] if above else low[axis] - end[axis]
            if rng.random() < 0.6:  # things that people make are often symmetric
                move[1 - axis if axis < 2 else 0] = 0.0
            cloud = cloud + move
            if axis < 2 and rng.random() < 0.5:  # the same on the other side
                cloud, area = np.concatenate([cloud, cloud * _flipped(axis)]), 2.0 * area
        low, high = np.minimum(low, cloud.min(0)), np.maximum(high, cloud.max(0))
        parts.append((cloud, area))
    if rng.random() < 0.4:
        cloud, area = _legs(rng, points, low, high)
        parts.append((cloud, area))
    areas = np.array([area for _, area in parts])
    shares = rng.multinomial(points, areas / areas.sum())
    drawn = [
        cloud[rng.integers(len(cloud), size=share)]
        for (cloud, _), share in zip(parts, shares, strict=True)
    ]
    return np.concatenate(drawn)[rng.permutation(points)]


def _part(rng: np.random.Generator, points: int) -> tuple[Float, float]:
    """Dense points on one part around the origin, and its area."""
    size = np.exp(rng.uniform(math.log(0.15), 0.0, 3))
    kind = int(rng.integers(5))
    if kind == 0:
        return _box(rng, points, size, open_side=rng.random() < 0.25)
    if kind == 1:
        size[int(rng.integers(3))] = rng.uniform(0.02, 0.06)
        return _box(rng, points, size, open_side=False)
    if kind == 2:
        return _turned(rng, points, size, float(rng.choice([1.0, 1.0, 0.6, 0.0])))
    if kind == 3:
        return _shell(rng, points, size, rng.uniform(-0.6, 0.6))
    return _shell(rng, points, size, 1.0)


def _box(
    rng: np.random.Generator, points: int, size: Float, open_side: bool
) -> tuple[Float, float]:
    """A box, without its upper side if it is open."""
    x, y, z = size
    areas = np.array([y * z, y * z, x * z, x * z, x * y, 0.0 if open_side else x * y])
    cloud = rng.random((_DENSE * points, 3)) - 0.5
    side = rng.choice(6, len(cloud), p=areas / areas.sum())
    cloud[np.arange(len(cloud)), side // 2] = side % 2 - 0.5
    return cloud * size, float(areas.sum())


def _turned(
    rng: np.random.Generator, points: int, size: Float, taper: float
) -> tuple[Float, float]:
    """A cylinder or a cone, upright or lying, elliptic; ``taper``: upper to lower radius."""
    count = _DENSE * points
    angle = rng.uniform(0.0, 2.0 * math.pi, count)
    # Even over the wall: the radius at a height is drawn as often as it is long.
    u = rng.random(count)
    height = u if taper == 1.0 else (1.0 - np.sqrt(1.0 - u * (1.0 - taper**2))) / (1.0 - taper)
    radius = 1.0 - (1.0 - taper) * height
    r, h = float(size[:2].mean()) / 2, float(size[2])
    wall = math.pi * r * (1.0 + taper) * math.hypot(h, r * (1.0 - taper))
    caps = np.array([wall, math.pi * r * r, math.pi * (r * taper) ** 2])
    where = rng.choice(3, count, p=caps / caps.sum())
    radius = np.where(
        where == 0, radius, np.sqrt(rng.random(count)) * np.where(where == 2, taper, 1)
    )
    height = np.where(where == 0, height, np.where(where == 2, 1.0, 0.0))
    cloud = np.stack([radius * np.cos(angle), radius * np.sin(angle), height - 0.5], 1)
    cloud *= np.array([size[0] / 2, size[1] / 2, h])
    turn = int(rng.choice([0, 0, 1, 2]))
    return np.roll(cloud, turn, 1), float(caps.sum())


def _shell(rng: np.random.Generator, points: int, size: Float, upto: float) -> tuple[Float, float]:
    """An ellipsoid, or the bowl of it below the height ``upto`` (-1 to 1)."""
    count = _DENSE * points
    z = rng.uniform(-1.0, upto, count)
    angle = rng.uniform(0.0, 2.0 * math.pi, count)
    radius = np.sqrt(1.0 - z * z)
    cloud = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], 1) * size / 2
    if upto < 1.0 and rng.random() < 0.5:  # a dome
        cloud[:, 2] *= -1.0
    mean = float(np.mean([size[0] * size[1], size[1] * size[2], size[0] * size[2]]))
    return cloud, math.pi * mean * (1.0 + upto) / 2.0


def _legs(rng: np.random.Generator, points: int, low: Float, high: Float) -> tuple[Float, float]:
    """One, three or four thin legs under what spans ``low`` to ``high``."""
    extent = high - low
    length, radius = rng.uniform(0.2, 1.0), rng.uniform(0.01, 0.05)
    inset = rng.uniform(0.02, 0.3)
    corner = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)
    kind = int(rng.choice([1, 3, 4, 4]))
    if kind == 1:
        corner = np.full((1, 2), 0.5)
    elif kind == 3:
        corner = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]])
    feet = low[:2] + (inset + corner * (1.0 - 2.0 * inset)) * extent[:2]
    angle = rng.uniform(0.0, 2.0 * math.pi, points)
    across = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    place = feet[rng.integers(len(feet), size=points)] + across
    height = low[2] - rng.random(points) * length
    return np.column_stack([place, height]), len(feet) * 2.0 * math.pi * radius * length


def _flipped(axis: int) -> Float:
    return np.where(np.arange(3) == axis, -1.0, 1.0)
