# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.data.images import open_images
from spike_perception.training.teachers.features import cached_features
from spike_perception.training.teachers.store import stored
from spike_perception.training.teachers.teacher import ImageFeatures


class Mean:
    """A teacher that says the mean colour, and counts how often it is asked."""

    def __init__(self, identity="a", fail_after=None):
        self.id = identity
        self.seen = 0
        self.fail_after = fail_after

    def encode_images(self, images):
        if self.fail_after is not None and self.seen + len(images) > self.fail_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        means = np.stack([each.mean((0, 1)) for each in images]).astype(np.float32)
        tokens = np.stack([each[:4:2, :4:2] for each in images]).astype(np.float32)
        return ImageFeatures(means / np.linalg.norm(means, axis=1, keepdims=True), tokens)


@pytest.fixture
def images(photos):
    return open_images(photos / "images")


def test_features_come_from_the_disk_the_second_time(images, tmp_path):
    teacher = Mean()
    first = cached_features(teacher, images, tmp_path, None, False)
    asked = teacher.seen
    second = cached_features(teacher, images, tmp_path, None, False)
    assert teacher.seen == asked == len(images)
    assert first.features.dtype == first.tokens.dtype == np.float16
    assert isinstance(second.features, np.memmap)
    assert second.tokens.shape == (24, 2, 2, 3)
    np.testing.assert_array_equal(first.features, second.features)
    expected = teacher.encode_images([images.image(7)])
    np.testing.assert_allclose(second.features[7], expected.features[0], atol=1e-3)
    np.testing.assert_allclose(second.tokens[7], expected.tokens[0], atol=0.2)


def test_tokens_are_coordinates_in_their_principal_components(images, tmp_path):
    plain = cached_features(Mean(), images, tmp_path, None, False)
    found = cached_features(Mean(), images, tmp_path, 2, False)
    basis = found.basis
    tokens = plain.tokens.astype(np.float32)
    flat = tokens.reshape(-1, 3).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    axes = vectors[:, ::-1][:, :2].T
    np.testing.assert_allclose(np.abs(axes @ basis.axes.numpy().T), np.eye(2), atol=1e-3)
    assert basis.explained == pytest.approx(values[1:].sum() / values.sum(), abs=1e-3)
    expected = (tokens - basis.mean.numpy()) @ basis.axes.numpy().T
    np.testing.assert_allclose(found.tokens, expected, atol=0.2)
    again = cached_features(Mean(), images, tmp_path, 2, False)
    np.testing.assert_array_equal(again.basis.axes, basis.axes)


def test_a_basis_of_other_data_can_be_used(images, tmp_path):
    basis = cached_features(Mean(), images, tmp_path, 2, False).basis
    some = images.subset(np.arange(5))
    found = cached_features(Mean(), some, tmp_path, 2, False, basis=basis)
    assert found.basis is basis
    with pytest.raises(InputError):
        cached_features(Mean(), some, tmp_path, 3, False, basis=basis)


def test_another_teacher_or_set_has_its_own_features(images, tmp_path):
    one = cached_features(Mean("a"), images, tmp_path, None, False)
    other = Mean("b")
    cached_features(other, images, tmp_path, None, False)
    cached_features(other, images.subset(np.arange(5)), tmp_path, None, False)
    assert other.seen == 24 + 5
    assert one.features.shape[0] == 24


def test_a_killed_run_goes_on_after_its_last_shard(images, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        cached_features(Mean(fail_after=18), images, tmp_path, None, False, shard=5)
    assert not list(tmp_path.glob("features-*/manifest.json"))
    teacher = Mean()
    found = cached_features(teacher, images, tmp_path, None, False, shard=5)
    assert teacher.seen == 24 - 15
    whole = cached_features(Mean(), images, tmp_path / "other", None, False)
    np.testing.assert_array_equal(found.features, whole.features)
    np.testing.assert_array_equal(found.tokens, whole.tokens)


def test_a_damaged_start_is_begun_again(images, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        cached_features(Mean(fail_after=12), images, tmp_path, None, False, shard=5)
    (partial,) = tmp_path.glob("*.partial")
    (partial / "features.npy").write_bytes(b"damaged")
    teacher = Mean()
    cached_features(teacher, images, tmp_path, None, False, shard=5)
    assert teacher.seen == 24


def test_corrupt_images_have_zero_rows_and_a_reason(tmp_path, photos):
    folder = tmp_path / "set"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.png").write_bytes((photos / "images" / f"p{index}.png").read_bytes())
    (folder / "1.png").write_bytes(b"damaged")
    images = open_images(folder)
    for _ in range(2):  # computed, then from the disk
        found = cached_features(Mean(), images, tmp_path / "cache", None, False)
        assert list(found.skipped) == ["1.png"]
        assert found.indices.tolist() == [0, 2, 3]
        assert not found.features[1].any()
        assert found.features[2].any()


@pytest.mark.parametrize("damage", ["array", "manifest", "names"])
def test_damaged_features_are_refused(images, tmp_path, damage):
    cached_features(Mean(), images, tmp_path, None, False)
    (manifest,) = tmp_path.glob("*/manifest.json")
    if damage == "array":
        (manifest.parent / "tokens.npy").write_bytes(b"damaged")
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        document = json.loads(manifest.read_text())
        document["arrays"]["../tokens"] = document["arrays"].pop("tokens")
        manifest.write_text(json.dumps(document))
    with pytest.raises(InputError) as caught:
        cached_features(Mean(), images, tmp_path, None, False)
    assert caught.value.reason == "bad_cache"


def test_arrays_larger_than_the_disk_are_refused(images, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError) as caught:
        stored(tmp_path / "x", images, lambda batch: {"a": np.zeros((len(batch), 9), np.float32)},
               progress=False)  # fmt: skip
    assert caught.value.reason == "no_space"
