# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.zero_shot.few_shot import text_share, with_examples
from spike_perception.zero_shot.folding import unit
from spike_perception.zero_shot.head import Head

from .example import pack, rows, spike_counts


def test_the_share_of_the_word_falls_from_one_towards_its_floor():
    shares = [text_share(n) for n in range(200)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert 0.3 < shares[-1] < 0.32
    assert text_share(4) == pytest.approx(0.65)


def test_the_row_by_hand():
    p = pack(2, 4, feature_mean=np.array([1, 0, 0, 0], np.float32))
    examples = np.array([[4, 4, 0, 0], [1, 0, 5, 0]])
    seen = unit(unit([[3, 4, 0, 0], [0, 0, 5, 0]]).mean(axis=0))
    got = with_examples(p, "word 1", examples, share=0.25)
    expected = unit(0.25 * p.rows[1] + 0.75 * seen)
    np.testing.assert_allclose(got.rows[1], expected, atol=1e-6)
    np.testing.assert_array_equal(got.rows[0], p.rows[0])
    alone = with_examples(p, "new", examples)
    np.testing.assert_allclose(alone.rows[2], seen, atol=1e-6)
    text = np.array([0, 0, 0, 2.0])
    mixed = with_examples(p, "new", examples, text_row=text)
    g = text_share(2)
    np.testing.assert_allclose(mixed.rows[2], unit(g * unit(text) + (1 - g) * seen), atol=1e-6)


def test_examples_help_where_words_are_off():
    w = rows(8, 64)
    truth = unit(w + 0.15 * np.random.default_rng(3).standard_normal(w.shape)).astype(np.float32)
    p = pack(8, 64)
    labels = np.random.default_rng(4).integers(8, size=800)
    counts = spike_counts(truth, labels, noise=4.0)
    before = (Head(p).nearest(counts) == labels).mean()
    learnt = p
    for k in range(8):
        examples = spike_counts(truth, np.full(8, k), noise=4.0, seed=50 + k)
        learnt = with_examples(learnt, f"word {k}", examples)
    after = (Head(learnt).nearest(counts) == labels).mean()
    assert after > before + 0.03


@pytest.mark.parametrize("counts", [np.zeros((0, 64)), np.ones(64), np.ones((2, 63))])
def test_examples_of_another_shape(counts):
    with pytest.raises(InputError) as caught:
        with_examples(pack(), "new", counts)
    assert caught.value.reason == "bad_feature"


def test_a_silent_example_teaches_nothing():
    with pytest.raises(InputError, match="no direction"):
        with_examples(pack(), "new", np.zeros((1, 64)))
