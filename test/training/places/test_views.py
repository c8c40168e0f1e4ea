# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from spike_perception.training.places.views import ViewConfig, relight, warp

SIZE = (32, 64)


@pytest.fixture
def images() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (24, 8, 16), dtype=np.uint8)
    return np.stack(
        [cv2.resize(each, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for each in coarse]
    )


def test_the_same_draws_give_the_same_views(images: np.ndarray) -> None:
    config = ViewConfig()
    found = []
    for seed in (3, 3, 4):
        rng = np.random.default_rng(seed)
        found.append(relight(warp(images, SIZE, config, rng)[0], config, rng))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).mean() > 0.5
    assert found[0].shape == images.shape and found[0].dtype == np.uint8


def test_still_views_are_the_image(images: np.ndarray) -> None:
    found, still = warp(images, SIZE, ViewConfig(still=0.5), np.random.default_rng(0))
    assert 0 < still.sum() < len(images)
    np.testing.assert_array_equal(found[still], images[still])
    changed = (found[~still] != images[~still]).mean((1, 2))
    assert changed.min() > 0.05


def test_larger_images_are_shown_whole(images: np.ndarray) -> None:
    large = np.stack([cv2.resize(each, (128, 64)) for each in images])
    found, _ = warp(large, SIZE, ViewConfig(still=1.0), np.random.default_rng(0))
    wanted = np.stack([cv2.resize(each, SIZE[::-1]) for each in large])
    assert np.abs(found.astype(int) - wanted).mean() < 2.0


def test_a_shift_is_of_the_stated_size(images: np.ndarray) -> None:
    config = ViewConfig(
        shift=0.25, min_scale=1.0, max_scale=1.0, rotation_deg=0.0, perspective=0.0, still=0.0
    )
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8) * 2 + 40, (200, 32, 64)).copy()
    found, _ = warp(ramp, SIZE, config, np.random.default_rng(0))
    shifted = (found[:, 16, 32].astype(int) - ramp[:, 16, 32]) / 2
    assert 10 < np.abs(shifted).max() <= 16  # a quarter of 64 pixels at most


def test_light_can_be_left_alone(images: np.ndarray) -> None:
    found = relight(images, ViewConfig(light=0.0), np.random.default_rng(0))
    np.testing.assert_array_equal(found, images)


def test_nights_are_dark_and_snow_is_bright_below(images: np.ndarray) -> None:
    mild = {"light": 0.01, "occlusion": 0.0, "coarse": 0.0}
    plain = {**mild, "night": 0.0, "snow": 0.0}
    dim = np.full_like(images, 60)
    rng = np.random.default_rng(0)
    by_day = relight(dim, ViewConfig(**plain), rng).astype(float)
    assert abs(by_day.mean() - 60) < 20
    snow = relight(dim, ViewConfig(**{**plain, "snow": 1.0}), rng).astype(float)
    assert snow[:, 24:].mean() > by_day[:, 24:].mean() + 30
    assert abs(snow[:, :4].mean() - by_day[:, :4].mean()) < 15
    night = relight(images, ViewConfig(**{**plain, "night": 1.0}), rng).astype(float)
    assert np.median(night) < 0.8 * np.median(images)
