# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike_perception.errors import InputError
from spike_perception.evaluation.metrics import (
    matches_from_answers,
    matches_from_scores,
    percentiles_ms,
    precision_recall,
    recall_at,
    summary,
)

INF = math.inf

# Five queries, four places. Best scores 0.9 right, 0.8 right, 0.7 wrong, 0.6 right, 0.5 for a
# query that has no true place.
SCORES = np.array(
    [
        [0.9, 0.1, 0.2, 0.3],
        [0.1, 0.8, 0.2, 0.3],
        [0.7, 0.6, 0.5, 0.3],
        [0.1, 0.2, 0.3, 0.6],
        [0.5, 0.1, 0.2, 0.3],
    ]
)
TRUTH = np.zeros((5, 4), bool)
TRUTH[[0, 1, 2, 3], [0, 1, 2, 3]] = True


def test_ranks_and_both_recall_conventions() -> None:
    matches = matches_from_scores(SCORES, TRUTH)
    assert matches.place.tolist() == [0, 1, 0, 3, 0]
    assert matches.rank.tolist() == [0, 0, 2, 0, -1]
    assert recall_at(matches, 1) == 3 / 5
    assert recall_at(matches, 1, matchable_only=True) == 3 / 4
    assert recall_at(matches, 2, matchable_only=True) == 3 / 4
    assert recall_at(matches, 3, matchable_only=True) == 1.0
    assert recall_at(matches, 3) == 4 / 5


def test_known_curve() -> None:
    curve = precision_recall(matches_from_scores(SCORES, TRUTH))
    np.testing.assert_allclose(curve.threshold, [0.9, 0.8, 0.7, 0.6, 0.5])
    np.testing.assert_allclose(curve.precision, [1, 1, 2 / 3, 3 / 4, 3 / 5])
    np.testing.assert_allclose(curve.recall, [1 / 4, 2 / 4, 2 / 4, 3 / 4, 3 / 4])
    assert curve.average_precision() == pytest.approx(1 / 4 + 1 / 4 + 1 / 4 * 3 / 4)
    assert curve.area() == pytest.approx(1 / 2 + 1 / 4 * (2 / 3 + 3 / 4) / 2)
    assert curve.recall_at_full_precision() == pytest.approx(2 / 4)
    f1, threshold = curve.best_f1()
    assert f1 == pytest.approx(3 / 4)
    assert threshold == pytest.approx(0.6)
    assert curve.per_correct().recall_at_full_precision() == pytest.approx(2 / 3)
    assert curve.per_correct().recall[-1] == 1.0


def test_of_equal_scores_the_lower_column_comes_first() -> None:
    flat = matches_from_scores(np.ones((4, 4)), np.eye(4, dtype=bool))
    assert flat.rank.tolist() == [0, 1, 2, 3]
    assert flat.place.tolist() == [0, 0, 0, 0]
    assert recall_at(flat, 1) == 1 / 4


def test_equal_scores_are_accepted_together() -> None:
    scores = np.array([[0.5, 0.1], [0.5, 0.1]])
    curve = precision_recall(matches_from_scores(scores, np.eye(2, dtype=bool)))
    assert curve.precision.tolist() == [0.5]
    assert curve.recall_at_full_precision() == 0.0


def test_places_not_retrieved_never_count() -> None:
    scores = np.array([[-INF, -INF], [0.3, -INF], [0.1, 0.2]])
    truth = np.array([[True, False], [False, True], [False, True]])
    matches = matches_from_scores(scores, truth)
    assert matches.place.tolist() == [-1, 0, 1]
    assert matches.rank.tolist() == [-1, -1, 0]
    assert matches.answered.tolist() == [False, True, True]
    assert recall_at(matches, 2) == pytest.approx(1 / 3)
    figures = summary(matches)
    assert figures["queries_answered"] == 2


@pytest.mark.parametrize(
    ("scores", "truth"),
    [
        (SCORES, np.zeros((5, 4), bool)),  # no query has a match
        (np.full((5, 4), -INF), TRUTH),  # no query was answered
        (np.empty((0, 4)), np.empty((0, 4), bool)),  # no query
    ],
)
def test_nothing_to_divide_by_gives_none(scores: np.ndarray, truth: np.ndarray) -> None:
    figures = summary(matches_from_scores(scores, truth))
    assert figures["average_precision"] is None
    assert figures["recall_at_100_precision"] is None
    assert figures["f1_max"] is None
    assert figures["recall_at_1"] == (0.0 if truth.any() else None)
    assert figures["recall_at_1_matchable"] == (0.0 if truth.any() else None)


def test_all_wrong() -> None:
    curve = precision_recall(matches_from_scores(1 - np.eye(3), np.eye(3, dtype=bool)))
    assert curve.average_precision() == 0.0
    assert curve.recall_at_full_precision() == 0.0
    assert curve.best_f1()[0] == 0.0
    assert curve.per_correct().area() is None


def test_refusals() -> None:
    with pytest.raises(InputError, match="NaN"):
        matches_from_scores(np.full((2, 2), np.nan), np.eye(2, dtype=bool))
    with pytest.raises(InputError, match=r"\(2, 3\)"):
        matches_from_scores(np.ones((2, 3)), np.eye(2, dtype=bool))
    with pytest.raises(InputError):
        matches_from_scores(np.ones((2, 0)), np.ones((2, 0), bool))


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
def test_ranked_answers_agree_with_scores(seed: int, queries: int, places: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 9, (queries, places)) / 7.0  # with ties
    truth = rng.random((queries, places)) < 0.3
    expected = matches_from_scores(scores, truth)
    ranked = np.argsort(-scores, axis=1, kind="stable")
    seen = matches_from_answers(ranked, scores.max(axis=1), truth)
    assert summary(seen) == summary(expected)
    np.testing.assert_array_equal(seen.place, expected.place)
    # Against the definition, query by query.
    for k in (1, 5):
        hits = [truth[q, ranked[q, :k]].any() for q in range(queries)]
        assert recall_at(expected, k) == (np.mean(hits) if truth.any() else None)


def test_percentiles() -> None:
    assert percentiles_ms([0.001, 0.002, 0.003])["p50_ms"] == pytest.approx(2.0)
    assert percentiles_ms([])["p95_ms"] is None
