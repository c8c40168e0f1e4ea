# SPDX-License-Identifier: Apache-2.0
"""Sets of shapes in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.svl.shapes import open_shapes, shows

CLASSES = ("chair", "night_stand", "plant")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    points = rng.integers(-800, 800, (9, 40, 3)).astype(np.int16)
    points[..., 2] = np.abs(points[..., 2])
    file = tmp_path / "set.npz"
    np.savez(
        file,
        points_train=points,
        label_train=np.arange(9, dtype=np.int16) % 3,
        classes=np.array(CLASSES),
        scale=np.float32(0.001),
    )
    return file


def test_shapes_stand_as_in_the_file_in_the_unit_sphere(archive: Path) -> None:
    shapes = open_shapes(archive, "train", points=40)
    assert shapes.points.shape == (9, 40, 3)
    assert shapes.classes == ("chair", "night stand", "plant")
    np.testing.assert_array_equal(shapes.labels, np.arange(9) % 3)
    np.testing.assert_allclose(np.linalg.norm(shapes.points, axis=2).max(1), 1, atol=1e-5)
    with np.load(archive) as found:
        raw = found["points_train"][4].astype(np.float64)
    raw -= raw.mean(0)
    raw /= np.linalg.norm(raw, axis=1).max()
    np.testing.assert_allclose(shapes.points[4], raw, atol=1e-5)


def test_fewer_points_are_repeated_and_more_thinned(archive: Path) -> None:
    assert open_shapes(archive, "train", points=100).points.shape == (9, 100, 3)
    assert open_shapes(archive, "train", points=16).points.shape == (9, 16, 3)


def test_only_keeps_these_classes_in_their_order(archive: Path) -> None:
    shapes = open_shapes(archive, "train", points=40, only=("plant", "night_stand"))
    assert shapes.classes == ("plant", "night stand")
    np.testing.assert_array_equal(shapes.labels, [1, 0, 1, 0, 1, 0])


def test_what_is_held_out_leaves_neither_shape_nor_name(archive: Path) -> None:
    shapes = open_shapes(archive, "train", points=40, without=("chair", "night_stand"))
    assert shapes.classes == ("plant",)
    assert len(shapes) == 3
    with pytest.raises(InputError) as caught:
        open_shapes(archive, "train", only=("chair",), without=("chair",))
    assert caught.value.reason == "no_readable_object"


@pytest.mark.parametrize(
    ("name", "held", "expected"),
    [
        ("Winchester armchair", "chair", True),
        ("bunk_bed", "bed", True),
        ("bedside table", "night_stand", True),
        ("corner bathtub", "bathtub", True),
        ("tv 16:9", "monitor", True),
        ("contemporary living room", "sofa", True),
        ("double vanity", "dresser", True),
        ("guitar", "chair", False),
        ("plant", "table", False),
    ],
)
def test_kin_of_a_class_may_show_it(name: str, held: str, expected: bool) -> None:
    assert shows(name, held) == expected


def test_the_identity_follows_what_is_taken(archive: Path) -> None:
    found = [
        open_shapes(archive, "train", points=40).id,
        open_shapes(archive, "train", points=20).id,
        open_shapes(archive, "train", points=40, up="y").id,
        open_shapes(archive, "train", points=40, only=("chair",)).id,
        open_shapes(archive, "train", points=40, limit=4).id,
    ]
    assert len(set(found)) == 5
    assert found[0] == open_shapes(archive, "train", points=40).id


def test_a_folder_may_carry_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name in ("cup", "lamp"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", rng.random((50, 6)).astype(np.float32))
    shapes = open_shapes(tmp_path, points=50)
    assert shapes.classes == ("cup", "lamp")
    assert shapes.colours is not None
    np.testing.assert_allclose(shapes.colours[1], np.load(tmp_path / "lamp" / "a.npy")[:, 3:])
    assert open_shapes(tmp_path.parent, tmp_path.name, points=50).colours is not None
    np.save(tmp_path / "lamp" / "b.npy", rng.random((50, 3)).astype(np.float32))
    assert open_shapes(tmp_path, points=50).colours is None


def test_a_folder_may_carry_pictures(tmp_path: Path) -> None:
    (tmp_path / "cup").mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / "cup" / f"{name}.npy", np.random.default_rng(1).random((50, 3)))
    assert open_shapes(tmp_path, points=50).pictures == ()
    for name in ("a", "b"):
        (tmp_path / "cup" / f"{name}.png").write_bytes(b"picture")
    shapes = open_shapes(tmp_path, points=50)
    assert [each.name for each in shapes.pictures] == ["a.png", "b.png"]
    assert [each.name for each in shapes.subset(np.array([1])).pictures] == ["b.png"]
    assert len(open_shapes(tmp_path.parent, tmp_path.name, points=50).pictures) == 2
    (tmp_path / "cup" / "b.png").write_bytes(b"another")
    assert open_shapes(tmp_path, points=50).id != shapes.id


def test_unlabelled_shapes_have_no_classes(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", points=np.random.default_rng(2).random((3, 20, 3)))
    shapes = open_shapes(tmp_path / "some.npz", points=20)
    assert shapes.classes == ()
    np.testing.assert_array_equal(shapes.labels, [-1, -1, -1])


def test_an_unknown_class_is_refused(archive: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_shapes(archive, "train", only=("sofa",))
    assert caught.value.reason == "unknown_class"


def test_a_subset_keeps_classes_and_changes_its_identity(archive: Path) -> None:
    shapes = open_shapes(archive, "train", points=40)
    part = shapes.subset(np.array([2, 5]))
    assert part.classes == shapes.classes
    assert part.id != shapes.id
    np.testing.assert_array_equal(part.points, shapes.points[[2, 5]])
