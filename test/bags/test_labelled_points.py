# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spike_perception.bags import npz_array
from spike_perception.bags.labelled_points import open_point_set
from spike_perception.errors import InputError

CLOUD = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
Z_UP = np.array([[1, -3, 2], [4, -6, 5]], np.float32)


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def ply(cloud: np.ndarray[Any, Any]) -> bytes:
    lines = "\n".join(" ".join(map(str, point)) for point in cloud.tolist())
    return (
        f"ply\nformat ascii 1.0\nelement vertex {len(cloud)}\nproperty float x\nproperty float y\n"
        f"property float z\nend_header\n{lines}\n"
    ).encode()


def pcd(cloud: np.ndarray[Any, Any]) -> bytes:
    header = (
        f"FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH {len(cloud)}\nHEIGHT 1\n"
        f"POINTS {len(cloud)}\nDATA binary\n"
    )
    return header.encode() + cloud.tobytes()


FILES = {
    "chair/1.npy": npy(CLOUD),
    "chair/10.ply": ply(CLOUD),
    "chair/9.npy": npy(CLOUD)[:-3],
    "lamp/1.pcd": pcd(CLOUD),
    "lamp/2.bin": np.pad(CLOUD, ((0, 0), (0, 1))).tobytes(),
    "lamp/notes.txt": b"x",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "set" / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "set"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in FILES.items():
            file.writestr(f"test/{name}", data)
    return path


def test_folders_and_zip_files_are_read_alike(folder: Path, archive: Path) -> None:
    sets = [open_point_set(folder / "test"), open_point_set(archive, "test")]
    for each in sets:
        assert each.classes == ("chair", "lamp")
        assert each.names == ["chair/1.npy", "chair/10.ply", "lamp/1.pcd", "lamp/2.bin"]
        assert each.labels.tolist() == [0, 0, 1, 1]
        assert list(each.skipped) == ["chair/9.npy"]
        assert "truncated_data" in each.skipped["chair/9.npy"]
        for k in range(len(each)):
            np.testing.assert_array_equal(each.points(k), CLOUD)
    assert sets[0].id == sets[1].id
    (folder / "test" / "chair" / "1.npy").write_bytes(npy(CLOUD + 1))
    assert open_point_set(folder, "test").id != sets[0].id


def test_up_axis_and_limit(folder: Path) -> None:
    np.testing.assert_array_equal(open_point_set(folder / "test", up="y").points(0), Z_UP)
    assert open_point_set(folder / "test", limit=3).names == ["chair/1.npy", "lamp/1.pcd"]
    for wrong in ({"up": "x"}, {"limit": 0}):
        with pytest.raises(InputError) as caught:
            open_point_set(folder / "test", **wrong)  # type: ignore[arg-type]
        assert caught.value.reason == "invalid_option"


def test_files_without_folders_are_unlabelled(folder: Path) -> None:
    found = open_point_set(folder / "test" / "chair")
    assert found.classes == ()
    assert found.labels.tolist() == [-1, -1]


def test_npz_with_splits(tmp_path: Path) -> None:
    path = tmp_path / "shapes.npz"
    rows = np.stack([CLOUD, CLOUD * 2]).astype(np.int16)
    arrays = {"points_train": rows, "points_dev": rows[:1], "label_train": np.array([1, 0])}
    np.savez_compressed(
        path, classes=np.array(["a_b", "c"]), scale=np.float32(0.5), label_dev=[1], **arrays
    )
    for found in (open_point_set(path, "train"), open_point_set(path / "train")):
        assert found.classes == ("a_b", "c")
        assert found.labels.tolist() == [1, 0]
        assert found.names == ["points_train[0]", "points_train[1]"]
        np.testing.assert_array_equal(found.points(1), CLOUD)
        assert found.points(1).dtype == np.float32
    np.testing.assert_array_equal(open_point_set(path / "dev", up="y").points(0), Z_UP / 2)
    assert open_point_set(path, "train", limit=1).names == ["points_train[0]"]
    for split in (None, "test"):
        with pytest.raises(InputError, match="dev, train"):
            open_point_set(path, split)


def test_npz_of_points_label_and_classes(tmp_path: Path) -> None:
    path = tmp_path / "shapes.npz"
    rows = np.stack([CLOUD, np.full_like(CLOUD, np.nan), CLOUD.astype(">f4")]).astype(np.float64)
    rows[2, 0, 0] = np.inf
    np.savez(path, points=rows, label=np.array([0, 1, 1], np.uint8), classes=["a", "b"])
    found = open_point_set(path)
    assert found.names == ["points[0]", "points[2]"]
    assert found.labels.tolist() == [0, 1]
    assert list(found.skipped) == ["points[1]"]
    np.testing.assert_array_equal(found.points(1), CLOUD[1:])
    np.savez(path, points=rows)
    assert open_point_set(path).labels.tolist() == [-1, -1]
    np.savez(path, points=rows, label=[0, 0, 2])
    assert open_point_set(path).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    "arrays",
    [
        {"points": np.array([None])},
        {"points": np.zeros((2, 2))},
        {"points": np.zeros((1, 2, 4))},
        {"points": np.zeros((0, 2, 3))},
        {"points": np.zeros((1, 2, 3), bool)},
        {"points": CLOUD[None], "label": [0, 0]},
        {"points": CLOUD[None], "label": [-1]},
        {"points": CLOUD[None], "label": [0.5]},
        {"points": CLOUD[None], "label": [2], "classes": ["a"]},
        {"points": CLOUD[None], "label": [0], "classes": [b"a"]},
        {"points": CLOUD[None], "labels": [0], "classes": ["a"]},
        {"points": CLOUD[None], "label": [0], "classes": ["a" * 300]},
        {"points": CLOUD[None], "scale": np.nan},
        {"points": CLOUD[None], "scale": [1.0]},
    ],
)
def test_npz_refusals(tmp_path: Path, arrays: dict[str, Any]) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"wrong\.npz") as caught:
        open_point_set(path)
    assert caught.value.reason == "points_unreadable"


