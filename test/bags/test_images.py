# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.bags import folder_files as module
from spike_perception.bags.folder_files import natural_key
from spike_perception.bags.images import ImageSequence
from spike_perception.errors import InputError


def png(value: int) -> bytes:
    return cv2.imencode(".png", np.full((4, 6, 3), value, np.uint8))[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "set"
    (path / "summer").mkdir(parents=True)
    for value in (1, 2, 10):
        (path / "summer" / f"frame{value}.png").write_bytes(png(value))
    (path / "summer" / "labels.csv").write_text("x")
    (path / "summer" / ".hidden.png").write_bytes(b"x")
    return path


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        for each in sorted(folder.rglob("*.*")):
            file.write(each, each.relative_to(folder))
    return path


def first_pixels(path: Path) -> list[int]:
    with ImageSequence(path) as images:
        assert len(images) == 3
        return [int(image[0, 0, 0]) for image in images]


def test_natural_order() -> None:
    names = ["b1", "a10", "a9", "a09", "A2", "1", "10a"]
    assert sorted(names, key=natural_key) == ["1", "10a", "A2", "a09", "a9", "a10", "b1"]


def test_folder_and_zip_give_the_same_images(folder: Path, archive: Path) -> None:
    assert first_pixels(folder / "summer") == [1, 2, 10]
    assert first_pixels(archive / "summer") == [1, 2, 10]


def test_images_at_the_root_of_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "flat.zip"
    with zipfile.ZipFile(path, "w") as file:
        for value in (1, 2, 10):
            file.writestr(f"{value}.png", png(value))
    assert first_pixels(path) == [1, 2, 10]


@pytest.mark.parametrize("inner", ["", "winter", "summer/frame1.png"])
def test_nothing_there(folder: Path, archive: Path, inner: str) -> None:
    for path in (folder / inner, archive / inner):
        with pytest.raises(InputError) as caught:
            ImageSequence(path)
        assert caught.value.reason in ("images_missing", "images_unreadable")
        if not inner:
            assert f"{path}/summer" in str(caught.value)


def test_a_corrupt_image_is_named(folder: Path) -> None:
    (folder / "summer" / "frame2.png").write_bytes(png(2)[:30])
    images = ImageSequence(folder / "summer")
    with pytest.raises(InputError, match=r"frame2\.png") as caught:
        list(images)
    assert caught.value.reason == "truncated_data"


def test_a_damaged_zip(archive: Path, tmp_path: Path) -> None:
    data = bytearray(archive.read_bytes())
    (tmp_path / "half.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"half\.zip"):
        ImageSequence(tmp_path / "half.zip")
    at = data.index(b"IDAT")
    data[at : at + 4] = b"XXXX"
    (tmp_path / "flipped.zip").write_bytes(data)
    with ImageSequence(tmp_path / "flipped.zip/summer") as images:
        with pytest.raises(InputError, match="cannot be read") as caught:
            list(images)
        assert caught.value.reason == "images_unreadable"


def test_a_zip_bomb_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.png", png(1) + bytes(1 << 20))
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1 << 19)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("was unpacked"))
    with ImageSequence(path) as images, pytest.raises(InputError, match="at most"):
        images.image(0)


def test_an_entry_that_states_too_small_a_size_is_never_unpacked_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.png", bytes(64 << 20))
    with zipfile.ZipFile(tmp_path / "bomb.zip") as file:
        entry = file.getinfo("bomb.png")
        entry.file_size = 1000
        tracemalloc.start()
        with pytest.raises(zipfile.BadZipFile, match="CRC"):
            module.read_entry(file, entry)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_without_bounds_is_refused(method: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
        file.writestr("1.png", png(1))
    with (
        ImageSequence(tmp_path / "a.zip") as images,
        pytest.raises(InputError, match="deflate") as caught,
    ):
        images.image(0)
    assert caught.value.reason == "images_unreadable"
