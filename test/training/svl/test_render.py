# SPDX-License-Identifier: Apache-2.0
"""Pictures of point sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.svl.render import (
    Discs,
    RenderConfig,
    angles,
    discs,
    render,
    render_views,
)

CONFIG = RenderConfig(size=96, elevation=0.0)


def ball(count: int = 1000, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_a_ball_is_a_closed_disc_lit_from_above() -> None:
    image = render(ball(), 0.0, CONFIG)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    surface = image[..., 0] < 0.9 * 255 * CONFIG.background
    rows, columns = np.nonzero(surface)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert abs(height - 0.8 * 96) <= 4
    assert abs(width - 0.8 * 96) <= 4
    inside = np.hypot(*(np.indices((96, 96)) - 47.5)) < 30
    assert surface[inside].all(), "the surface has holes"
    assert image[20:40, 40:56].mean() > image[60:80, 40:56].mean() + 10


def test_what_lies_in_front_hides_what_lies_behind() -> None:
    rng = np.random.default_rng(1)
    plate = np.zeros((800, 3), np.float32)
    plate[:, 1:] = rng.uniform(-1, 1, (800, 2))
    step = np.array([0.5, 0, 0], np.float32)
    colours = np.repeat(np.array([[1, 0, 0], [0, 0, 1]], np.float32), 800, 0)
    both = np.concatenate([plate + step, plate - step])
    from_front = render(both, 0.0, CONFIG, colours)[48, 48].astype(int)
    from_back = render(both, 180.0, CONFIG, colours)[48, 48].astype(int)
    assert from_front[0] > from_front[2] + 50
    assert from_back[2] > from_back[0] + 50


def test_a_thin_rod_stays_thin_and_stands_upright() -> None:
    rod = np.zeros((300, 3), np.float32)
    rod[:, 2] = np.linspace(-1, 1, 300)
    rod[:, :2] = 0.01 * np.random.default_rng(2).standard_normal((300, 2))
    seen = render(rod, 30.0, CONFIG)[..., 0] < 200
    rows, columns = np.nonzero(seen)
    assert np.ptp(rows) > 70
    assert np.ptp(columns) < 12


def test_views_turn_around_z() -> None:
    points = ball()
    points[:, 0] *= 0.2  # thin along x: wide from 0 degrees, narrow from 90
    views = render_views(points, 4, replace(CONFIG, azimuth=135.0, arc=360.0))
    assert views.shape == (4, 96, 96, 3)
    widths = [np.ptp(np.nonzero((view[..., 0] < 200).any(0))[0]) for view in views]
    assert widths[0] > 1.8 * widths[1]
    np.testing.assert_array_equal(views[1], render(discs(points, CONFIG), 90.0, CONFIG))


def test_views_share_an_arc() -> None:
    assert angles(3, replace(CONFIG, azimuth=-90.0, arc=90.0)) == [-120.0, -90.0, -60.0]
    assert angles(1, CONFIG) == [CONFIG.azimuth]


def test_a_dense_surface_needs_no_discs() -> None:
    points = ball(40000)
    colours = np.tile(np.array([[0.2, 0.9, 0.2]], np.float32), (len(points), 1))
    image = render(Discs(points, points), 0.0, CONFIG, colours)
    assert (image[30:66, 30:66, 1] > 2 * image[30:66, 30:66, 0]).all()


def test_a_shape_of_three_points_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        discs(np.zeros((3, 3), np.float32))
    assert caught.value.reason == "wrong_input"


def test_points_in_one_place_still_give_a_picture() -> None:
    image = render(np.zeros((20, 3), np.float32), 0.0, replace(CONFIG, size=32))
    assert image.shape == (32, 32, 3)