def test_an_array_that_claims_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    claims = {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20, 3)}
    np.lib.format.write_array_header_1_0(header, claims)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("points.npy", header.getvalue() + bytes(64))
    with pytest.raises(InputError, match="64 bytes"):
        open_point_set(path)


def test_a_header_that_claims_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("points.npy", b"\x93NUMPY\x02\x00" + b"\xff" * 4 + bytes(1 << 20))
    with pytest.raises(InputError, match=r"version \(2, 0\)"):
        open_point_set(path)


def test_a_large_array_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.npz"
    np.savez(path, points=np.zeros((4, 100, 3)))
    monkeypatch.setattr(npz_array, "MAX_ARRAY_BYTES", 1000)
    with pytest.raises(InputError, match="at most 1000"):
        open_point_set(path)


def test_damaged_files_and_nothing_readable(tmp_path: Path) -> None:
    path = tmp_path / "half.npz"
    np.savez_compressed(path, points=np.random.default_rng(0).normal(size=(4, 50, 3)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"half\.npz"):
        open_point_set(path)
    damaged = bytearray(whole)
    damaged[200:260] = bytes(60)
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"half\.npz"):
        open_point_set(path)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match="no NumPy array") as caught:
        open_point_set(tmp_path / "flat")
    assert caught.value.reason == "no_readable_object"
    with pytest.raises(InputError, match="does not exist"):
        open_point_set(tmp_path / "none")


def test_modelnet40(data: Path) -> None:
    path = data / "modelnet40_1024pts.npz"
    if not path.exists():
        pytest.skip(f"no {path}")
    found = open_point_set(path, "dev")
    assert (len(found), len(found.classes), len(found.skipped)) == (1234, 40, 0)
    cloud = found.points(700)
    assert cloud.shape == (1024, 3)
    assert 0.98 < np.linalg.norm(cloud, axis=1).max() < 1.02
    persons = np.flatnonzero(found.labels == found.classes.index("person"))
    extents = [np.ptp(found.points(int(k)), axis=0) for k in persons]
    assert np.mean(extents, axis=0).argmax() == 2  # they stand
