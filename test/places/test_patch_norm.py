# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.places.config import SequenceConfig
from spike_perception.places.descriptors import create_descriptor, descriptor_names
from spike_perception.places.sequence import match_sequences


@pytest.fixture
def image() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)


#: The others have weights: test_spiking.py.
NAMES = ("patch_norm", "patch_norm_bits")


@pytest.mark.parametrize("name", NAMES)
def test_keeps_the_contract(name: str, image: np.ndarray) -> None:
    descriptor = create_descriptor(name)
    vector = descriptor.describe(image)
    assert descriptor.name == name
    assert len(descriptor.weights_id) == 64
    if descriptor.kind == "float":
        assert vector.dtype == np.float32
        assert vector.shape == (descriptor.dimension,)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    else:
        assert vector.dtype == np.uint8
        assert vector.shape == (descriptor.dimension // 8,)
    np.testing.assert_array_equal(vector, create_descriptor(name).describe(image.copy()))
    for bad in (image[:0], image[..., 0], image.astype(np.float32), image[..., :2]):
        with pytest.raises(InputError) as error:
            descriptor.describe(bad)
        assert error.value.reason == "invalid_image"


def test_names_and_weights_differ() -> None:
    assert set(NAMES) < set(descriptor_names())
    made = [create_descriptor(name) for name in NAMES]
    assert len({d.weights_id for d in made}) == len(made)
    with pytest.raises(InputError) as error:
        create_descriptor("telepathy")
    assert error.value.reason == "unknown_descriptor"


def test_light_and_size_change_little_and_the_scene_much(image: np.ndarray) -> None:
    describe = create_descriptor("patch_norm").describe
    ramp = np.linspace(0.4, 0.8, image.shape[1])[None, :, None]
    darker = (image * ramp + 15).astype(np.uint8)
    smaller = cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)
    assert describe(image) @ describe(darker) > 0.9
    assert describe(image) @ describe(smaller) > 0.98
    assert abs(describe(image) @ describe(np.ascontiguousarray(image[::-1]))) < 0.3


def test_a_blank_picture_resembles_nothing() -> None:
    describe = create_descriptor("patch_norm").describe
    noise = np.random.default_rng(0).integers(8, 12, (480, 640, 3), dtype=np.uint8)
    for blank in (np.zeros((480, 640, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8), noise):
        assert not describe(blank).any()


@pytest.mark.slow
def test_nordland_summer_and_winter(data: Path) -> None:
    """The floor that the baseline must keep; frame k of one season is frame k of the other."""
    described = {}
    descriptor = create_descriptor("patch_norm")
    with zipfile.ZipFile(data / "nordland_64x32.zip") as archive:
        for season in ("summer", "winter"):
            names = sorted(n for n in archive.namelist() if n.startswith(f"{season}/"))
            pictures = (
                cv2.imdecode(np.frombuffer(archive.read(n), np.uint8), cv2.IMREAD_COLOR)
                for n in names
                if n.endswith(".png")
            )
            described[season] = np.stack([descriptor.describe(p) for p in pictures])
    scores = described["winter"] @ described["summer"].T
    truth = np.arange(len(scores))
    assert len(truth) == 2400
    assert (np.abs(scores.argmax(1) - truth) <= 1).mean() >= 0.45
    matched = match_sequences(scores, SequenceConfig(length=21))
    assert (np.abs(matched.argmax(1) - truth) <= 1).mean() >= 0.90
