# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike_perception.places.retrieval import Layout, best_columns, retrieve


def scores(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_best_first_and_the_invalid_left_out() -> None:
    found = retrieve(
        scores([1, 5, 3, 4], [9, 1, 1, 2]),
        np.array([[False, True, False, False], [False] * 4]),
        k=2,
        window=0,
    )
    assert found.columns.tolist() == [[3, 2], [0, 3]]
    assert found.scores.tolist() == [[4, 3], [9, 2]]
    assert found.margin.tolist() == [1, 7]


def test_ties_go_to_the_lower_column() -> None:
    columns, _ = best_columns(np.ones((1, 50), dtype=np.float32), None, 3)
    assert columns.tolist() == [[0, 1, 2]]


def test_fewer_places_than_asked_for() -> None:
    found = retrieve(scores([2.0, 1.0]), np.array([[False, True]]), k=4)
    assert found.columns.tolist() == [[0, -1, -1, -1]]
    assert found.scores.tolist() == [[2.0, -np.inf, -np.inf, -np.inf]]
    assert found.margin.tolist() == [np.inf]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_to_ask_or_nothing_to_find(shape: tuple[int, int]) -> None:
    found = retrieve(np.zeros(shape, dtype=np.float32), None, k=2)
    assert found.columns.shape == (shape[0], 2)
    assert (found.columns == -1).all()
    assert np.isnan(found.margin).all()


def test_all_invalid() -> None:
    found = retrieve(scores([1, 2]), np.ones((1, 2), dtype=bool), k=1)
    assert found.columns.tolist() == [[-1]]
    assert np.isnan(found.margin[0])


def test_neighbours_are_no_rivals() -> None:
    row = scores([0, 8, 9, 7, 1, 3])
    assert retrieve(row, None, 1, window=0).margin[0] == 1
    assert retrieve(row, None, 1, window=1).margin[0] == 6
    assert retrieve(row, None, 1, window=5).margin[0] == np.inf


def test_other_sessions_without_poses_are_no_rivals() -> None:
    layout = Layout(np.arange(4), np.array([0, 0, 1, 1]))
    assert retrieve(scores([9, 2, 8, 8]), None, 1, window=0, layout=layout).margin[0] == 7


def test_poses_decide_where_known() -> None:
    position = np.array([[0, 0, 0], [1, 0, 0], [100, 0, 0], [np.nan] * 3])
    layout = Layout(np.arange(4), np.array([0, 1, 1, 0]), position)
    row = scores([9, 8, 5, 7])
    # Place 1 is a metre away, place 2 is a rival, place 3 has no pose but lies in the session.
    assert retrieve(row, None, 1, window=0, radius=5, layout=layout).margin[0] == 2
    assert retrieve(row, None, 1, window=3, radius=5, layout=layout).margin[0] == 4


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_agrees_with_sorting(places: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (2, places)).astype(np.float32)
    invalid = rng.random((2, places)) < 0.3
    columns, best = best_columns(values, invalid, k)
    for row in range(2):
        valid = [c for c in range(places) if not invalid[row, c]]
        wanted = sorted(valid, key=lambda c: (-values[row, c], c))[:k]
        assert columns[row, : len(wanted)].tolist() == wanted
        assert best[row, : len(wanted)].tolist() == values[row, wanted].tolist()
        assert (columns[row, len(wanted) :] == -1).all()
