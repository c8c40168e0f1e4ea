# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.places.config import SequenceConfig
from spike_perception.places.sequence import (
    PRIOR_FRAMES,
    VELOCITY_PENALTY,
    SequenceMatcher,
    aggregate,
    centre_and_spread,
    match_sequences,
    session_bounds,
    standardise,
    trajectories,
)


def config(length: int = 4, **changes) -> SequenceConfig:
    return SequenceConfig(length=length, **changes)


def by_definition(z: np.ndarray, steps: np.ndarray, session: np.ndarray) -> np.ndarray:
    """The docstring's words, written as loops."""
    queries, places = z.shape
    length = steps.shape[1]
    best = np.full((queries, places), -np.inf)
    away = [abs(abs(t[-1]) / max(length - 1, 1) - 1.0) for t in steps]
    for query in range(queries):
        for place in range(places):
            for trajectory, distance in zip(steps, away, strict=True):
                total, frames = 0.0, 0
                for age in range(min(length, query + 1)):
                    column = place - trajectory[age]
                    if 0 <= column < places and session[column] == session[place]:
                        total += z[query - age, column]
                        frames += 1
                shrunk = total / (frames + PRIOR_FRAMES) * (length + PRIOR_FRAMES) / length
                shrunk -= VELOCITY_PENALTY * (distance - min(away))
                best[query, place] = max(best[query, place], shrunk)
    return best


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_matches_its_definition(length: int, reverse: bool) -> None:
    rng = np.random.default_rng(length)
    scores = rng.standard_normal((12, 20)).astype(np.float32)
    session = np.repeat([3, 4, 9], [7, 1, 12])
    chosen = config(length, min_velocity=0.5, max_velocity=2.0, reverse=reverse)
    wanted = by_definition(standardise(scores), trajectories(chosen), session)
    np.testing.assert_allclose(match_sequences(scores, chosen, session), wanted, atol=1e-5)


def test_stream_and_whole_matrix_are_identical() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((30, 40)).astype(np.float32)
    session = np.repeat([1, 2], [25, 15])
    whole = match_sequences(scores, config(), session)
    matcher = SequenceMatcher(config())
    for number, row in enumerate(standardise(scores)):
        streamed = matcher.evaluate(row, session_bounds(session))
        np.testing.assert_array_equal(streamed, matcher.evaluate(row, session_bounds(session)))
        matcher.push(row)
        np.testing.assert_array_equal(streamed, whole[number])


def test_between_keyframes_the_trajectories_are_shorter_by_what_is_left_of_the_way() -> None:
    steady = config(4, min_velocity=1.0, max_velocity=1.0)
    assert trajectories(steady).tolist() == [[0, 1, 2, 3]]
    assert trajectories(steady, 0.6).tolist() == [[0, 1, 2, 3]]
    assert trajectories(steady, 0.4).tolist() == [[0, 0, 1, 2]]
    assert trajectories(steady, 0.0).tolist() == [[0, 0, 1, 2]]


@pytest.mark.parametrize("since", [0.0, 0.3, 0.4, 0.6, 0.9, 1.0])
def test_velocity_one_has_no_price_between_keyframes_either(since: float) -> None:
    matcher = SequenceMatcher(config(10, min_velocity=0.8, max_velocity=1.2, velocity_steps=5))
    steady = trajectories(config(10, min_velocity=1.0, max_velocity=1.0), since)[0]
    rows = np.zeros((10, 40), dtype=np.float32)
    rows[np.arange(10), 30 - steady] = 3.0
    for row in rows[:0:-1]:
        matcher.push(row)
    best = matcher.evaluate(rows[0], session_bounds(np.zeros(40, dtype=np.int64)), since)
    assert best[30] == pytest.approx(3.0)


def test_is_causal() -> None:
    rng = np.random.default_rng(1)
    scores = rng.standard_normal((20, 30)).astype(np.float32)
    changed = scores.copy()
    changed[12:] = rng.standard_normal((8, 30))
    one, other = match_sequences(scores, config()), match_sequences(changed, config())
    np.testing.assert_array_equal(one[:12], other[:12])
    assert not np.array_equal(one[12], other[12])


