# SPDX-License-Identifier: Apache-2.0
"""Neighbourhoods of one cloud in NumPy: what ``students.grouping`` computes, for robots.

It needs no torch, runs on one thread (with busy neighbours torch's threads wait for one another
much longer than they work), and takes the neighbours from the distances that farthest point
sampling computes anyway.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError


def group_cloud(cloud: NDArray[np.float32], groups: int, neighbours: int) -> NDArray[np.float32]:
    """Neighbourhoods of farthest-point centres, the first being farthest from the centroid.

    Args:
        cloud: float32 [P, 3 + F]: coordinates, then further features.
        groups: G, the number of neighbourhoods.
        neighbours: k, the points in each, in no particular order.

    Returns:
        float32 [G, k, 3 + F + 3]: offset from the centre, the features, and the centre itself.

    Raises:
        InputError: ``too_few_points`` if P is less than G or k.
    """
    count = len(cloud)
    if count < max(groups, neighbours):
        raise InputError(
            "too_few_points",
            f"a cloud of {count} points cannot give {groups} neighbourhoods of {neighbours}",
        )
    axes = np.ascontiguousarray(cloud[:, :3].T)
    distances = np.empty((groups, count), np.float32)
    nearest = np.full(count, np.inf, np.float32)
    chosen = np.empty(groups, np.int64)
    current = int(_squared_distances(axes, axes.mean(1)).argmax())
    for index in range(groups):
        chosen[index] = current
        distances[index] = _squared_distances(axes, axes[:, current])
        np.minimum(nearest, distances[index], out=nearest)
        current = int(nearest.argmax())
    members = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours]
    centres = cloud[chosen, None, :3].repeat(neighbours, 1)
    local = cloud[members]
    return np.concatenate([local[..., :3] - centres, local[..., 3:], centres], -1)


def _squared_distances(
    axes: NDArray[np.float32], centre: NDArray[np.float32]
) -> NDArray[np.float32]:
    offsets = axes - centre[:, None]
    np.multiply(offsets, offsets, out=offsets)
    return np.asarray(offsets[0] + offsets[1] + offsets[2], np.float32)
