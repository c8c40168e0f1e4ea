# SPDX-License-Identifier: Apache-2.0
"""Clean shapes to sensed clouds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.errors import InputError
from spike_perception.training.svl.point_augment import PointAugment, PointAugmentConfig

OFF = PointAugmentConfig(
    turn=0.0, tilt=0.0, mirror=0.0, scale=1.0, jitter=0.0, one_sided=0.0, falling=0.0, cut=0.0,
    rings=0.0, dropout=0.0,
)  # fmt: skip


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def ball(count: int = 2048) -> np.ndarray:
    points = rng(9).standard_normal((count, 3)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def one(name: str, **changes: float) -> PointAugment:
    return PointAugment(replace(OFF, **{name: 1.0, **changes}))


@pytest.mark.parametrize("seed", range(20))
def test_every_cloud_is_in_the_unit_sphere_and_finite(seed: int) -> None:
    always = PointAugmentConfig(one_sided=1, cut=1, falling=1, rings=1, dropout=1, jitter=1)
    cloud = PointAugment(always)(ball(300), rng(seed), 256)
    assert cloud.shape == (256, 3)
    assert cloud.dtype == np.float32
    assert np.isfinite(cloud).all()
    np.testing.assert_allclose(cloud.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(cloud, axis=1).max(), 1, atol=1e-5)


def test_with_all_off_it_only_shuffles_the_shape() -> None:
    points = ball(200)
    rule = {"channels": ["x", "y", "z"], "points": 200, "normalise": "unit_sphere"}
    found = PointAugment(OFF)(points, rng(), 200)
    expected = prepare_points(points, rule)
    np.testing.assert_allclose(
        found[np.lexsort(found.T)], expected[np.lexsort(expected.T)], atol=1e-5
    )


def test_equal_generators_give_equal_clouds() -> None:
    augment = PointAugment()
    np.testing.assert_array_equal(augment(ball(), rng(3), 512), augment(ball(), rng(3), 512))
    assert not np.array_equal(augment(ball(), rng(3), 512), augment(ball(), rng(4), 512))


def test_a_turn_keeps_heights_and_a_stretch_stays_in_its_bounds() -> None:
    points = ball(500)
    turned = PointAugment(replace(OFF, turn=180.0))(points, rng(1), 500)
    np.testing.assert_allclose(np.sort(turned[:, 2]), np.sort(points[:, 2]), atol=0.1)
    for seed in range(10):
        stretched = PointAugment(replace(OFF, scale=1.25))(points, rng(seed), 500)
        extent = np.ptp(stretched, axis=0)
        assert extent.max() / extent.min() < 1.25**2 * 1.05


def test_one_sided_leaves_about_half_a_ball() -> None:
    points = ball(2048)
    seen = one("one_sided", elevation=-5.0)(points, rng(), 4096)
    share = len(np.unique(seen.round(5), axis=0)) / 2048
    assert 0.35 < share < 0.75


def test_a_cut_takes_a_part_away() -> None:
    shares = [
        len(np.unique(one("cut")(ball(1000), rng(seed), 2000).round(5), axis=0)) / 1000
        for seed in range(20)
    ]
    assert min(shares) > 0.55
    assert min(shares) < 0.8
    assert max(shares) > 0.85


def test_density_falls_with_distance() -> None:
    cloud = one("falling", elevation=-5.0)(ball(4096), rng(2), 4096)
    kept = np.unique(cloud.round(5), axis=0)[:, 0]  # the sensor looks along +x
    assert (kept < (kept.min() + kept.max()) / 2).mean() > 0.6


def test_rings_lie_at_few_heights() -> None:
    augment = one("rings", rings_least=8, rings_most=8, elevation=-5.0)
    cloud = np.unique(augment(ball(2000), rng(), 2000).round(5), axis=0)
    tilt = np.radians(-5.0)  # rings are level for the sensor, which looks up by 5 degrees
    height = cloud[:, 2] * np.cos(tilt) + cloud[:, 0] * np.sin(tilt)
    assert 7 <= len(np.unique(height.round(3))) <= 12


def test_dropout_keeps_the_least() -> None:
    augment = one("dropout", dropout_share=0.99, least=40)
    counts = [len(np.unique(augment(ball(1000), rng(s), 1000), axis=0)) for s in range(20)]
    assert min(counts) >= 39
    assert min(counts) < 300


def test_more_least_rings_than_most_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        PointAugment(PointAugmentConfig(rings_least=9, rings_most=8))
    assert caught.value.reason == "invalid_setting"
