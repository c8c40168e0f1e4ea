# SPDX-License-Identifier: Apache-2.0
"""A made-up LiDAR scan: rays of a turning sensor against boxes on a ground."""

from __future__ import annotations

import numpy as np

HEIGHT = 1.7  # m, of the sensor above the ground


def scan(
    boxes: list[tuple[float, float, float, float, float, float]],
    *,
    rings: int = 48,
    steps: int = 1024,
    slope: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Points float32 [N, 3] of what the rays meet, and the number of the box met, -1: ground.

    Args:
        boxes: x, y (m), yaw (rad), length, width, height (m) of each; they stand on the ground.
        rings: of the sensor, evenly from -25 to +3 degrees.
        steps: of a turn.
        slope: rise of the ground along x.
    """
    up = np.deg2rad(np.linspace(-25, 3, rings))[:, None]
    turn = np.linspace(-np.pi, np.pi, steps, endpoint=False)[None]
    ray = np.stack(
        np.broadcast_arrays(np.cos(up) * np.cos(turn), np.cos(up) * np.sin(turn), np.sin(up)), -1
    ).reshape(-1, 3)
    with np.errstate(all="ignore"):
        reach = -HEIGHT / (ray[:, 2] - slope * ray[:, 0])
        reach[reach <= 0] = np.inf
        met = np.full(len(ray), -1)
        for number, (x, y, yaw, length, width, height) in enumerate(boxes):
            turned = np.array(
                [[np.cos(yaw), np.sin(yaw), 0], [-np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]]
            )
            origin = turned @ -np.array([x, y, slope * x - HEIGHT + height / 2])
            direction = ray @ turned.T
            half = np.array([length, width, height]) / 2
            one, other = (-half - origin) / direction, (half - origin) / direction
            enter = np.minimum(one, other).max(axis=1)
            leave = np.maximum(one, other).min(axis=1)
            hit = (enter < leave) & (enter > 0) & (enter < reach)
            reach[hit], met[hit] = enter[hit], number
    seen = reach < 80
    points = ray[seen] * reach[seen, None]
    noise = np.random.default_rng(0).normal(0, 0.01, points.shape)
    return (points + noise).astype(np.float32), met[seen]
