# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.evaluation import classification
from spike_perception.evaluation.classification import judge
from spike_perception.evaluation.metrics import (
    class_ranks,
    confusion,
    matches_from_scores,
    reliability,
    roc,
    top_k,
)
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import auroc


def test_top_k_by_hand() -> None:
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [0.0, 9.0, 1.0]])
    ranks = class_ranks(scores, np.array([0, 0, 1, 2]))
    assert ranks.tolist() == [0, 2, 1, 1]  # of equal scores the lower column comes first
    assert [top_k(ranks, k) for k in (1, 2, 3)] == [0.25, 0.75, 1.0]
    assert top_k(ranks[:0], 1) is None


def test_ranks_agree_with_those_of_retrieval() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (200, 7)).astype(np.float64)  # many ties
    labels = rng.integers(0, 7, 200)
    truth = np.arange(7) == labels[:, None]
    np.testing.assert_array_equal(
        class_ranks(scores, labels), matches_from_scores(scores, truth).rank
    )


def test_expected_calibration_error_by_hand() -> None:
    confidence = np.array([0.1, 0.3, 0.5, 0.6, 0.9, 1.0, 0.0])
    correct = np.array([False, True, False, True, True, True, False])
    found = reliability(confidence, correct, bins=2)
    # (0, 1/2] with 0: four answers, one right, mean confidence 0.9 / 4;
    # (1/2, 1]: three answers, all right, mean confidence 2.5 / 3.
    assert found.count.tolist() == [4, 3]
    np.testing.assert_allclose(found.confidence, [0.225, 2.5 / 3])
    np.testing.assert_allclose(found.accuracy, [0.25, 1.0])
    expected = (4 * 0.025 + 3 * (1 - 2.5 / 3)) / 7
    assert found.expected_calibration_error == pytest.approx(expected)
    assert reliability(confidence[:0], correct[:0]).expected_calibration_error is None
    perfect = reliability(np.ones(5), np.ones(5, bool))
    assert perfect.expected_calibration_error == 0.0


def test_confusion_by_hand() -> None:
    matrix = confusion(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 2]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]


def test_roc_by_hand_and_its_area() -> None:
    false, true = roc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    assert false.tolist() == [0, 0, 0.5, 1]
    assert true.tolist() == [0, 0.5, 1, 1]
    rng = np.random.default_rng(1)
    known, unknown = rng.integers(2, 9, 60) / 10, rng.integers(0, 7, 40) / 10
    false, true = roc(known, unknown)
    area = float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())
    assert area == pytest.approx(auroc(known, unknown))
    # One of four pairs is a tie, the other three are in order.
    assert auroc([0.9, 0.5], [0.5, 0.1]) == 0.875


def test_answers_ranks_and_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    pack = VocabularyPack.build(["a", "b", "c"], np.eye(3, 4), "e" * 64, temperature=0.5)
    features = np.array([[9, 1, 0, 0], [0, 4, 3, 0], [0, 0, 0, 0]], np.float32)
    labels = np.array([0, 2, 0])
    blocks: list[np.ndarray] = []
    monkeypatch.setattr(classification, "_BLOCK", 2)
    found = judge(Head(pack), features, labels, blocks.append)
    assert found.answers.tolist() == [0, 1, -1]
    assert found.ranks.tolist() == [0, 1, 3]  # silence is no answer, not the first class
    assert found.correct.tolist() == [True, False, False]
    powers = np.exp(np.array([0, 0.8, 0.6]) / 0.5)
    assert found.confidence[1] == pytest.approx(powers.max() / powers.sum(), rel=1e-6)
    np.testing.assert_array_equal(np.concatenate(blocks), Head(pack).cosines(features))


def test_only_the_finest_classes_are_answers() -> None:
    rows = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = ["animal", "cat", "dog", "car"]
    pack = VocabularyPack.build(names, rows, "e" * 64, parents=[-1, 0, 0, -1], temperature=0.1)
    found = judge(Head(pack), np.array([[5, 4, 0, 0]], np.float32), np.array([2]))
    assert names[found.answers[0]] == "cat"
    assert found.ranks.tolist() == [1]
    posterior = Head(pack).probabilities(np.array([[5, 4, 0, 0]]))[0]
    assert found.confidence[0] == pytest.approx(posterior[1])


def test_tiny_temperatures_do_not_blur_the_ranks() -> None:
    pack = VocabularyPack.build(["a", "b", "c"], np.eye(3, 4), "e" * 64, temperature=1e-4)
    found = judge(Head(pack), np.array([[9, 1, 3, 0]], np.float32), np.array([2]))
    assert found.ranks.tolist() == [1]  # though both others have probability 0
