# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from spike_perception.sensing.ground import GroundConfig, height_above_ground

from .lidar_scene import HEIGHT, scan

BOXES = [(8.0, 0.0, 0.3, 4.5, 1.8, 1.5), (-6.0, 5.0, 0.0, 0.6, 0.6, 1.7)]


def heights(xyz: np.ndarray, **settings: float) -> np.ndarray:
    config = dataclasses.replace(GroundConfig(), **settings)
    return height_above_ground(xyz, np.hypot(xyz[:, 0], xyz[:, 1]), config)


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("sensor_height", [0.0, HEIGHT])
def test_ground_is_low_and_objects_are_not(slope: float, sensor_height: float) -> None:
    xyz, met = scan(BOXES, slope=slope)
    height = heights(xyz, sensor_height=sensor_height)
    truth = xyz[:, 2] + HEIGHT - slope * xyz[:, 0]
    assert np.mean(height[met < 0] < 0.2) > 0.98
    assert np.mean(height[truth > 0.5] > 0.2) > 0.99
    assert np.abs(height - truth)[met >= 0].mean() < 0.12


def test_reflections_from_below_do_not_lower_the_ground() -> None:
    xyz, met = scan(BOXES)
    below = xyz[met < 0][::500] * np.float32(2.5)  # as far again below the road
    height = heights(np.concatenate([xyz, below]))
    assert np.mean(height[: len(xyz)][met < 0] < 0.2) > 0.97


def test_no_points() -> None:
    assert heights(np.empty((0, 3), np.float32)).shape == (0,)
