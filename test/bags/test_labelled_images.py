# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.bags import folder_files as module
from spike_perception.bags.labelled_images import LabelledImages
from spike_perception.errors import InputError


def png(value: int) -> bytes:
    return cv2.imencode(".png", np.full((4, 6, 3), value, np.uint8))[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "set" / "train"
    for name, values in (("a", (1, 2, 10)), ("a b", (20, 21)), ("c10", (30,)), ("c9", (40, 41))):
        (path / name).mkdir(parents=True)
        for value in values:
            (path / name / f"{value}.png").write_bytes(png(value))
    (path / "a" / "notes.txt").write_text("x")
    (path / "a" / ".hidden.png").write_bytes(b"x")
    (path / ".cache").mkdir()
    (path / "classes.tsv").write_text("a\tant\n")
    (path / "loose.png").write_bytes(png(7))
    return path


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        for each in sorted(folder.rglob("*.*"), reverse=True):
            if each.is_file():
                file.write(each, each.relative_to(folder.parent))
        file.writestr("__MACOSX/train/a/1.png", b"x")
        file.writestr("train/../1.png", b"x")
        file.writestr("train//1.png", b"x")
    return path


def test_folder_and_zip_are_read_alike(folder: Path, archive: Path) -> None:
    for path in (folder, archive / "train"):
        with LabelledImages(path) as images:
            assert images.classes == ("a", "a b", "c9", "c10")
            assert images.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
            assert images.names[:3] == ("a/1.png", "a/2.png", "a/10.png")
            assert [int(each[0, 0, 0]) for each in images] == [1, 2, 10, 20, 21, 40, 41, 30]


def test_a_limit_is_spread_over_the_classes(folder: Path) -> None:
    with LabelledImages(folder, limit=4) as images:
        assert images.classes == ("a", "a b", "c9", "c10")
        assert images.names == ("a/1.png", "a/10.png", "a b/21.png", "c9/41.png")
    with LabelledImages(folder, limit=100) as images:
        assert len(images) == 8
    with pytest.raises(InputError, match="at least 1"):
        LabelledImages(folder, limit=0)


def test_what_has_no_classes_is_refused(folder: Path, archive: Path) -> None:
    (folder / "loose.png").unlink()
    for path in (folder.parent, folder.parents[1]):  # too high
        with pytest.raises(InputError) as caught:
            LabelledImages(path)
        assert caught.value.reason == "images_missing"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("set/train/a/1.png", png(1))
    for path in (archive, folder.parent):
        with pytest.raises(InputError, match="try one of"):
            LabelledImages(path)
    with pytest.raises(InputError, match="one folder of images a class"):
        LabelledImages(folder / "a")
    with pytest.raises(InputError, match="does not exist"):
        LabelledImages(folder / "none")


def test_an_empty_class_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (folder / "nothing").mkdir()
    path = tmp_path / "empty.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/1.png", png(1))
        file.writestr("nothing/read.me", "x")
    for each in (folder, path):
        with pytest.raises(InputError, match="nothing") as caught:
            LabelledImages(each)
        assert caught.value.reason == "empty_class"


def test_damaged_and_oversized_images_are_refused_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/bomb.png", png(1) + bytes(1 << 20))
        file.writestr("a/half.png", png(1)[:30])
        file.writestr("a/right.png", png(3))
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1 << 19)
    with LabelledImages(path) as images:
        assert images.names == ("a/bomb.png", "a/half.png", "a/right.png")
        for k, words in ((0, "at most"), (1, "half")):
            with pytest.raises(InputError, match=words):
                images.image(k)
        assert images.image(2)[0, 0, 0] == 3
