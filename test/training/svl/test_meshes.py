# SPDX-License-Identifier: Apache-2.0
"""Catalogues of furniture to named shapes."""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.svl import meshes
from spike_perception.training.svl.shapes import open_shapes

pytest.importorskip("trimesh")

PROPERTIES = """\
id=Test
license=CC-BY \\u00a9 Somebody
name#1=Winchester sofa
category#1=Living room
model#1=/a/block.obj
width#1=200
depth#1=80
height#1=50
creator#1=Ann
name#2=Toilet brush
category#2=Bathroom
model#2=/a/block.obj
name#3=Concept Sedan 01
model#3=/a/missing.obj
name#4=Caf\\u00e9 chair
model#4=/a/lying.obj
modelRotation#4=1 0 0 0 0 1 0 -1 0
"""
# A red plate at the front (+z) end of a bar along z, y up.
OBJ = """\
mtllib block.mtl
v -1 0 0
v 1 0 0
v 1 1 0
v -1 1 0
v -1 0 1
v 1 0 1
v 1 1 1
v -1 1 1
usemtl white
f 1 4 3 2
f 1 2 6 5
f 4 8 7 3
f 1 5 8 4
f 2 3 7 6
usemtl red
f 5 6 7 8
"""
MTL = "newmtl red\nKd 1 0 0\nnewmtl white\nKd 1 1 1\n"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meshes, "SAMPLES", 20_000)


@pytest.fixture
def catalogues(tmp_path: Path) -> Path:
    folder = tmp_path / "catalogues"
    folder.mkdir()
    with zipfile.ZipFile(folder / "Test.sh3f", "w") as archive:
        archive.writestr(meshes.PROPERTIES, PROPERTIES.encode("latin-1"))
        for name in ("block", "lying"):
            archive.writestr(f"a/{name}.obj", OBJ)
        archive.writestr("a/block.mtl", MTL)
    return folder


def test_models_become_shapes_of_their_classes(catalogues: Path, tmp_path: Path) -> None:
    result = meshes.write_shapes(catalogues, tmp_path / "out", points=600)
    assert result["per_class"] == {"café chair": 1, "sofa": 1, "toilet brush": 1}
    assert list(result["skipped"]) == ["Test-missing"]
    shapes = open_shapes(tmp_path / "out", points=600)
    assert shapes.classes == ("café chair", "sofa", "toilet brush")
    assert shapes.points.shape == (3, 600, 3)
    picture = cv2.imread(str(tmp_path / "out" / "sofa" / "Test-block.png"))
    assert picture.shape == (3 * 160, 160, 3)
    front = picture[240, 80].astype(int)  # the second view, from the front, in BGR
    assert front[2] > 2 * front[0]
    credit = (tmp_path / "out" / "ATTRIBUTION").read_text()
    assert "CC-BY © Somebody" in credit
    assert "sofa/Test-block.npy: winchester sofa, by Ann" in credit


def test_a_model_stands_upright_in_metres_and_faces_minus_y(
    catalogues: Path, tmp_path: Path
) -> None:
    meshes.write_shapes(catalogues, tmp_path / "out", points=2000)
    cloud = np.load(tmp_path / "out" / "sofa" / "Test-block.npy")
    np.testing.assert_allclose(np.ptp(cloud[:, :3], axis=0), [2.0, 0.8, 0.5], atol=0.02)
    red = cloud[:, 3] - cloud[:, 4] > 0.5
    assert 0.05 < red.mean() < 0.5
    np.testing.assert_allclose(cloud[red, 1], cloud[:, 1].min(), atol=1e-5)
    lying = np.load(tmp_path / "out" / "café chair" / "Test-lying.npy")
    plain = np.load(tmp_path / "out" / "toilet brush" / "Test-block.npy")
    assert np.ptp(lying[:, 2]) == pytest.approx(np.ptp(plain[:, 1]), abs=0.02)


def test_the_same_seed_gives_the_same_points(catalogues: Path, tmp_path: Path) -> None:
    clouds = []
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        meshes.write_shapes(catalogues, tmp_path / out, points=50, seed=seed)
        clouds.append(np.load(tmp_path / out / "sofa" / "Test-block.npy"))
    np.testing.assert_array_equal(clouds[0], clouds[1])
    assert not np.array_equal(clouds[0], clouds[2])


def test_a_name_goes_to_one_class_only() -> None:
    names = [name for group in meshes.CLASSES.values() for name in group]
    assert len(names) == len(set(names))
    assert meshes._CLASS_OF["toilets unit"] == "toilet"
    assert "toilet brush" not in meshes._CLASS_OF


def test_the_command_adds_abstract_shapes(
    catalogues: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    meshes.configure(parser)
    out = tmp_path / "out"
    given = [str(out), "--catalogues", str(catalogues), "--points", "64", "--abstract", "3"]
    assert meshes.run(parser.parse_args(given)) == 0
    assert "3 shapes of 3 names" in capsys.readouterr().out
    assert open_shapes(out / "abstract.npz", points=64).points.shape == (3, 64, 3)
    assert len(open_shapes(out, points=64)) == 3


def test_bad_input_is_explained(catalogues: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        meshes.write_shapes(tmp_path, tmp_path / "out")
    assert caught.value.reason == "catalogues_missing"
    with pytest.raises(InputError) as caught:
        meshes.write_shapes(catalogues, catalogues)
    assert caught.value.reason == "out_exists"
    (catalogues / "Zzz.sh3f").write_bytes(b"no zip")
    with pytest.raises(InputError) as caught:
        meshes.write_shapes(catalogues, tmp_path / "out", points=8)
    assert caught.value.reason == "bad_catalogue"
