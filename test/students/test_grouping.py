# SPDX-License-Identifier: Apache-2.0
"""Farthest point sampling and neighbourhoods against plain definitions."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from spike_perception.errors import InputError
from spike_perception.students.grouping import _farthest_torch, farthest_points, group_points


def cloud(batch, points, width=3, seed=0):
    return torch.randn(batch, points, width, generator=torch.Generator().manual_seed(seed))


def by_definition(points, count):
    points = points.double().numpy()
    chosen = [int(((points - points.mean(0)) ** 2).sum(1).argmax())]
    while len(chosen) < count:
        distance = ((points[:, None] - points[None, chosen]) ** 2).sum(-1).min(1)
        chosen.append(int(distance.argmax()))
    return chosen


def test_farthest_points_follow_the_definition():
    points = cloud(3, 200)
    chosen = farthest_points(points, 20)
    assert chosen.tolist() == [by_definition(each, 20) for each in points]


def test_the_form_for_accelerators_chooses_the_same():
    points = cloud(3, 200)
    assert torch.equal(_farthest_torch(points, 20), farthest_points(points, 20))


def test_the_order_of_the_points_does_not_matter():
    points = cloud(1, 300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    a, b = farthest_points(points, 32), farthest_points(points[:, order], 32)
    assert torch.equal(points[0, a[0]], points[0, order][b[0]])


def test_neighbourhoods_hold_the_nearest_points():
    points = cloud(2, 120, 5)
    grouped = group_points(points, 9, 7)
    assert grouped.shape == (2, 9, 7, 8)
    centres = grouped[:, :, 0, -3:]
    assert torch.equal(
        centres,
        points[..., :3].gather(1, farthest_points(points[..., :3], 9)[..., None].expand(-1, -1, 3)),
    )
    for b in range(2):
        positions = points[b, :, :3].numpy()
        for g in range(9):
            centre = centres[b, g].numpy()
            nearest = np.sort(np.linalg.norm(positions - centre, axis=1))[:7]
            offsets = grouped[b, g, :, :3].numpy()
            np.testing.assert_allclose(
                np.sort(np.linalg.norm(offsets, axis=1)), nearest, rtol=1e-5, atol=1e-6
            )
            for row in grouped[b, g].numpy():  # features stay with their point
                index = np.linalg.norm(positions - (row[:3] + centre), axis=1).argmin()
                assert np.array_equal(points[b, index, 3:].numpy(), row[3:5])


def test_equal_points_are_no_trouble():
    grouped = group_points(torch.zeros(1, 40, 3), 8, 4)
    assert torch.equal(grouped, torch.zeros(1, 8, 4, 6))


@pytest.mark.parametrize(("points", "groups", "neighbours"), [(10, 11, 2), (10, 4, 11)])
def test_too_few_points_are_refused(points, groups, neighbours):
    with pytest.raises(InputError, match="10 points") as caught:
        group_points(cloud(1, points), groups, neighbours)
    assert caught.value.reason == "too_few_points"


def test_grouping_takes_milliseconds():
    points = cloud(1, 1024)
    group_points(points, 64, 32)
    times = []
    for _ in range(9):
        start = time.process_time()
        group_points(points, 64, 32)
        times.append(time.process_time() - start)
    assert min(times) < 0.02  # about 2 ms of one core; the margin is for a loaded machine
