# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike_perception.simulation.pose import Pose
from spike_perception.simulation.sdf_to_mjcf import OPTICAL

numbers = st.tuples(*[st.floats(-3, 3)] * 6)


def test_euler_angles_turn_about_fixed_axes():
    pose = Pose.from_euler(1, 2, 3, math.pi / 2, 0, math.pi / 2)
    # Rolled first: y becomes z; then turned: x becomes y.
    assert pose.matrix @ (1, 0, 0) == pytest.approx([0, 1, 0])
    assert pose.matrix @ (0, 1, 0) == pytest.approx([0, 0, 1])


@given(*[st.floats(-3, 3)] * 4)
def test_driving_on_and_on_is_driving_once(forward, leftward, turning, seconds):
    step = Pose.driven(forward, leftward, turning, seconds / 4)
    once = Pose.driven(forward, leftward, turning, seconds)
    steps = step @ step @ step @ step
    assert np.allclose(steps.matrix, once.matrix)
    assert np.allclose(steps.translation, once.translation)


def test_driving_round_a_quarter_circle():
    pose = Pose.driven(math.pi / 2, 0, math.pi / 2, 1.0)
    assert pose.translation == pytest.approx((1, 1, 0))
    assert pose.yaw == pytest.approx(math.pi / 2)
    assert Pose.driven(2, 1, 0, 3).translation == pytest.approx((6, 3, 0))


@given(numbers, numbers)
def test_composition_is_the_product_of_homogeneous_matrices(a, b):
    first, second = Pose.from_euler(*a), Pose.from_euler(*b)
    both = first @ second
    assert np.allclose(both.matrix, first.matrix @ second.matrix)
    assert np.allclose(both.translation, first.matrix @ second.translation + first.translation)
    unit = both @ both.inverse()
    assert np.allclose(unit.matrix, np.eye(3))
    assert np.allclose(unit.translation, 0, atol=1e-9)


def test_yaw_is_read_back():
    assert Pose.planar(0, 0, -2.5).yaw == pytest.approx(-2.5)


def test_optical_axes_follow_rep_103():
    forward, left, up = np.eye(3)
    right, down, depth = OPTICAL.matrix.T
    assert np.allclose((right, down, depth), (-left, -up, forward))
