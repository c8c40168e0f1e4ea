# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.evaluation import ground_truth


def save(tmp_path: Path, array: np.ndarray) -> Path:
    path = tmp_path / "truth.npy"
    np.save(path, array)
    return path


def test_diagonal_widens_and_stops_at_the_border() -> None:
    truth = ground_truth.diagonal(4, 4, 1)
    expected = np.eye(4) + np.eye(4, k=1) + np.eye(4, k=-1)
    np.testing.assert_array_equal(truth, expected > 0)
    np.testing.assert_array_equal(ground_truth.diagonal(3, 3, 0), np.eye(3, dtype=bool))
    assert ground_truth.diagonal(3, 3, 10**9).all()


def test_counts_that_differ_are_explained() -> None:
    with pytest.raises(InputError, match=r"4 query and 5 reference.*--ground-truth") as caught:
        ground_truth.diagonal(4, 5, 1)
    assert caught.value.reason == "count_mismatch"
    with pytest.raises(InputError, match="at least 0"):
        ground_truth.diagonal(4, 4, -1)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_matrix(tmp_path: Path, dtype: type) -> None:
    truth = np.random.default_rng(0).random((4, 6)) < 0.5
    seen = ground_truth.load(save(tmp_path, truth.astype(dtype)), 4, 6, tolerance=3)
    np.testing.assert_array_equal(seen, truth)
    assert seen.dtype == np.bool_


def test_index_list_and_pairs(tmp_path: Path) -> None:
    expected = np.zeros((3, 5), bool)
    expected[0, 3:] = expected[2, :2] = True
    path = save(tmp_path, np.array([4, -1, 0]))
    np.testing.assert_array_equal(ground_truth.load(path, 3, 5, 1), expected)
    path = save(tmp_path, np.array([[0, 4], [2, 0]], np.int32))
    np.testing.assert_array_equal(ground_truth.load(path, 3, 5, 1), expected)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((6, 4), bool), "transposed"),
        (np.full((4, 6), 2), "only 0 and 1"),
        (np.zeros((4, 5), bool), r"allowed is a 0/1 matrix \[4, 6\]"),
        (np.array([0, 1, 2, 6]), "place 6"),
        (np.array([0, 1, 2, -2]), "place -2"),
        (np.array([[4, 0]]), "query 4"),
        (np.array(["a"] * 4), "allowed is"),
        (np.array([0.0, 1, 2, 3]), "allowed is"),
    ],
)
def test_refusals(tmp_path: Path, array: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        ground_truth.load(save(tmp_path, array), 4, 6, 0)
    assert caught.value.reason == "invalid_ground_truth"


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        ground_truth.load(tmp_path / "none.npy", 4, 6, 0)
    objects = np.array([[1, 2], [3]], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "archive.npz", a=np.eye(3))
    whole = save(tmp_path, np.eye(4)).read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npy").write_text("0,1,2")
    for name in ("objects.npy", "archive.npz", "cut.npy", "empty.npy", "text.npy"):
        with pytest.raises(InputError, match=name) as caught:
            ground_truth.load(tmp_path / name, 4, 4, 0)
        assert caught.value.reason == "ground_truth_unreadable"


def test_a_huge_claim_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        ground_truth.load(save(tmp_path, np.arange(4)), 10**6, 10**6, 0)
    assert caught.value.reason == "ground_truth_too_large"


def test_poses() -> None:
    reference = np.array([[0.0, 0, 0], [5, 0, 0], [10, 0, 0], [np.nan, 0, 0]])
    query = np.array([[0.5, 0, 0], [7.5, 0, 0], [0, np.nan, 0], [0, 99, 0]])
    seen = ground_truth.from_poses(query, reference, 2.5)
    expected = [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(seen, np.array(expected, bool))


def test_headings_turn_through_the_wrap() -> None:
    at = np.zeros((1, 3))
    places = np.zeros((3, 3))
    seen = ground_truth.from_poses(
        at,
        places,
        1.0,
        query_headings=np.array([np.pi - 0.1]),
        reference_headings=np.array([-np.pi + 0.1, 0.0, np.pi]),
        heading_rad=0.25,
    )
    assert seen.tolist() == [[True, False, True]]
