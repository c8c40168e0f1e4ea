# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.data.idx import idx_files, open_idx

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 2, 1, 2, 0, 1], np.uint8)


def written(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(written(PIXELS))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(written(LABELS))
    for name, array in (("images-idx3", PIXELS[:2]), ("labels-idx1", LABELS[:2])):
        (tmp_path / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(written(array)))
    return tmp_path


def test_images_are_grey_as_rgb_and_labels_have_words(folder):
    images = open_idx(folder / "train", ["bag", "coat", "shirt"])
    assert len(images) == 6 and images.classes == ("bag", "coat", "shirt")
    assert images.labels.tolist() == LABELS.tolist()
    assert images.image(3).shape == (5, 4, 3)
    assert (images.image(3) == PIXELS[3][:, :, None]).all()


def test_packed_files_and_the_name_test(folder):
    images = open_idx(folder / "test")
    assert len(images) == 2 and images.classes == ("0", "1", "2")
    assert (images.image(1)[..., 0] == PIXELS[1]).all()
    assert idx_files(folder / "val") is None


def test_a_subset_is_another_set(folder):
    images = open_idx(folder / "train")
    part = images.subset(np.array([1, 3]))
    assert part.labels.tolist() == [2, 2] and part.names == ("1", "3")
    assert (part.image(1)[..., 0] == PIXELS[3]).all()
    assert part.id != images.id == open_idx(folder / "train").id


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("images", b"\0\0\x08\x03short"),
        ("images", written(PIXELS)[:-1]),
        ("images", written(PIXELS) + b"\0"),
        ("images", written(PIXELS.astype(np.uint8).reshape(6, 20))),
        ("images", bytes((0, 0, 8, 3)) + np.array([2**31, 4, 4], ">u4").tobytes()),
        ("images", bytes((0, 0, 8, 3)) + np.array([2**31, 0, 4], ">u4").tobytes()),
        ("labels", written(LABELS[:3])),
        ("labels", written(LABELS.astype(np.uint8) + 9)),
    ],
)
def test_files_that_are_something_else_are_refused(folder, name, content):
    axes = {"images": 3, "labels": 1}[name]
    (folder / f"train-{name}-idx{axes}-ubyte").write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_idx(folder / "train", ["bag", "coat", "shirt"])
    assert caught.value.reason == "images_unreadable"


def test_a_broken_packed_file_and_a_missing_one(folder):
    packed = folder / "t10k-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:-12])
    with pytest.raises(InputError, match="t10k-images"):
        open_idx(folder / "test")
    with pytest.raises(InputError) as caught:
        open_idx(folder / "val")
    assert caught.value.reason == "images_missing"
