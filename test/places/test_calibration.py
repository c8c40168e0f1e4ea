# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.places.calibration import (
    Calibration,
    calibrate_from_labels,
    calibrate_from_map,
    default_calibration,
)
from spike_perception.places.config import DecisionConfig, SequenceConfig
from spike_perception.places.index import PlaceIndex
from spike_perception.places.retrieval import Layout, retrieve
from spike_perception.places.sequence import match_sequences

SEQUENCE = SequenceConfig(length=5)


def road(seed: int, places: int) -> np.ndarray:
    """Places that resemble their neighbours."""
    steps = np.random.default_rng(seed).standard_normal((places + 4, 256)).astype(np.float32)
    smooth = sum(steps[n : n + places] for n in range(5))
    return np.asarray(smooth / np.linalg.norm(smooth, axis=1, keepdims=True), dtype=np.float32)


def seen_again(vectors: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(vectors.shape) / 16
    again = vectors + 1.5 * noise
    return np.asarray(again / np.linalg.norm(again, axis=1, keepdims=True), dtype=np.float32)


def calibrated(vectors: np.ndarray, layout: Layout | None = None) -> Calibration:
    index = PlaceIndex("float", 256)
    index.add(np.arange(1, len(vectors) + 1), vectors)
    layout = Layout.single(len(vectors)) if layout is None else layout
    return calibrate_from_map(index, layout, SEQUENCE, DecisionConfig())


def accepted(found: Calibration, queries: np.ndarray, places: np.ndarray) -> np.ndarray:
    ranking = retrieve(match_sequences(queries @ places.T, SEQUENCE), None, 1)
    passed = (ranking.scores[:, 0] >= found.threshold) & (ranking.margin >= found.margin)
    return np.where(passed, ranking.columns[:, 0], -1)[4:]


def test_accepts_the_known_and_rejects_the_unknown() -> None:
    places = road(1, 400)
    found = calibrated(places)
    assert found.source == "map"
    known = accepted(found, seen_again(places, 2), places)
    assert (np.abs(known - np.arange(4, 400)) <= 1).mean() > 0.95
    assert (accepted(found, road(3, 400), places) >= 0).mean() < 0.01


@pytest.mark.parametrize("sessions", [1, 2])
def test_a_map_that_holds_every_place_twice_still_matches(sessions: int) -> None:
    once = road(1, 300)
    twice = np.concatenate([once, seen_again(once, 5)])
    layout = Layout(np.arange(600), np.repeat([1, sessions], 300))
    found = calibrated(twice, layout)
    assert (found.source, found.places) == ("map", 600)
    assert found.threshold <= default_calibration(5).threshold
    assert found.margin <= default_calibration(5).margin
    if sessions == 2:  # in two sessions it is known that they may be the same
        assert found.margin < 1.5 * calibrated(once).margin
    known = accepted(found, seen_again(once, 2), once)
    assert (known >= 0).mean() > 0.95


def test_small_maps_get_the_default() -> None:
    assert calibrated(road(1, 20)) == default_calibration(5, 20)
    empty = calibrate_from_map(
        PlaceIndex("float", 256), Layout.single(0), SEQUENCE, DecisionConfig()
    )
    assert empty == default_calibration(5)
    assert default_calibration(20).threshold < default_calibration(1).threshold


def test_labels_give_the_wanted_precision_with_the_most_recall() -> None:
    rng = np.random.default_rng(4)
    correct = rng.random(1000) < 0.6
    margins = (rng.random(1000) + correct).astype(np.float32)
    scores = (rng.random(1000) + 0.5 * correct).astype(np.float32)
    margins[0] = np.inf
    for precision in (0.8, 0.95, 1.0):
        found = calibrate_from_labels(scores, margins, correct, precision, 5, 100)
        passed = (scores >= found.threshold) & (margins >= found.margin)
        assert correct[passed].mean() >= precision
        assert correct[passed].sum() > 0.6 * correct.sum()
    assert found.source == "labels"


def test_labels_that_cannot_reach_the_precision() -> None:
    wrong = np.zeros(10, dtype=bool)
    values = np.linspace(0, 1, 10).astype(np.float32)
    for labels in (wrong, wrong[:0]):
        with pytest.raises(InputError, match="no thresholds") as error:
            calibrate_from_labels(values[: labels.size], values[: labels.size], labels, 0.9, 1, 1)
        assert error.value.reason == "calibration_impossible"


def test_survives_the_way_through_the_map() -> None:
    found = default_calibration(7, 12)
    assert Calibration.from_dict(found.to_dict()) == found
    for damaged in ({}, {**found.to_dict(), "margin": "x"}, {**found.to_dict(), "margin": np.nan}):
        with pytest.raises(InputError):
            Calibration.from_dict(damaged)
