# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.errors import InputError
from spike_perception.zero_shot.folding import fold, is_unit, rows_from_classifier, unit
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack

ENCODER = "e" * 64
RNG = np.random.default_rng


def two_tower(prompts, features, projection=None, feature_mean=None, text_mean=None):
    """Cosine of every feature with every class, computed the long way round."""
    scores = np.empty((len(features), len(prompts)))
    for j, each in enumerate(prompts):
        text = np.mean([e / np.linalg.norm(e) for e in np.atleast_2d(each)], axis=0)
        if text_mean is not None:
            text = text - text_mean
        if projection is not None:
            text = projection @ text
        for i, f in enumerate(features):
            f = f if feature_mean is None else f - feature_mean
            scores[i, j] = text @ f / np.linalg.norm(text) / np.linalg.norm(f)
    return scores


def head_of(folded) -> Head:
    return Head(VocabularyPack.of([f"n{k}" for k in range(len(folded.rows))], folded, ENCODER))


def test_argmax_equals_the_two_tower_cosine_on_10000_random_pairs():
    rng = RNG(0)
    differing = 0
    for _ in range(10):
        prompts = [rng.standard_normal((rng.integers(1, 4), 40)) for _ in range(100)]
        projection = rng.standard_normal((24, 40))
        features = rng.integers(0, 5, (1000, 24))
        head = head_of(fold(prompts, projection=projection))
        texts = unit(np.stack([unit(p).mean(axis=0) for p in prompts]) @ projection.T)
        expected = np.argmax(unit(features) @ texts.T, axis=1)
        differing += int((head.nearest(features) != expected).sum())
    assert differing == 0


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    centred=st.booleans(),
    projected=st.booleans(),
    text_centred=st.booleans(),
)
def test_cosines_equal_the_two_towers(seed, centred, projected, text_centred):
    rng = RNG(seed)
    prompts = [rng.standard_normal((rng.integers(1, 4), 7)) for _ in range(5)]
    projection = rng.standard_normal((9, 7)) if projected else None
    width = 9 if projected else 7
    mean = rng.uniform(0, 3, width).astype(np.float32) if centred else None
    text_mean = 0.1 * rng.standard_normal(7) if text_centred else None
    features = rng.integers(0, 17, (6, width)) + np.eye(6, width, dtype=int)
    head = head_of(fold(prompts, projection=projection, feature_mean=mean, text_mean=text_mean))
    expected = two_tower(prompts, features, projection, mean, text_mean)
    np.testing.assert_allclose(head.cosines(features), expected, atol=2e-5)


def test_one_embedding_a_class_needs_no_ensemble():
    e = RNG(1).standard_normal((4, 6))
    np.testing.assert_allclose(fold(list(e)).rows, unit(e), atol=1e-6)
    np.testing.assert_allclose(fold([x[None] for x in e]).rows, unit(e), atol=1e-6)


def test_templates_count_alike_whatever_their_norm():
    a, b = np.eye(2)
    np.testing.assert_allclose(fold([[100 * a, b]]).rows, [[0.70710678] * 2], atol=1e-6)
    weighted = fold([[a, b]], template_weights=[3, 1]).rows
    np.testing.assert_allclose(weighted, unit([[3.0, 1.0]]), atol=1e-6)


def test_mean_centring_is_a_bias():
    mean = np.array([1.0, 2.0, 3.0])
    folded = fold(list(np.eye(3)), feature_mean=mean)
    np.testing.assert_allclose(folded.bias, [-1, -2, -3])
    np.testing.assert_allclose(folded.feature_mean, mean)
    assert (fold(list(np.eye(3))).bias == 0).all()


def test_the_layout_of_open_clip_is_converted_and_never_mistaken():
    # build_zero_shot_classifier gives [C, K], one unit column a class; here K equals C, so the
    # shape says nothing and a transposed matrix would be silently wrong.
    texts = unit(RNG(2).standard_normal((12, 12)))
    classifier = texts.T
    np.testing.assert_allclose(rows_from_classifier(classifier, 12), texts, atol=1e-6)
    names = [f"n{k}" for k in range(12)]
    with pytest.raises(InputError, match="open_clip"):
        VocabularyPack.build(names, classifier, ENCODER)
    with pytest.raises(InputError, match="unit columns"):
        rows_from_classifier(texts, 12)
    with pytest.raises(InputError, match=r"\[C, 3\]"):
        rows_from_classifier(unit(RNG(2).standard_normal((3, 8))), 3)


def test_a_projection_that_is_applied_from_the_right_is_told():
    with pytest.raises(InputError, match="transpose"):
        fold(list(np.eye(4)), projection=np.ones((4, 6)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"text_embeddings": []},
        {"text_embeddings": [np.zeros(3)]},
        {"text_embeddings": [[np.nan, 1, 0]]},
        {"text_embeddings": [np.ones(3), np.ones(4)]},
        {"text_embeddings": [np.ones((0, 3))]},
        {"text_embeddings": [np.ones((1, 1, 3))]},
        {"text_embeddings": [np.ones(3)], "feature_mean": np.ones(4)},
        {"text_embeddings": [np.ones(3)], "feature_mean": [1, 2, np.inf]},
        {"text_embeddings": [np.ones(3)], "text_mean": np.ones((1, 3))},
        {"text_embeddings": [np.ones((2, 3))], "template_weights": [1]},
        {"text_embeddings": [np.ones((2, 3))], "template_weights": [0, 0]},
        {"text_embeddings": [np.ones((2, 3))], "template_weights": [2, -1]},
    ],
)
def test_embeddings_that_cannot_be_folded(arguments):
    with pytest.raises(InputError) as caught:
        fold(**arguments)
    assert caught.value.reason == "bad_embeddings"


def test_is_unit():
    assert is_unit(np.eye(3))
    assert not is_unit(2 * np.eye(3))
    assert not is_unit(np.array([[np.nan, 1.0]]))
