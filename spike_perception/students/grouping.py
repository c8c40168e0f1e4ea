# SPDX-License-Identifier: Apache-2.0
"""Point clouds to neighbourhoods: farthest point sampling and nearest neighbours.

These run before the network and are not part of an exported graph.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spike_perception.errors import InputError


@torch.no_grad()
def farthest_points(positions: Tensor, count: int) -> Tensor:
    """Farthest point sampling: each centre is the point farthest from those chosen before.

    The first is the point farthest from the centroid, so the choice does not depend on the order
    of the points (but for exact ties). The loop is over centres only; all clouds of the batch and
    all points are handled at once.

    Args:
        positions: [B, N, 3], any unit.
        count: G, the number of centres, at most N.

    Returns:
        Indices of the centres, int64 [B, G].

    Raises:
        InputError: ``too_few_points`` if N is less than G.
    """
    points = positions.shape[1]
    if points < count:
        raise InputError(
            "too_few_points",
            f"a cloud of {points} points cannot give {count} centres; resample it first",
        )
    if positions.device.type == "cpu":
        # On a CPU a NumPy call costs a fraction of a torch call, and the loop has thousands.
        return torch.from_numpy(_farthest_numpy(positions.detach().float().numpy(), count))
    return _farthest_torch(positions, count)


def _farthest_torch(positions: Tensor, count: int) -> Tensor:
    batch, points, _ = positions.shape
    chosen = torch.empty(batch, count, dtype=torch.int64, device=positions.device)
    rows = torch.arange(batch, device=positions.device)
    centre = positions.mean(1)
    nearest = torch.full((batch, points), torch.inf, device=positions.device)
    distance = (positions - centre[:, None]).square().sum(-1)
    current = distance.argmax(1)
    for index in range(count):
        chosen[:, index] = current
        distance = (positions - positions[rows, current][:, None]).square().sum(-1)
        nearest = torch.minimum(nearest, distance)
        current = nearest.argmax(1)
    return chosen


def _farthest_numpy(positions: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    batch, points, _ = positions.shape
    # Coordinates first: three contiguous rows per cloud.
    axes = np.ascontiguousarray(positions.transpose(2, 0, 1))
    x, y, z = axes
    rows = np.arange(batch)
    chosen = np.empty((batch, count), np.int64)
    nearest = np.full((batch, points), np.inf, np.float32)
    distance = np.empty((batch, points), np.float32)
    scratch = np.empty((batch, points), np.float32)
    centre = axes.mean(2, keepdims=True)
    for index in range(-1, count):
        np.subtract(x, centre[0], out=distance)
        np.multiply(distance, distance, out=distance)
        for values, middle in ((y, centre[1]), (z, centre[2])):
            np.subtract(values, middle, out=scratch)
            np.multiply(scratch, scratch, out=scratch)
            np.add(distance, scratch, out=distance)
        if index < 0:
            current = distance.argmax(1)
        else:
            np.minimum(nearest, distance, out=nearest)
            current = nearest.argmax(1)
        if index + 1 < count:
            chosen[:, index + 1] = current
            centre = axes[:, rows, current][:, :, None]
    return chosen


@torch.no_grad()
def group_points(points: Tensor, groups: int, neighbours: int) -> Tensor:
    """Neighbourhoods of farthest-point centres, as one tensor for the network.

    Args:
        points: [B, N, 3 + F]: coordinates, then F further features of each point.
        groups: G, the number of neighbourhoods.
        neighbours: k, the points in each, the centre among them, the nearest first: neurons that
            keep a membrane from one cloud to the next have one for each place in this order.

    Returns:
        [B, G, k, 3 + F + 3]: offset from the centre, the features, and the centre itself
        (repeated over k, so that one tensor holds all).

    Raises:
        InputError: ``too_few_points`` if N is less than G or k.
    """
    if points.shape[1] < neighbours:
        raise InputError(
            "too_few_points",
            f"a cloud of {points.shape[1]} points has no {neighbours} neighbours; resample it",
        )
    positions = points[..., :3]
    centres = _take(positions, farthest_points(positions, groups))
    # By the binomial theorem small ones would be lost in float32; and in this order of additions
    # they are, to the last bit, those of deploy.grouping.
    x, y, z = (
        (positions[:, None, :, axis] - centres[:, :, None, axis]).square_() for axis in range(3)
    )
    nearest = x.add_(y).add_(z).topk(neighbours, largest=False, sorted=True).indices
    local = _take(points, nearest.flatten(1)).unflatten(1, (groups, neighbours))
    centre = centres[:, :, None].expand(-1, -1, neighbours, -1)
    return torch.cat([local[..., :3] - centre, local[..., 3:], centre], -1)


def _take(values: Tensor, indices: Tensor) -> Tensor:
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))
