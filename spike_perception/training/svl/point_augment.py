# SPDX-License-Identifier: Apache-2.0
"""Whole, clean shapes to the clouds that sensors see: one side, cut, thin, in rings, noisy.

Everything happens in the frame of a virtual sensor that looks at the turned shape: its first axis
points away from the sensor, the others to the left and up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spike_perception.config import setting
from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.errors import InputError

Float = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PointAugmentConfig:
    """Probabilities (0 to 1) and strengths of the augmentations; lengths in radii of the shape."""

    turn: float = setting(
        180.0, "greatest turn about z, either way (degrees)", minimum=0.0, maximum=180.0
    )
    tilt: float = setting(
        5.0, "standard deviation of the tilt about x and y (degrees)", minimum=0.0, maximum=90.0
    )
    mirror: float = setting(0.5, "probability of a mirror image", minimum=0.0, maximum=1.0)
    scale: float = setting(
        1.25, "greatest stretch of an axis, and inverse of the least", minimum=1.0, maximum=4.0
    )
    jitter: float = setting(0.5, "probability of noise", minimum=0.0, maximum=1.0)
    jitter_deviation: float = setting(
        0.015, "greatest standard deviation of noise (radii)", minimum=0.0, maximum=1.0
    )
    one_sided: float = setting(
        0.3, "probability that only what a sensor sees is left", minimum=0.0, maximum=1.0
    )
    elevation: float = setting(
        25.0,
        "greatest height of the sensor over the shape's horizon; least -5 (degrees)",
        minimum=-5.0,
        maximum=89.0,
    )
    cells: int = setting(
        24, "cells across the shape, the first point in each of which is seen", minimum=4
    )
    falling: float = setting(
        0.2, "probability that density falls with distance", minimum=0.0, maximum=1.0
    )
    near: float = setting(
        1.6, "least distance of the sensor from the centre then (radii)", minimum=1.1, maximum=100.0
    )
    cut: float = setting(
        0.2, "probability that something in front hides a part", minimum=0.0, maximum=1.0
    )
    cut_share: float = setting(
        0.4, "greatest share of the points hidden", minimum=0.0, maximum=0.95
    )
    rings: float = setting(
        0.15, "probability of sampling in rings, as LiDARs do", minimum=0.0, maximum=1.0
    )
    rings_least: int = setting(5, "fewest rings across the shape", minimum=1)
    rings_most: int = setting(32, "most rings across the shape", minimum=1)
    dropout: float = setting(0.5, "probability of fewer points", minimum=0.0, maximum=1.0)
    dropout_share: float = setting(
        0.875, "greatest share of the points dropped", minimum=0.0, maximum=0.99
    )
    least: int = setting(32, "points that are left at least", minimum=1)


class PointAugment:
    """Augments one cloud; what happens depends on the generator alone."""

    def __init__(self, config: PointAugmentConfig | None = None) -> None:
        """Check the settings.

        Raises:
            InputError: ``invalid_setting`` if ``rings_least`` exceeds ``rings_most``.
        """
        self.config = config or PointAugmentConfig()
        if self.config.rings_least > self.config.rings_most:
            raise InputError(
                "invalid_setting",
                f"augment.rings_least {self.config.rings_least} exceeds rings_most "
                f"{self.config.rings_most}",
            )

    def __call__(self, points: Float, rng: np.random.Generator, out_points: int) -> Float:
        """One augmented cloud.

        Args:
            points: float32 [P, 3], z up, unit sphere.
            rng: all chance comes from it.
            out_points: of the cloud; repeated where fewer are left, as robots repeat them.

        Returns:
            float32 [out_points, 3], z up, in the unit sphere as ``prepare_points`` puts it there.
        """
        c, u = self.config, rng.random(24).tolist()
        cloud = points @ self._placing(u, rng)
        height = math.radians(-5.0 + u[8] * (c.elevation + 5.0))
        view = _tilt(height)
        # The turn about z has already chosen the sensor's side.
        seen = np.asarray(cloud @ view, np.float32)
        rows = rng.permutation(len(seen))
        if u[9] < c.one_sided:
            rows = self._kept(rows, _in_front(seen, rows, c.cells))
        if u[10] < c.cut:
            rows = self._kept(rows, _uncovered(seen[rows], u[11:15], c.cut_share * u[15]))
        if u[16] < c.falling:
            distance = c.near + u[17] * 2.0 + seen[rows, 0]
            nearest = max(float(distance.min()), 0.05)
            share = np.square(nearest / np.maximum(distance, nearest))
            rows = self._kept(rows, rng.random(len(rows)) < share)
        if u[18] < c.rings:
            count = c.rings_least + u[19] * (c.rings_most - c.rings_least)
            rows = self._ring(seen, rows, count, u[20])
        if u[21] < c.dropout:
            left = int(len(rows) * (1.0 - u[22] * c.dropout_share))
            rows = rows[: max(left, c.least)]
        rows = rows[np.arange(out_points) % len(rows)] if len(rows) < out_points else rows
        found = seen[rows[:out_points]]
        if u[23] < c.jitter:
            deviation = np.float32(c.jitter_deviation * rng.random())
            found = found + deviation * rng.standard_normal(found.shape, np.float32)
        return prepare_points(found @ view.T, {**_PREPARE, "points": out_points})

    def _placing(self, u: list[float], rng: np.random.Generator) -> Float:
        """Stretch, mirror, turn and tilt as one matrix, for rows of points."""
        c = self.config
        stretch = np.diag([c.scale ** (2.0 * each - 1.0) for each in u[:3]])
        stretch[1, 1] *= -1.0 if u[3] < c.mirror else 1.0
        turn = math.radians(c.turn) * (2.0 * u[4] - 1.0)
        about_z = np.array(
            [[math.cos(turn), math.sin(turn), 0.0], [-math.sin(turn), math.cos(turn), 0.0],
             [0.0, 0.0, 1.0]]
        )  # fmt: skip
        tilt = math.radians(c.tilt)
        x, y = np.clip(rng.standard_normal(2), -3.0, 3.0) * tilt
        about_x = np.array(
            [[1.0, 0.0, 0.0], [0.0, math.cos(x), math.sin(x)], [0.0, -math.sin(x), math.cos(x)]]
        )
        return np.asarray(stretch @ about_z @ about_x @ _tilt(y), np.float32)

    def _kept(self, rows: Rows, mask: NDArray[np.bool_]) -> Rows:
        """The rows under the mask, unless hardly any would be left."""
        found = rows[mask]
        return found if len(found) >= self.config.least else rows

    def _ring(self, seen: Float, rows: Rows, count: float, phase: float) -> Rows:
        """Points near evenly spaced heights, moved onto them (in place)."""
        height = seen[rows, 2]
        spacing = max(float(height.max() - height.min()) / count, 1e-6)
        place = height / spacing + phase
        ring = np.rint(place)
        near = np.abs(place - ring) < 0.25
        found = self._kept(rows, near)
        if len(found) < len(rows):
            seen[found, 2] = (ring[near] - phase) * spacing
        return found


_PREPARE = {"channels": ["x", "y", "z"], "normalise": "unit_sphere"}


def _in_front(seen: Float, rows: Rows, cells: int) -> NDArray[np.bool_]:
    """Which rows lie first, or nearly so, in their cell of the view or the cells beside it."""
    flat = seen[rows, 1:]
    low = flat.min(0)
    size = max(float((flat.max(0) - low).max()), 1e-6) / cells
    place = ((flat - low) / size).astype(np.int64) + 1
    wide = cells + 3
    cell = place[:, 0] * wide + place[:, 1]
    depth = seen[rows, 0]
    first = np.full(wide * wide, np.inf, np.float32)
    np.minimum.at(first, cell, depth)
    grid = first.reshape(wide, wide)
    near = grid.copy()
    # A surface hides what lies behind the gaps between its points.
    np.minimum(near[1:], grid[:-1], out=near[1:])
    np.minimum(near[:-1], grid[1:], out=near[:-1])
    np.minimum(near[:, 1:], grid[:, :-1], out=near[:, 1:])
    np.minimum(near[:, :-1], grid[:, 1:], out=near[:, :-1])
    return np.asarray(depth <= near.reshape(-1)[cell] + np.float32(2.5 * size))


def _uncovered(seen: Float, u: list[float], share: float) -> NDArray[np.bool_]:
    """Which points an edge or a bar in front leaves to be seen; it hides about that share."""
    angle = 2.0 * math.pi * u[0]
    along = seen[:, 1] * math.cos(angle) + seen[:, 2] * math.sin(angle)
    count = len(along)
    hidden = int(share * count)
    # An edge hides the first points along its direction, a bar some in the middle.
    begin = 0 if u[1] < 0.6 else int(u[2] * (count - hidden))
    ordered = np.sort(along)
    low, high = ordered[begin], ordered[min(begin + hidden, count - 1)]
    return np.asarray((along < low) | (along >= high))


def _tilt(angle: float) -> Float:
    """Rotation about y for rows of points: a sensor ``angle`` over the horizon looks along +x."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], np.float32)
