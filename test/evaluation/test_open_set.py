# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from spike_perception.evaluation.classification import judge
from spike_perception.evaluation.open_set import SplitScores, draw_splits
from spike_perception.zero_shot.folding import unit
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import auroc, false_positive_rate


def test_every_class_is_held_out_about_as_often() -> None:
    classes = [3, 5, 7, 9, 11]
    splits = draw_splits(classes, 2, 5, seed=0)
    assert all(len(set(split)) == 2 and set(split) <= set(classes) for split in splits)
    assert Counter(k for split in splits for k in split) == dict.fromkeys(classes, 2)
    assert splits == draw_splits(classes, 2, 5, seed=0)
    assert len({draw_splits(classes, 2, 5, seed=k) for k in range(5)}) > 1


@pytest.fixture
def sample():
    rng = np.random.default_rng(2)
    rows = unit(rng.standard_normal((8, 24))).astype(np.float32)
    mean = rng.random(24).astype(np.float32)
    names = [f"word {k}" for k in range(6)]
    negatives = ("far", "farther")
    labels = np.repeat(np.arange(6), 10)
    features = np.abs(rows[labels] * 20 + rng.normal(0, 4, (60, 24))).astype(np.float32)
    pack = VocabularyPack.build(
        names, rows, "e" * 64, negatives=negatives, feature_mean=mean, temperature=0.1
    )
    return pack, features, labels


def test_holding_out_is_folding_without_the_class(sample) -> None:
    pack, features, labels = sample
    held = (1, 4)
    kept = [0, 2, 3, 5]
    scores = SplitScores(pack, [held])
    judge(Head(pack), features, labels, scores.add)
    found = scores.separations(labels)
    assert set(found) == {"max_softmax", "max_logit", "energy", "negative_labels"}
    less = Head(
        VocabularyPack.build(
            [pack.names[k] for k in kept],
            pack.rows[[*kept, 6, 7]],
            "e" * 64,
            negatives=pack.negatives,
            feature_mean=pack.feature_mean,
            temperature=pack.temperature,
        )
    )
    unknown = np.isin(labels, held)
    for method, separation in found.items():
        expected = less.known_scores(features, method)
        known, foreign = separation.splits[0]
        np.testing.assert_allclose(known, expected[~unknown], atol=1e-6)
        np.testing.assert_allclose(foreign, expected[unknown], atol=1e-6)
        summary = separation.summary()
        assert summary["auroc"] == pytest.approx(auroc(known, foreign))
        assert summary["fpr95"] == pytest.approx(false_positive_rate(known, foreign))


def test_means_and_spread_over_splits(sample) -> None:
    pack, features, labels = sample
    scores = SplitScores(
        pack.replace(negatives=(), rows=pack.rows[:6], **_short(pack)), [(0,), (3,)]
    )
    judge(Head(pack), features, labels, lambda cosines: scores.add(cosines[:, :6]))
    found = scores.separations(labels)
    assert "negative_labels" not in found
    summary = found["max_logit"].summary()
    assert summary["auroc"] == pytest.approx(np.mean(summary["auroc_splits"]))
    assert summary["auroc_std"] == pytest.approx(np.std(summary["auroc_splits"]))
    assert len(summary["fpr95_splits"]) == 2


def _short(pack: VocabularyPack) -> dict:
    from spike_perception.zero_shot.quantisation import quantise

    return {"bias": pack.bias[:6], "quantised": quantise(pack.rows[:6])}
