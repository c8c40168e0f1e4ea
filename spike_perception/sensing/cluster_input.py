# SPDX-License-Identifier: Apache-2.0
"""Clusters as the point students take them, and the axes they are in.

One convention for training and for the robot: **z is up** (REP-103), metres, the heading as it is
seen. Sensors that follow REP-103 need no turn, and students learn every heading by random turns
about z. Shape collections such as ModelNet40 and ShapeNet have y up; they are turned once, when
read, by :func:`z_up_from_y_up`.

Centring, scaling to the unit sphere and resampling to the student's number of points are the
bundle's business (:func:`spike_perception.deploy.preprocessing.prepare_points`): points stay in the
order of the scan, ring after ring, so that even thinning there leaves every ring its share, and
equal input gives equal output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.sensing.clusters import Cluster


def cluster_points(xyz: NDArray[np.float32], cluster: Cluster) -> NDArray[np.float32]:
    """Points of a cluster, moved to the middle of its box, as input for ``prepare_points``.

    Args:
        xyz: float32 ``[N, 3]`` (m), the scan that was clustered.
        cluster: one of its clusters.

    Returns:
        float32 ``[P, 3]`` (m), z up, in the order of the scan.
    """
    middle = (cluster.minimum + cluster.maximum) / 2
    return np.asarray(xyz[cluster.rows] - middle, np.float32)


def z_up_from_y_up(points: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Turn shapes with y up to z up: a quarter turn about x, no mirroring.

    Args:
        points: ``[..., 3 + F]``, x, y, z and what belongs to them.

    Returns:
        A copy with x, -z, y in place of x, y, z.
    """
    turned = points.copy()
    turned[..., 1] = -points[..., 2]
    turned[..., 2] = points[..., 1]
    return turned
