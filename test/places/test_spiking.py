# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.deploy.bundle import Bundle
from spike_perception.errors import InputError
from spike_perception.places.descriptors import create_descriptor
from spike_perception.places.descriptors.spiking import OFFSET, PROJECTION, Spiking

SMALL = {
    "height": 32, "width": 64, "first_stride": 2, "stem_channels": 8, "middle_channels": 12,
    "middle_convs": 1, "channels": 16, "heads": 2, "blocks": 1, "mlp_ratio": 1, "features": 8,
    "regions_rows": 2, "regions_columns": 4,
}  # fmt: skip


def place_bundle(dimension: int = 24) -> Bundle:
    torch = pytest.importorskip("torch")
    from spike_perception.students.registry import create_student, student_config_to_json

    torch.manual_seed(0)
    student = create_student("spikformer-s", **SMALL)
    for module in student.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None  # a plain average over the batches
    with torch.no_grad():
        student.train()(torch.randn(16, 3, 32, 64))
    rng = np.random.default_rng(0)
    weights = {name: each.numpy() for name, each in student.eval().state_dict().items()}
    weights[PROJECTION] = rng.standard_normal((dimension, 64)).astype(np.float32)
    weights[OFFSET] = rng.standard_normal(dimension).astype(np.float32)
    written = student_config_to_json(student)
    return Bundle(
        kind="place",
        student=written["student"],
        student_config=written["config"],
        preprocessing={
            "input_size": [32, 64], "channel_order": "gray", "mean": [0.0], "std": [1.0],
            "resize": "stretch", "interpolation": "area", "patch_norm": [5, 9, 21],
            "patch_norm_floor": 0.05,
        },
        timesteps=1,
        levels=4,
        embedding_dim=64,
        tensors=weights,
        provenance={"command": "", "data": [], "seeds": [0], "version": "0", "teacher": None},
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return place_bundle()


@pytest.fixture
def image() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)


def test_both_forms_are_of_the_same_projected_counts(bundle: Bundle, image: np.ndarray) -> None:
    real = Spiking("spiking", bundle, "float", cache=None)
    bits = Spiking("spiking_bits", bundle, "bits", cache=None)
    counts = real.runtime.infer(real.runtime.prepare_images([image]))[0]
    assert counts.any()
    z = bundle.tensors[PROJECTION] @ counts - bundle.tensors[OFFSET]
    vector = real.describe(image)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, z / np.linalg.norm(z), rtol=1e-5)
    assert (real.kind, bits.kind, real.dimension, bits.dimension) == ("float", "bits", 24, 24)
    np.testing.assert_array_equal(bits.describe(image), np.packbits(z > 0))
    assert real.weights_id == bits.weights_id == bundle.encoder_id
    for bad in (image[:0], image[..., 0], image.astype(np.float32)):
        with pytest.raises(InputError) as error:
            real.describe(bad)
        assert error.value.reason == "invalid_image"


def test_a_file_can_be_named(bundle: Bundle, image: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    bundle.save(path)
    vector = create_descriptor(f"spiking:{path}").describe(image)
    np.testing.assert_array_equal(
        create_descriptor(f"spiking_bits:{path}").describe(image), np.packbits(vector > 0)
    )
    with pytest.raises(InputError) as error:
        create_descriptor(f"patch_norm:{path}")
    assert error.value.reason == "unknown_descriptor"


def test_the_projection_decides_who_made_a_map(bundle: Bundle) -> None:
    other = {**bundle.tensors, OFFSET: bundle.tensors[OFFSET] + 1}
    assert replace(bundle, tensors=other).weights_id != bundle.weights_id


@pytest.mark.parametrize(
    "change",
    [
        {PROJECTION: None},
        {PROJECTION: np.zeros((24, 63), np.float32)},
        {PROJECTION: np.zeros((24, 64), np.float64)},
        {OFFSET: np.zeros(16, np.float32)},
        {OFFSET: np.zeros((24, 1), np.float32)},
        {PROJECTION: np.zeros((23, 64), np.float32), OFFSET: np.zeros(23, np.float32)},
    ],
)
def test_projections_that_do_not_fit_are_refused(bundle: Bundle, change: dict) -> None:
    tensors = {
        name: each for name, each in {**bundle.tensors, **change}.items() if each is not None
    }
    with pytest.raises(InputError) as error:
        Spiking("spiking", replace(bundle, tensors=tensors), "float", cache=None)
    assert error.value.reason == "bad_metadata"


def test_other_kinds_of_bundles_are_refused(bundle: Bundle) -> None:
    with pytest.raises(InputError) as error:
        Spiking("spiking", replace(bundle, kind="image"), "float", cache=None)
    assert error.value.reason == "wrong_kind"
