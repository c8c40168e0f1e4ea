# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from spike_perception.zero_shot.folding import fold, unit
from spike_perception.zero_shot.head import Head, HeadConfig
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.quantisation import quantise

from .example import ENCODER, rows, spike_counts

DATA = Path(os.environ.get("SPIKE_PERCEPTION_DATA", Path(__file__).parents[2] / "../shared/data"))


@pytest.mark.parametrize("classes", [1, 2, 50])
def test_rows_are_kept_within_one_step(classes):
    w = rows(classes, 32)
    quantised = quantise(w)
    assert quantised.values.dtype == np.int8
    assert np.abs(quantised.values.astype(int)).max() <= 127
    assert np.abs(quantised.rows() - w).max() <= quantised.scale


def test_identical_rows_quantise():
    w = np.repeat(rows(1, 16), 3, axis=0)
    np.testing.assert_allclose(quantise(w).rows(), w, atol=quantise(w).scale)


def test_the_common_part_leaves_more_bits_for_the_differences():
    w = rows(40, 128)
    assert quantise(w).scale < 0.8 * np.abs(w).max() / 127


def agreement(w: np.ndarray, counts: np.ndarray) -> float:
    pack = VocabularyPack.build([f"n{k}" for k in range(len(w))], w, ENCODER)
    plain, small = Head(pack), Head(pack, HeadConfig(arithmetic="int8"))
    return float((plain.nearest(counts) == small.nearest(counts)).mean())


@pytest.mark.parametrize(("classes", "width"), [(10, 256), (200, 384)])
def test_int8_agrees_with_float_on_made_up_spike_counts(classes, width):
    w = rows(classes, width)
    labels = np.random.default_rng(5).integers(classes, size=10_000)
    assert agreement(w, spike_counts(w, labels, noise=1.0, neurons=4)) >= 0.999


@pytest.mark.parametrize("classes", [10, 80, 1203])
@pytest.mark.parametrize(("centred", "noise"), [(False, 1.0), (True, 2.0)])
def test_int8_agrees_with_float_on_clip_texts(classes, centred, noise):
    """Rows of a real text tower; the head names at least 99 % of these counts correctly."""
    file = DATA / "clip_vitb32_text_lvis1203.npz"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    rng = np.random.default_rng(6)
    with np.load(file, allow_pickle=False) as data:
        texts = unit(data["features"][rng.permutation(1203)[:classes]])
    w = fold(list(texts), text_mean=texts.mean(axis=0) if centred else None).rows
    labels = rng.integers(classes, size=10_000)
    counts = spike_counts(w, labels, noise=noise, neurons=4)
    assert ((counts @ w.T).argmax(axis=1) == labels).mean() > 0.99
    assert agreement(w, counts) >= 0.999
