# SPDX-License-Identifier: Apache-2.0
"""Neighbourhoods of clouds in NumPy: what ``students.grouping`` computes, for robots.

It needs no torch, runs on one thread (with busy neighbours torch's threads wait for one another
much longer than they work), and takes the neighbours from the distances that farthest point
sampling computes anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError

#: Most distances (clouds x groups x points) that are held at once.
_MOST_DISTANCES = 1 << 22


def group_cloud(cloud: NDArray[np.float32], groups: int, neighbours: int) -> NDArray[np.float32]:
    """Neighbourhoods float32 [G, k, 3 + F + 3] of one cloud; see :func:`group_clouds`."""
    return np.asarray(group_clouds(cloud[None], groups, neighbours)[0], np.float32)


def group_clouds(
    clouds: NDArray[np.float32],
    groups: int,
    neighbours: int,
    distinct: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """Neighbourhoods of farthest-point centres, the first being farthest from the centroid.

    Args:
        clouds: float32 [B, P, 3 + F]: coordinates, then further features.
        groups: G, the number of neighbourhoods.
        neighbours: k, the points in each, the nearest first.
        distinct: of each cloud, how many points come before it repeats itself from the start, at
            most P: repeated points need not be searched. None: no cloud is known to.

    Returns:
        float32 [B, G, k, 3 + F + 3]: offset from the centre, the features, and the centre itself.

    Raises:
        InputError: ``too_few_points`` if P is less than G or k.
    """
    batch, count, width = clouds.shape
    if count < max(groups, neighbours):
        raise InputError(
            "too_few_points",
            f"a cloud of {count} points cannot give {groups} neighbourhoods of {neighbours}",
        )
    distinct = distinct or [count] * batch
    grouped = np.empty((batch, groups, neighbours, width + 3), np.float32)
    step = max(1, _MOST_DISTANCES // (groups * count))
    for start in range(0, batch, step):
        some = clouds[start : start + step]
        chosen, distances = _farthest(some, groups)
        for k, cloud in enumerate(some):
            members = _nearest(distances[:, k], neighbours, distinct[start + k])
            centres = cloud[chosen[:, k], None, :3]
            out, local = grouped[start + k], cloud[members]
            np.subtract(local[..., :3], centres, out=out[..., :3])
            out[..., 3:width] = local[..., 3:]
            out[..., width:] = centres
    return grouped


def _farthest(
    clouds: NDArray[np.float32], groups: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Centres [G, B] of clouds, and every point's squared distance from each [G, B, P]."""
    batch, count, _ = clouds.shape
    axes = np.ascontiguousarray(clouds[..., :3].transpose(2, 0, 1))
    rows = np.arange(batch)
    distances = np.empty((groups, batch, count), np.float32)
    nearest = np.full((batch, count), np.inf, np.float32)
    chosen = np.empty((groups, batch), np.int64)
    current = _squared_distances(axes, axes.mean(2)).argmax(1)
    for index in range(groups):
        chosen[index] = current
        distances[index] = _squared_distances(axes, axes[:, rows, current])
        np.minimum(nearest, distances[index], out=nearest)
        current = nearest.argmax(1)
    return chosen, distances


def _squared_distances(
    axes: NDArray[np.float32], centres: NDArray[np.float32]
) -> NDArray[np.float32]:
    offsets = axes - centres[..., None]
    np.multiply(offsets, offsets, out=offsets)
    return np.asarray(offsets[0] + offsets[1] + offsets[2], np.float32)


def _nearest(distances: NDArray[np.float32], neighbours: int, distinct: int) -> NDArray[np.int64]:
    """The k nearest points of each centre [G, k], the nearest first, by all distances [G, P]."""
    count = distances.shape[1]
    if 2 * distinct > count:
        members = np.argpartition(distances, neighbours - 1, axis=1)[:, :neighbours]
        order = np.take_along_axis(distances, members, axis=1).argsort(axis=1)
        return np.take_along_axis(members, order, axis=1)
    order = np.argsort(distances[:, :distinct], axis=1)[:, :neighbours]
    copies = count // distinct + (order < count % distinct)
    # Slot s is taken by the first point that, with its copies and those before, exceeds s.
    slots = np.arange(neighbours)[:, None]
    slot = (copies.cumsum(axis=1)[:, None] <= slots).sum(axis=2)
    return np.take_along_axis(order, slot, axis=1)
