# SPDX-License-Identifier: Apache-2.0
"""A teacher's features of pictures of shapes, kept on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.training.svl.abstract import abstract_shapes
from spike_perception.training.svl.render import RenderConfig, render_views
from spike_perception.training.svl.shapes import Shapes
from spike_perception.training.svl.view_features import cached_view_features
from spike_perception.training.teachers.teacher import ImageFeatures

CONFIG = RenderConfig(size=24, samples=4000)


class MeanColours:
    """A teacher whose feature of a picture is its coarse brightness."""

    def __init__(self, identity: str = "a") -> None:
        self.id = identity
        self.seen = 0
        self.fail_after = 10**9

    def encode_images(self, images: np.ndarray) -> ImageFeatures:
        self.seen += len(images)
        if self.seen > self.fail_after:
            raise KeyboardInterrupt
        coarse = np.stack(images).astype(np.float32).mean(3).reshape(len(images), 4, 6, 4, 6)
        features = coarse.mean((2, 4)).reshape(len(images), 16)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        return ImageFeatures(features, np.zeros((len(images), 1, 1, 1), np.float32))


def shapes(count: int = 5) -> Shapes:
    points = abstract_shapes(count, seed=1, points=64)
    return Shapes("abstract", points, np.full(count, -1), (), f"id{count}", {})


def test_features_are_of_every_shape_from_every_side(tmp_path: Path) -> None:
    teacher = MeanColours()
    found = cached_view_features(teacher, shapes(), tmp_path, 3, CONFIG, progress=False)
    assert found.shape == (5, 3, 16)
    assert found.dtype == np.float16
    pictures = render_views(shapes().points[3], 3, CONFIG)
    np.testing.assert_allclose(found[3], MeanColours().encode_images(pictures).features, atol=1e-3)


def test_they_are_computed_once_and_again_when_anything_changes(tmp_path: Path) -> None:
    teacher = MeanColours()

    def ask(*given: object, **named: object) -> None:
        cached_view_features(*given, progress=False, **named)  # type: ignore[arg-type]

    ask(teacher, shapes(), tmp_path, 2, CONFIG)
    assert teacher.seen == 10
    ask(teacher, shapes(), tmp_path, 2, CONFIG)
    assert teacher.seen == 10
    ask(teacher, shapes(), tmp_path, 2, replace(CONFIG, elevation=5.0))
    assert teacher.seen == 20
    ask(teacher, shapes(4), tmp_path, 2, CONFIG)
    assert teacher.seen == 28
    ask(teacher, shapes(), tmp_path, 1, CONFIG)
    assert teacher.seen == 33
    other = MeanColours("b")
    ask(other, shapes(), tmp_path, 2, CONFIG)
    assert other.seen == 10


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    teacher = MeanColours()
    teacher.fail_after = 130
    with pytest.raises(KeyboardInterrupt):
        cached_view_features(teacher, shapes(150), tmp_path, 1, CONFIG, progress=False)
    again = MeanColours()
    found = cached_view_features(again, shapes(150), tmp_path, 1, CONFIG, progress=False)
    assert again.seen == 150 - 128
    assert (np.linalg.norm(found.astype(np.float32), axis=2) > 0.99).all()


def test_coloured_shapes_are_pictured_in_colour(tmp_path: Path) -> None:
    plain = shapes(2)
    dark = replace(plain, id="dark", colours=np.zeros_like(plain.points))
    seen = [
        cached_view_features(MeanColours(), each, tmp_path, 1, CONFIG, progress=False)
        for each in (plain, dark)
    ]
    assert not np.allclose(*seen)


def test_pictures_that_a_set_brings_along_are_taken(tmp_path: Path) -> None:
    sheet = np.random.default_rng(0).integers(0, 255, (2 * 24, 24, 3)).astype(np.uint8)
    files = []
    for row in range(2):
        files.append(tmp_path / f"{row}.png")
        cv2.imwrite(str(files[-1]), sheet[..., ::-1])
    brought = replace(shapes(2), pictures=tuple(files))
    found = cached_view_features(MeanColours(), brought, tmp_path, 3, CONFIG, progress=False)
    told = MeanColours().encode_images(sheet.reshape(2, 24, 24, 3)).features
    np.testing.assert_allclose(found[1], told[[0, 1, 0]], atol=1e-3)
