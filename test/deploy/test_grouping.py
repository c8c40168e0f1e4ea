# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from spike_perception.deploy import grouping
from spike_perception.deploy.grouping import group_cloud, group_clouds
from spike_perception.errors import InputError
from spike_perception.students.grouping import group_points


def ordered(groups):
    return np.stack([each[np.lexsort(each.T)] for each in groups])


@pytest.mark.parametrize(("points", "features"), [(1024, 0), (200, 3), (64, 1)])
def test_it_is_what_training_computes(points, features):
    cloud = np.random.default_rng(points).standard_normal((points, 3 + features))
    cloud = cloud.astype(np.float32)
    found = group_cloud(cloud, 64, 32)
    expected = group_points(torch.from_numpy(cloud[None]), 64, 32)[0].numpy()
    assert found.dtype == np.float32 and found.shape == (64, 32, 6 + features)
    np.testing.assert_array_equal(ordered(found), ordered(expected))


def test_equal_points_and_small_clouds():
    assert np.isfinite(group_cloud(np.ones((8, 3), np.float32), 4, 8)).all()
    for groups, neighbours in ((9, 2), (2, 9)):
        with pytest.raises(InputError):
            group_cloud(np.ones((8, 3), np.float32), groups, neighbours)


@pytest.mark.parametrize("distances_held", [1, 1 << 22])
def test_a_batch_gives_what_its_clouds_give_and_repeated_points_are_found_as_often(
    monkeypatch, distances_held
):
    monkeypatch.setattr(grouping, "_MOST_DISTANCES", distances_held)
    rng = np.random.default_rng(0)
    distinct = [128, 100, 64, 50, 7, 1]
    clouds = np.stack(
        [rng.normal(size=(n, 4)).astype(np.float32)[np.arange(128) % n] for n in distinct]
    )
    found = group_clouds(clouds, 16, 12, distinct)
    for cloud, groups in zip(clouds, found, strict=True):
        alone = group_cloud(cloud, 16, 12)
        for a, b in zip(groups, alone, strict=True):
            assert np.array_equal(a[np.lexsort(a.T)], b[np.lexsort(b.T)])