def test_a_growing_map_gives_what_a_complete_one_would() -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((6, 20)).astype(np.float32)
    late, complete = SequenceMatcher(config()), SequenceMatcher(config())
    for row in rows[:4]:
        late.push(row[:15])
        complete.push(row)
    late.extend(rows[3:0:-1, 15:])  # newest first; three are remembered
    bounds = session_bounds(np.zeros(20, dtype=np.int64))
    np.testing.assert_array_equal(
        late.evaluate(rows[4], bounds), complete.evaluate(rows[4], bounds)
    )
    kept = np.arange(20) % 3 > 0
    late.keep(kept)
    assert late.evaluate(rows[5][kept], session_bounds(np.zeros(int(kept.sum())))).size == 13
    late.reset()
    assert len(late) == 0


@pytest.mark.parametrize("velocity", [0.8, 1.0, 1.25])
def test_finds_a_traverse_at_another_speed(velocity: float) -> None:
    rng = np.random.default_rng(3)
    places = rng.standard_normal((100, 64)).astype(np.float32)
    truth = (10 + velocity * np.arange(40)).round().astype(int)
    queries = places[truth] + 2.5 * rng.standard_normal((40, 64)).astype(np.float32)
    scores = queries @ places.T / 64
    alone = (scores.argmax(1) == truth).mean()
    matched = match_sequences(scores, config(10, max_velocity=1.3, velocity_steps=7))
    together = (np.abs(matched.argmax(1) - truth) <= 1)[9:].mean()
    assert alone < 0.9 < together


def test_backwards_only_when_asked_for() -> None:
    places = np.random.default_rng(4).standard_normal((50, 64)).astype(np.float32)
    truth = np.arange(40, 20, -1)
    scores = places[truth] @ places.T / 64
    last = slice(9, None)
    forward = match_sequences(scores, config(10))[last]
    both = match_sequences(scores, config(10, reverse=True))[last]
    right = (np.arange(forward.shape[0]), truth[last])
    assert (both.argmax(1) == truth[last]).all()
    assert (both[right] > 2 * forward[right]).all()


def test_trajectories_are_distinct_and_within_the_velocities() -> None:
    steps = trajectories(config(6, min_velocity=0.5, max_velocity=2.0, velocity_steps=20))
    assert len({tuple(row) for row in steps.tolist()}) == len(steps)
    assert (steps[:, 0] == 0).all()
    assert (steps[:, 5].min(), steps[:, 5].max()) == (3, 10)
    assert trajectories(config(1)).tolist() == [[0]]


def test_runs_end_at_sessions_and_gaps() -> None:
    first, last = session_bounds(np.array([1, 1, 2, 2, 2]), np.array([4, 5, 6, 8, 9]))
    assert first.tolist() == [0, 0, 2, 3, 3]
    assert last.tolist() == [1, 1, 2, 4, 4]
    assert session_bounds(np.empty(0, dtype=np.int64))[0].size == 0


def test_few_places_are_not_taken_for_a_spread() -> None:
    assert centre_and_spread(np.array([0.5], dtype=np.float32)) == (
        pytest.approx(0.5),
        pytest.approx(0.0953, abs=1e-3),
    )
    values = np.random.default_rng(0).normal(0.3, 0.02, 5000).astype(np.float32)
    assert centre_and_spread(values) == (
        pytest.approx(0.3, abs=0.002),
        pytest.approx(0.02, abs=0.005),
    )


def test_an_empty_map() -> None:
    assert match_sequences(np.empty((3, 0), dtype=np.float32), config()).shape == (3, 0)
    empty = np.empty(0, dtype=np.float32)
    bounds = session_bounds(np.empty(0, dtype=np.int64))
    assert aggregate([empty], trajectories(config()), bounds).size == 0
