# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.places import index as index_module
from spike_perception.places.index import PlaceIndex


def unit(rng: np.random.Generator, places: int, dimension: int = 64) -> np.ndarray:
    vectors = rng.standard_normal((places, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made(kind: str, places: int, exact_bytes: int) -> tuple[PlaceIndex, np.ndarray, np.ndarray]:
    """Index with ids 10, 20, 30, ..., added in uneven portions."""
    vectors = unit(np.random.default_rng(5), places)
    if kind == "bits":
        vectors = np.packbits(vectors > 0, axis=1)
    ids = 10 * np.arange(1, places + 1)
    index = PlaceIndex(kind, 64, exact_bytes=exact_bytes)
    for start in range(0, places, 37):
        index.add(ids[start : start + 37], vectors[start : start + 37])
    return index, ids, vectors


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "BLOCK_BYTES", 50 * 256)  # several blocks in every test


@pytest.mark.parametrize("kind", ["float", "bits"])
@pytest.mark.parametrize("exact_bytes", [0, 1 << 30])
def test_finds_every_place_by_itself_before_and_after_removal(kind: str, exact_bytes: int) -> None:
    index, ids, vectors = made(kind, 300, exact_bytes)
    assert index.exact == (exact_bytes > 0)
    for number in range(0, 300, 17):
        rows, scores = index.search(vectors[number], 5)
        assert index.ids[rows[0]] == ids[number]
        assert scores[0] == pytest.approx(1.0, abs=1e-5)
        assert (np.diff(scores) <= 0).all()
    gone = ids[np.arange(300) % 3 == 0]
    kept = index.remove(np.append(gone, [5, 99999]))
    assert kept.sum() == len(index) == 200
    np.testing.assert_array_equal(index.ids, np.setdiff1d(ids, gone))
    for number in range(1, 300, 17):
        rows, _ = index.search(vectors[number], 1)
        assert (index.ids[rows[0]] == ids[number]) == (number % 3 != 0)
    np.testing.assert_array_equal(index.vectors(np.arange(200)), vectors[np.arange(300) % 3 > 0])
    index.add(np.array([5000]), vectors[:1])
    assert index.ids[index.search(vectors[0], 1)[0][0]] == 5000


@pytest.mark.parametrize("kind", ["float", "bits"])
def test_scores_are_exact(kind: str) -> None:
    index, _, vectors = made(kind, 120, 1 << 30)
    signs = vectors if kind == "float" else 2.0 * np.unpackbits(vectors, axis=1) - 1.0
    wanted = signs[:3] @ signs.T / (1 if kind == "float" else 64)
    np.testing.assert_allclose(index.scores(vectors[:3]), wanted, atol=1e-5)
    np.testing.assert_allclose(index.scores(vectors[:3], 70), wanted[:, 70:], atol=1e-5)
    assert index.scores(vectors[:3], 120).shape == (3, 0)


def test_bits_are_counted_alike_without_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    index, _, vectors = made("bits", 60, 1 << 30)
    fast = index.scores(vectors[:4])
    if hasattr(np, "bitwise_count"):
        monkeypatch.delattr(np, "bitwise_count")
    np.testing.assert_array_equal(index.scores(vectors[:4]), fast)


def test_signs_of_vectors_that_all_point_one_way() -> None:
    """Their mean is taken off first: without that all signs would be equal."""
    rng = np.random.default_rng(6)
    vectors = unit(rng, 2000) * 0.2 + unit(rng, 1)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index = PlaceIndex("float", 64, exact_bytes=0)
    index.add(np.arange(1, 2001), vectors)
    right = [index.search(vectors[n], 1)[0][0] == n for n in range(0, 2000, 50)]
    assert all(right)


def test_rows_by_id() -> None:
    index, _, _ = made("float", 50, 1 << 30)
    assert index.rows(np.array([10, 500, 20])).tolist() == [0, 49, 1]
    assert index.rows(np.array([15, 30, 501, 0, 10])).tolist() == [2, 0]
    assert PlaceIndex("float", 8).rows(np.array([1])).size == 0


def test_ids_must_ascend() -> None:
    index, _, vectors = made("float", 50, 1 << 30)
    for ids in ([500], [501, 501], [600, 599]):
        with pytest.raises(ValueError, match="ascend"):
            index.add(np.array(ids), vectors[: len(ids)])
    assert len(index) == 50


def test_an_empty_index() -> None:
    index = PlaceIndex("float", 8)
    rows, scores = index.search(np.ones(8, dtype=np.float32), 3)
    assert rows.size == scores.size == 0
    assert index.scores(np.ones((2, 8), dtype=np.float32)).shape == (2, 0)


@pytest.mark.slow
def test_prefilter_keeps_the_nearest_first() -> None:
    rng = np.random.default_rng(7)
    places = unit(rng, 100_000, 512)
    index = PlaceIndex("float", 512)
    index.add(np.arange(1, 100_001), places)
    assert not index.exact
    truth = rng.integers(100_000, size=100)
    queries = places[truth] + 0.7 * unit(rng, 100, 512)
    right = [index.search(q, 10)[0][0] == t for q, t in zip(queries, truth, strict=True)]
    assert np.mean(right) >= 0.99
