# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.deploy.preprocessing import prepare_image, prepare_points
from spike_perception.errors import InputError

IMAGE = {
    "input_size": [4, 8],
    "channel_order": "rgb",
    "mean": [0.5, 0.25, 0.0],
    "std": [0.5, 0.25, 1.0],
    "resize": "stretch",
    "interpolation": "nearest",
}
POINTS = {"points": 4, "channels": ["x", "y", "z", "i"], "normalise": "none"}


def plain(color, rows=4, columns=8):
    return np.full((rows, columns, 3), color, np.uint8)


def test_channels_are_normalised_each_by_its_own_mean_and_std():
    found = prepare_image(plain((255, 0, 51)), IMAGE)
    assert found.shape == (3, 4, 8) and found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found[:, 0, 0], [1.0, -1.0, 0.2], atol=1e-6)


def test_channel_orders():
    bgr = prepare_image(plain((255, 0, 51)), {**IMAGE, "channel_order": "bgr"})
    np.testing.assert_allclose(bgr[:, 0, 0], [(0.2 - 0.5) / 0.5, -1.0, 1.0], atol=1e-6)
    one = {**IMAGE, "channel_order": "gray", "mean": [0.0], "std": [1.0]}
    gray = prepare_image(plain((100, 100, 100)), one)
    assert gray.shape == (3, 4, 8)
    np.testing.assert_allclose(gray, 100 / 255, atol=1e-6)


LOCAL = {**IMAGE, "channel_order": "gray", "mean": [0.0], "std": [1.0], "patch_norm_floor": 0.05}


def test_patches_are_normalised_locally():
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(60, 120, (12, 16, 1), dtype=np.uint8), 3, 2)
    rules = {**LOCAL, "input_size": [12, 16], "patch_norm": 5}
    found = prepare_image(image, rules)
    part = image[3:8, 4:9, 0] / 255
    wanted = (part[2, 2] - part.mean()) / (part.std() + 0.05)
    np.testing.assert_allclose(found[:, 5, 6], wanted, rtol=1e-4)
    np.testing.assert_allclose(prepare_image(image + np.uint8(50), rules), found, atol=1e-4)
    half = {**rules, "mean": [0.5], "std": [2.0]}
    np.testing.assert_allclose(prepare_image(image, half), (found - 0.5) / 2, atol=1e-5)
    three = prepare_image(image, {**rules, "patch_norm": [3, 5, 9]})
    np.testing.assert_allclose(three[1], found[1])
    assert np.abs(three[0] - three[2]).max() > 0.1


def test_patches_of_a_colour_image():
    image = np.random.default_rng(0).integers(0, 255, (4, 8, 3), dtype=np.uint8)
    rules = {**LOCAL, "channel_order": "rgb", "patch_norm": 3}
    assert np.ptp(prepare_image(image, rules), axis=0).max() > 0.1
    with pytest.raises(InputError) as caught:
        prepare_image(image, {**rules, "patch_norm": [3, 5, 9]})
    assert caught.value.reason == "bad_metadata"


def test_a_crop_keeps_the_centre():
    image = plain((0, 0, 0), 8, 40)
    image[:, 12:28] = 255
    found = prepare_image(image, {**IMAGE, "resize": "shorter_side_crop"})
    np.testing.assert_allclose(found[0], 1.0)


def test_a_letterbox_keeps_the_whole_image_and_fills_with_the_mean():
    found = prepare_image(plain((255, 255, 255), 16, 16), {**IMAGE, "resize": "letterbox"})
    assert (found[:, :, :2] == 0).all() and (found[:, :, 6:] == 0).all()
    np.testing.assert_allclose(found[0, :, 2:6], 1.0)


@pytest.mark.parametrize("resize", ["stretch", "shorter_side_crop", "letterbox"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5), (480, 640)])
def test_every_size_fits(resize, interpolation, size):
    rules = {**IMAGE, "resize": resize, "interpolation": interpolation}
    found = prepare_image(plain((9, 8, 7), *size), rules)
    assert found.shape == (3, 4, 8) and np.isfinite(found).all()


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 8), np.uint8), np.zeros((4, 8, 4), np.uint8), np.zeros((4, 8, 3), np.float32),
     np.zeros((0, 8, 3), np.uint8)],
)  # fmt: skip
def test_other_arrays_are_refused(image):
    with pytest.raises(InputError):
        prepare_image(image, IMAGE)


def test_clouds_are_thinned_or_repeated_the_same_way_each_time():
    cloud = np.arange(40.0).reshape(10, 4)
    assert prepare_points(cloud, POINTS)[:, 0].tolist() == [0, 8, 20, 28]
    assert prepare_points(cloud[:2], POINTS)[:, 0].tolist() == [0, 4, 0, 4]


def test_unit_sphere_and_cube():
    rng = np.random.default_rng(0)
    cloud = rng.standard_normal((50, 4)) * 30 + 1e4
    rules = {**POINTS, "points": 50}
    sphere = prepare_points(cloud, {**rules, "normalise": "unit_sphere"})
    assert abs(sphere[:, :3].mean(0)).max() < 1e-5
    assert np.linalg.norm(sphere[:, :3], axis=1).max() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(sphere[:, 3], cloud[:, 3], rtol=1e-6)
    cube = prepare_points(cloud, {**rules, "normalise": "unit_cube"})
    assert cube[:, :3].min() == 0 and cube[:, :3].max() == 1
    for rule in ("unit_sphere", "unit_cube"):
        assert np.isfinite(prepare_points(np.ones((3, 4)), {**POINTS, "normalise": rule})).all()


@pytest.mark.parametrize(
    "cloud", [np.zeros((0, 4)), np.zeros((5, 3)), np.zeros(4), np.full((5, 4), np.inf)]
)
def test_other_clouds_are_refused(cloud):
    with pytest.raises(InputError):
        prepare_points(cloud, POINTS)
