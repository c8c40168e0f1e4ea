# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.sensing.cluster_input import cluster_points, z_up_from_y_up
from spike_perception.sensing.clusters import find_clusters

from .lidar_scene import scan

PREPROCESSING = {"points": 256, "channels": ["x", "y", "z"], "normalise": "unit_sphere"}


def test_a_cluster_becomes_network_input() -> None:
    xyz, _ = scan([(8.0, 2.0, 0.4, 4.5, 1.8, 1.9)])
    (cluster,) = find_clusters(xyz)
    points = cluster_points(xyz, cluster)
    assert points.dtype == np.float32 and len(points) == len(cluster.rows)
    np.testing.assert_allclose(points.min(axis=0), -points.max(axis=0), atol=1e-5)
    ready = prepare_points(points, PREPROCESSING)
    np.testing.assert_array_equal(ready, prepare_points(points.copy(), PREPROCESSING))
    np.testing.assert_allclose(ready, prepare_points(xyz[cluster.rows], PREPROCESSING), atol=1e-5)
    # Up is still up: what is highest in the scan is highest in the input.
    order = np.argsort(points[:, 2])
    assert points[order[-1], 2] - points[order[0], 2] > 1.0


def test_shapes_with_y_up_are_turned_not_mirrored() -> None:
    axes = np.eye(3, dtype=np.float32)
    turned = z_up_from_y_up(axes)
    np.testing.assert_array_equal(turned[1], [0, 0, 1])
    assert np.isclose(np.linalg.det(turned), 1.0)
    with_intensity = np.array([[1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(z_up_from_y_up(with_intensity), [[1, -3, 2, 4]])
