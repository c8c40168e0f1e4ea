# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile

import cv2
import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.data.images import open_images
from spike_perception.training.data.pixels import degraded, load_pixels, resized
from spike_perception.training.data.tables import read_captions, read_class_words


def png(value, size=(6, 8)):
    return cv2.imencode(".png", np.full((*size, 3), value, np.uint8))[1].tobytes()


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def packed(path, files):
    with zipfile.ZipFile(path, "w") as bundle:
        for name, data in files.items():
            bundle.writestr(name, data)
    return path


FILES = {
    "train/dog/2.png": png(2),
    "train/dog/10.png": png(10),
    "train/cat/1.png": png(1),
    "train/cat/notes.txt": b"no image",
    "train/.hidden/1.png": png(7),
    "test/cat/9.png": png(9),
}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_sub_folder_a_class_makes_a_labelled_set(tmp_path, kind):
    where = write(tmp_path, FILES) if kind == "folder" else packed(tmp_path / "a.zip", FILES)
    for images in (open_images(where, "train"), open_images(where / "train")):
        assert images.classes == ("cat", "dog")
        assert images.names == ("cat/1.png", "dog/2.png", "dog/10.png")
        assert images.labels.tolist() == [0, 1, 1]
        assert images.labels.dtype == np.int64
        assert [int(images.image(i)[0, 0, 0]) for i in range(len(images))] == [1, 2, 10]
    assert open_images(where, "test").classes == ("cat",)


def test_a_set_without_its_split_says_what_there_is(tmp_path):
    with pytest.raises(InputError, match=r"try .*test, .*train") as caught:
        open_images(packed(tmp_path / "a.zip", FILES))
    assert caught.value.reason == "images_missing"


def test_flat_images_and_a_folder_named_images_are_unlabelled(tmp_path):
    flat = open_images(write(tmp_path / "a", {"x.png": png(1), "y.png": png(2)}))
    assert (flat.classes, flat.labels.tolist()) == ((), [-1, -1])
    inner = packed(tmp_path / "b.zip", {"images/x.png": png(1), "captions.csv": b"image,caption\n"})
    assert (open_images(inner).classes, open_images(inner).stems()) == ((), ("x",))
    nested = write(tmp_path / "c", {"n01/images/x.png": png(1), "n02/images/y.png": png(2)})
    assert open_images(nested).classes == ("n01", "n02")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_corrupt_image_is_counted_and_skipped_by_its_name(tmp_path, kind):
    files = {**FILES, "train/dog/3.png": png(3)[:40], "train/dog/4.jpg": b"\xff\xd8\xffnot"}
    where = write(tmp_path, files) if kind == "folder" else packed(tmp_path / "a.zip", files)
    images = open_images(where, "train")
    cache = load_pixels(images, progress=False)
    assert set(cache.skipped) == set(images.skipped) == {"dog/3.png", "dog/4.jpg"}
    assert len(cache) == 3
    assert cache.labels.tolist() == [0, 1, 1]
    assert [images.names[i] for i in cache.indices] == ["cat/1.png", "dog/2.png", "dog/10.png"]
    assert cache.pixels[:, 0, 0, 0].tolist() == [1, 2, 10]
    with pytest.raises(InputError, match=r"dog/3\.png") as caught:
        images.image(2)
    assert caught.value.reason == "corrupt_image"


def test_a_damaged_member_of_a_zip_file_is_skipped_too(tmp_path):
    path = packed(tmp_path / "a.zip", {"a.png": png(1), "b.png": png(2)})
    data = bytearray(path.read_bytes())
    data[data.index(b"IEND")] ^= 1  # the first member's CRC no longer fits
    path.write_bytes(data)
    assert list(load_pixels(open_images(path), progress=False).skipped) == ["a.png"]


def test_nothing_but_corrupt_images_is_refused(tmp_path):
    images = open_images(write(tmp_path, {"a.png": b"x"}))
    with pytest.raises(InputError, match="none of the 1 images"):
        load_pixels(images, progress=False)


