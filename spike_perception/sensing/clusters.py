# SPDX-License-Identifier: Apache-2.0
"""Objects of a LiDAR scan: ground taken away, what is left joined to clusters, boxes around them.

Euclidean clustering with a distance that grows with the range, as the gaps between a LiDAR's beams
do: two points belong together if a chain of points leads from one to the other with no gap wider
than ``distance + distance_growth * range``. Neighbours come from SciPy's k-d tree, components from
its sparse graphs. Points are first thinned to the mean of each voxel of half that gap,
which bounds a point's neighbours whatever the sensor's density.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spike_perception.config import section, setting
from spike_perception.sensing.ground import GroundConfig, height_above_ground


@dataclass(frozen=True)
class ClusterConfig:
    """Which points make an object."""

    min_range: float = setting(
        1.5, "nearer points are left out: the robot itself (m)", minimum=0.0, maximum=100.0
    )
    max_range: float = setting(80.0, "farther points are left out (m)", minimum=1.0, maximum=1000.0)
    distance: float = setting(
        0.3, "widest gap within an object beside the sensor (m)", minimum=0.05, maximum=10.0
    )
    distance_growth: float = setting(
        0.015, "growth of that gap with the range (m per m)", minimum=0.0, maximum=0.2
    )
    lateral_weight: float = setting(
        3.0,
        "weight of gaps across the line of sight: above 1 they must be narrower than those along "
        "it, as a LiDAR turns in smaller steps than its rings are apart",
        minimum=0.2,
        maximum=10.0,
    )
    vertical_weight: float = setting(
        0.5,
        "weight of vertical gaps: below 1 they may be wider, as those between rings are",
        minimum=0.1,
        maximum=10.0,
    )
    min_points: int = setting(10, "fewest points of an object", minimum=1, maximum=1_000_000)
    max_points: int = setting(50_000, "most points of an object", minimum=1, maximum=10_000_000)
    min_height: float = setting(0.3, "lowest object (m)", minimum=0.0, maximum=100.0)
    max_height: float = setting(4.5, "highest object (m)", minimum=0.1, maximum=1000.0)
    min_length: float = setting(
        0.2, "shortest longer side of an object (m)", minimum=0.0, maximum=100.0
    )
    max_length: float = setting(
        15.0, "longest longer side of an object (m)", minimum=0.1, maximum=1000.0
    )
    max_width: float = setting(
        5.0, "longest shorter side of an object (m)", minimum=0.1, maximum=1000.0
    )
    max_objects: int = setting(
        128, "most objects of a scan; the nearest are kept", minimum=1, maximum=10_000
    )
    ground: GroundConfig = section(GroundConfig)


class Box(NamedTuple):
    """A box standing upright in the sensor's frame.

    Attributes:
        centre: float64 ``[3]``, x, y, z (m).
        size: float64 ``[3]``, length along its heading, width, height (m); length is the longer
            side.
        yaw: heading about z (rad), in -π/2 to π/2: front and back are not told apart.
    """

    centre: NDArray[np.float64]
    size: NDArray[np.float64]
    yaw: float


class Cluster(NamedTuple):
    """One object.

    Attributes:
        rows: int64 ``[P]``, its points, as ascending rows of the cloud.
        minimum: float32 ``[3]``, lowest x, y, z of its points (m).
        maximum: float32 ``[3]``, highest x, y, z of its points (m).
        box: upright, along the sides that are seen.
    """

    rows: NDArray[np.int64]
    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    box: Box


def find_clusters(xyz: NDArray[np.float32], config: ClusterConfig | None = None) -> list[Cluster]:
    """Objects of one scan, nearest first.

    Args:
        xyz: float32 ``[N, 3]`` (m), finite, in a frame with the sensor at its origin and z up
            (REP-103), tilted by no more than ``ground.slope`` allows.
        config: limits; the defaults suit a car's LiDAR on roads.

    Returns:
        At most ``max_objects`` clusters; a point is in one at most. Equal input gives equal output.
    """
    return find_and_count(xyz, config)[0]


def find_and_count(
    xyz: NDArray[np.float32], config: ClusterConfig | None = None
) -> tuple[list[Cluster], int]:
    """As :func:`find_clusters`, and how many more there are beyond ``max_objects``.

    Of those the sides along x, y and z were looked at, but not their boxes: some may be too small
    or too wide.
    """
    config = config or ClusterConfig()
    with np.errstate(over="ignore"):
        distance = np.hypot(xyz[:, 0], xyz[:, 1])
    farthest = np.maximum(distance, np.abs(xyz[:, 2]))
    inside = np.flatnonzero((distance >= config.min_range) & (farthest <= config.max_range))
    near, distance = xyz[inside], distance[inside]
    if config.ground.method != "none":
        height = height_above_ground(near, distance, config.ground)
        object_ = (height >= config.ground.clearance) & (height <= config.ground.ceiling)
        inside, near, distance = inside[object_], near[object_], distance[object_]
    if not len(inside):
        return [], 0
    label = _components(near, distance, config)
    # Points sorted by cluster, so that a cluster is a slice.
    order = np.argsort(label, kind="stable")
    near, rows = near[order], inside[order]
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    sizes = np.diff(starts, append=len(rows))
    minimum = np.minimum.reduceat(near, starts)
    maximum = np.maximum.reduceat(near, starts)
    extent = maximum - minimum
    # A rectangle's extent along x or y is at most its diagonal.
    diagonal = np.hypot(config.max_length, config.max_width)
    wanted = (
        (sizes >= config.min_points)
        & (sizes <= config.max_points)
        & (extent[:, 2] >= config.min_height)
        & (extent[:, 2] <= config.max_height)
        & (extent[:, :2].max(axis=1) <= diagonal)
    )
    middle = (minimum + maximum) / 2
    found = []
    order = np.argsort(np.hypot(middle[:, 0], middle[:, 1]), kind="stable")
    order = order[wanted[order]]
    looked_at = 0
    for looked_at, each in enumerate(order, start=1):  # noqa: B007 - what is left is counted
        part = slice(starts[each], starts[each] + sizes[each])
        box = upright_box(near[part])
        if (
            config.min_length <= box.size[0] <= config.max_length
            and box.size[1] <= config.max_width
        ):
            found.append(Cluster(rows[part], minimum[each], maximum[each], box))
            if len(found) == config.max_objects:
                break
    return found, len(order) - looked_at


def upright_box(xyz: NDArray[np.float32]) -> Box:
    """The upright box around points float32 ``[P, 3]``, P at least 1, whose sides they lie along.

    A scan shows one or two sides of an object, an L from above. Of all headings that one is taken
    under which most points are close to a side of the rectangle: the closeness criterion of Zhang,
    Xu, Dong and Dolan (IEEE Intelligent Vehicles 2017, algorithm 4).
    """
    plan = xyz[:, :2] - xyz[0, :2]  # small numbers keep float32 exact
    yaw = _heading(plan[:: -(-len(plan) // _BOX_POINTS)])
    axes = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    turned = plan @ axes.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    x, y = (low + high) / 2 @ axes + xyz[0, :2]
    length, width = high - low
    if length < width:
        length, width, yaw = width, length, yaw - np.pi / 2  # within -π/2 to 0
    bottom, top = float(xyz[:, 2].min()), float(xyz[:, 2].max())
    centre, size = np.array([x, y, (bottom + top) / 2]), np.array([length, width, top - bottom])
    return Box(centre, size, float(yaw))


_BOX_POINTS = 128  # at most, for the heading
_HEADINGS = np.deg2rad(np.arange(0.0, 90.0, 2.0)).astype(np.float32)
_CLOSEST = np.float32(0.05)  # m; nearer to a side counts the same: the sensor's noise


def _heading(plan: NDArray[np.float32]) -> float:
    """Heading (rad), 0 to π/2, of the rectangle whose sides points [P, 2] are closest to."""
    cos, sin = np.cos(_HEADINGS)[:, None], np.sin(_HEADINGS)[:, None]
    x, y = plan.T
    to_side = []
    for along in (cos * x + sin * y, cos * y - sin * x):
        to_side.append(along - along.min(axis=1, keepdims=True))
        to_side.append(along.max(axis=1, keepdims=True) - along)
    nearest = np.maximum(np.minimum.reduce(to_side), _CLOSEST)
    return float(_HEADINGS[(1 / nearest).sum(axis=1).argmax()])


_VOXEL = 0.5  # of the gap at which points are joined
_BAND = 1.3  # outer over inner range of the bands that are searched one by one
_INNERMOST = 0.05  # m, inner range of the first band, or more: nearer gaps seem too wide
_CIRCLE = 2 * np.pi + 1e-6  # turns rounded to float32 must stay below the period of the search


def _components(
    xyz: NDArray[np.float32], distance: NDArray[np.float32], config: ClusterConfig
) -> NDArray[np.int64]:
    """Number of the cluster of every point, [N]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    first_inner = max(config.min_range, _INNERMOST)
    band = np.log(np.maximum(distance, first_inner) / first_inner) / np.log(_BAND)
    band = band.astype(np.int64)
    inner = first_inner * _BAND ** np.arange(band.max() + 1)
    turn = np.arctan2(xyz[:, 1], xyz[:, 0]) + np.float32(np.pi)
    polar = np.stack([distance, turn, xyz[:, 2] * np.float32(config.vertical_weight)])
    side = _VOXEL * (config.distance + config.distance_growth * inner)
    voxel, polar = _voxels(polar, band, side, side / (inner * config.lateral_weight))
    distance, turn, height = polar
    gap = config.distance + config.distance_growth * distance
    joined = []
    # One search per band: within it a radian has about one length, and the widest gap of all would
    # find too many pairs nearby.
    for near in inner:
        widest = config.distance + config.distance_growth * near * _BAND
        nearest = near - widest if near > first_inner else 0.0
        chosen = np.flatnonzero((distance <= near * _BAND) & (distance >= nearest))
        # At the inner edge of what is searched: pairs seem nearer than they are, never farther.
        arc = max(near - widest, near / 2) * config.lateral_weight
        tree = cKDTree(
            np.stack([distance[chosen], turn[chosen] * arc, height[chosen]], axis=1),
            balanced_tree=False,
            compact_nodes=False,
            boxsize=(0, _CIRCLE * arc, 0),
        )
        first, second = chosen[tree.query_pairs(widest, output_type="ndarray")].T
        apart = np.abs(turn[first] - turn[second])
        apart = np.minimum(apart, 2 * np.pi - apart) * config.lateral_weight
        apart *= (distance[first] + distance[second]) / 2
        square = (distance[first] - distance[second]) ** 2 + (height[first] - height[second]) ** 2
        close = square + apart**2 <= np.maximum(gap[first], gap[second]) ** 2
        joined.append((first[close], second[close]))
    first, second = (np.concatenate(ends) for ends in zip(*joined, strict=True))
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), (len(gap), len(gap)))
    return np.asarray(connected_components(graph, directed=False)[1][voxel], np.int64)


def _voxels(
    polar: NDArray[np.float32],
    band: NDArray[np.int64],
    side: NDArray[np.float64],
    angle: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Number of the voxel of every point, [N], and the voxels' mean points, [3, V].

    Args:
        polar: range (m), turn (rad) and weighted height (m) of every point, [3, N].
        band: band of every point, [N].
        side: side of each band's voxels (m).
        angle: width of each band's voxels (rad).
    """
    fine = np.stack([1 / side, 1 / angle, 1 / side]).astype(np.float32)
    lattice = np.floor(polar * fine[:, band]).astype(np.int64)
    lattice -= lattice.min(axis=1, keepdims=True)
    across = lattice.max(axis=1) + 1
    key = (band * across[0] + lattice[0]) * across[1] + lattice[1]
    voxel = np.unique(key * across[2] + lattice[2], return_inverse=True)[1].reshape(-1)
    count = np.bincount(voxel)
    return voxel, np.stack([np.bincount(voxel, each) / count for each in polar])