def test_the_identity_follows_the_content(tmp_path):
    first = packed(tmp_path / "a.zip", FILES)
    same = packed(tmp_path / "b.zip", FILES)
    other = packed(tmp_path / "c.zip", {**FILES, "train/cat/1.png": png(3)})
    ids = [open_images(path, "train").id for path in (first, same, other)]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 64
    assert open_images(first, "train", limit=2).id != ids[0]


def test_a_limit_is_spread_over_the_set_and_keeps_the_classes(tmp_path):
    files = {f"{c}/{i}.png": png(i) for c in "ab" for i in range(50)}
    images = open_images(packed(tmp_path / "a.zip", files), limit=10)
    assert len(images) == 10
    assert np.bincount(images.labels).tolist() == [5, 5]
    assert open_images(tmp_path / "a.zip", limit=1000).classes == ("a", "b")


@pytest.mark.parametrize("name", ["missing", "missing.zip/train"])
def test_what_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(InputError) as caught:
        open_images(tmp_path / name)
    assert caught.value.reason == "images_missing"


def test_a_broken_zip_file_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    with pytest.raises(InputError) as caught:
        open_images(tmp_path / "a.zip")
    assert caught.value.reason == "images_unreadable"


def test_pixels_take_one_size(tmp_path):
    files = {"a.png": png(1, (10, 20)), "b.png": png(2, (20, 10))}
    images = open_images(write(tmp_path, files))
    with pytest.raises(InputError, match="give one size") as caught:
        load_pixels(images, progress=False)
    assert caught.value.reason == "mixed_sizes"
    assert load_pixels(images, (4, 6), progress=False).pixels.shape == (2, 4, 6, 3)
    assert load_pixels(images, 5, progress=False).pixels.shape == (2, 5, 5, 3)


def test_resizing_keeps_the_centre_or_stretches():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 200
    assert (resized(image, (2, 2)) == 200).all()
    assert resized(image, (2, 2), stretch=True).mean() == 100
    assert degraded(image, 2).shape == (2, 4, 3)
    assert degraded(image, 4) is image


def test_captions_by_stem(tmp_path):
    text = 'image,caption\na.jpg,"A dog, running."\na.jpg,Two\nb.jpg,\nc.jpg, Car \n'
    path = packed(tmp_path / "a.zip", {"captions.csv": text.encode(), "images/a.webp": b""})
    expected = {"a": ("A dog, running.", "Two"), "c": ("Car",)}
    assert read_captions(path) == expected
    (tmp_path / "captions.csv").write_text(text)
    assert read_captions(tmp_path / "captions.csv") == read_captions(tmp_path) == expected


@pytest.mark.parametrize("text", [b"x,y\n1,2\n", b"image,caption\n", b"\xff\xfe\x00", b""])
def test_tables_without_captions_are_refused(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(InputError) as caught:
        read_captions(tmp_path / "t.csv")
    assert caught.value.reason == "bad_captions"


def test_words_of_class_folders(tmp_path):
    (tmp_path / "classes.tsv").write_text("n01\tgoldfish, Carassius auratus\n\nn02\tfrog\n")
    assert read_class_words(tmp_path)["n01"] == ("goldfish", "Carassius auratus")
    (tmp_path / "bad.tsv").write_text("no tab\n")
    with pytest.raises(InputError, match="line 1"):
        read_class_words(tmp_path / "bad.tsv")


def test_the_data_sets_own_layouts(data):
    tiny = open_images(data / "tiny_imagenet.zip", "val", limit=20)
    assert len(tiny.classes) == 200
    assert set(tiny.classes) <= set(read_class_words(data / "tiny_imagenet.zip"))
    assert tiny.image(0).shape == (64, 64, 3)
    photos = open_images(data / "flickr8k_128px.zip")
    captions = read_captions(data / "flickr8k_128px.zip")
    assert len(photos) == 8091
    assert photos.classes == ()
    assert set(photos.stems()) <= set(captions)
