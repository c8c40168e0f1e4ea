# SPDX-License-Identifier: Apache-2.0
"""Causal sequence matching: what the last frames say together about where the robot is now.

After Milford and Wyeth, "SeqSLAM" (ICRA 2012): instead of the best single image the best straight
trajectory through the score matrix is sought, over several velocities. Four readings are ours.
It is causal: a trajectory ends at the newest query, so that an answer is there at once. The scores
of each query are standardised over the map (median and median absolute deviation), so that a
threshold means the same by day and by night. A velocity other than 1 has its price. And sequences
never cross from one session into another: a trajectory that would begin before the first place of a
session, or before the first query, is judged by the frames it has, as a mean that is shrunk towards
the background level 0 the more of them are missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from spike_perception.places.config import SequenceConfig

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# The spread of a map's scores is not known from a handful of places: it is mixed with a prior that
# counts as so many places (our reading; both are in units of cosine similarity).
PRIOR_PLACES = 10
PRIOR_SPREAD = 0.1
# A trajectory's mean is mixed with so many frames at background level (our reading): the true place
# just after the beginning of a session would else lose to its neighbours further on, which have
# more frames to show.
PRIOR_FRAMES = 4
# What a trajectory loses for each unit of velocity away from the one nearest to 1, in background
# spreads (our reading). The best of several trajectories is taken, so each further velocity gives
# wrong places another chance; without a price the tolerance costs more places than it finds.
VELOCITY_PENALTY = 1.0


def centre_and_spread(scores: Floats) -> tuple[float, float]:
    """Robust level and spread of one query's scores over the map.

    Args:
        scores: float32 [places], similarities, at least one.

    Returns:
        Median, and 1.4826 x median absolute deviation mixed with the prior.
    """
    centre = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - centre)))
    weight = scores.size / (scores.size + PRIOR_PLACES)
    return centre, float(np.sqrt(weight * spread**2 + (1.0 - weight) * PRIOR_SPREAD**2))


def standardise(scores: Floats) -> Floats:
    """Every row of [queries, places] in units of its own spread around its own level."""
    rows = [(row - c) / s for row in scores for c, s in (centre_and_spread(row),)]
    return np.array(rows, dtype=np.float32).reshape(scores.shape)


def trajectories(config: SequenceConfig, since: float = 1.0) -> Ints:
    """How many places back each trajectory is at each age.

    Args:
        config: length and velocities.
        since: how far the newest query is from the last keyframe, as a share of the way from one
            keyframe to the next, 0 to 1; 1 for a keyframe.

    Returns:
        int64 [trajectories, length]: entry u is the step back, in places, of the query u frames
        ago; column 0 is 0. Negative for trajectories in the opposite order. No two are equal.
    """
    ages = np.maximum(np.arange(config.length) - 1.0 + since, 0.0)
    slowest, fastest = sorted((config.min_velocity, config.max_velocity))
    velocities = np.linspace(slowest, fastest, config.velocity_steps)
    steps = np.floor(velocities[:, None] * ages + 0.5).astype(np.int64)
    if config.reverse:
        steps = np.concatenate([steps, -steps])
    return np.unique(steps, axis=0)


def session_bounds(session: Ints, order: Ints | None = None) -> tuple[Ints, Ints]:
    """First and last column of the unbroken run that each column lies in.

    Args:
        session: int64 [places], equal values are neighbours.
        order: int64 [places] position in the map; a step other than 1 also ends a run.
    """
    places = session.size
    broken = np.ones(places, dtype=bool)
    if places:
        broken[1:] = session[1:] != session[:-1]
        if order is not None:
            broken[1:] |= np.diff(order) != 1
    starts = np.flatnonzero(broken)
    run = np.cumsum(broken) - 1
    ends = np.append(starts[1:], places) - 1
    return starts[run], ends[run]


def aggregate(
    rows: Iterable[Floats], steps: Ints, bounds: tuple[Ints, Ints], since: float = 1.0
) -> Floats:
    """Score of the best trajectory that ends at each place and at the newest query.

    Args:
        rows: standardised scores float32 [places] of the newest query, the one before, ...;
            at most as many as the sequence is long, fewer while it is not yet full.
        steps: see :func:`trajectories`.
        bounds: see :func:`session_bounds`.
        since: what ``steps`` were made for.

    Returns:
        float32 [places], mean over the frames of the trajectory that lie in the session, shrunk
        by ``PRIOR_FRAMES`` such that a full sequence keeps its mean, less the price of its velocity
        (``VELOCITY_PENALTY``).
    """
    rows = list(rows)[: steps.shape[1]]
    first, last = bounds
    places = first.size
    here = np.arange(places)
    one_run = places == 0 or (first[-1] == 0)
    inside: dict[int, NDArray[np.bool_]] = {}
    best = np.full(places, -np.inf, dtype=np.float32)
    gain = np.float32(1 + PRIOR_FRAMES / steps.shape[1])
    for trajectory, price in zip(steps, _prices(steps, since), strict=True):
        total = np.zeros(places, dtype=np.float32)
        frames = np.full(places, PRIOR_FRAMES, dtype=np.float32)
        for row, step in zip(rows, trajectory.tolist(), strict=False):
            if abs(step) >= places:
                continue
            if step >= 0:
                target, source = slice(step, places), slice(0, places - step)
            else:
                target, source = slice(0, places + step), slice(-step, places)
            if one_run:
                total[target] += row[source]
                frames[target] += 1
                continue
            if step not in inside:
                inside[step] = ((here - step >= first) & (here - step <= last))[target]
            total[target] += np.where(inside[step], row[source], np.float32(0))
            frames[target] += inside[step]
        np.maximum(best, gain * total / frames - price, out=best)
    return best


def _prices(steps: Ints, since: float) -> Floats:
    """What each trajectory loses for its velocity, float32 [trajectories]."""
    # From the oldest query to the newest.
    keyframes = max(steps.shape[1] - 2 + min(since, 1.0), 1.0)
    away = np.abs(np.abs(steps[:, -1]) / keyframes - 1.0)
    return np.asarray(VELOCITY_PENALTY * (away - away.min()), dtype=np.float32)


class SequenceMatcher:
    """Sequence matching as a stream: one query at a time.

    Attributes:
        steps: the trajectories in use, see :func:`trajectories`.
    """

    def __init__(self, config: SequenceConfig) -> None:
        """Start empty.

        Args:
            config: length and velocities.
        """
        self._config = config
        self.steps = trajectories(config)
        self._rows: deque[Floats] = deque(maxlen=max(config.length - 1, 0))

    @property
    def length(self) -> int:
        """Queries matched together."""
        return int(self.steps.shape[1])

    def __len__(self) -> int:
        """Queries remembered; the sequence is full when this is ``length - 1``."""
        return len(self._rows)

    def steps_since(self, since: float) -> Ints:
        """The trajectories for a query between two keyframes, see :func:`trajectories`."""
        return self.steps if since >= 1.0 else trajectories(self._config, since)

    def evaluate(self, row: Floats, bounds: tuple[Ints, Ints], since: float = 1.0) -> Floats:
        """Scores with ``row`` as the newest query; the state stays as it is.

        Args:
            row: standardised scores float32 [places].
            bounds: see :func:`session_bounds`.
            since: how far from the last keyframe, see :func:`trajectories`.
        """
        return aggregate([row, *self._rows], self.steps_since(since), bounds, since)

    def push(self, row: Floats) -> None:
        """Remember ``row`` as the newest query of the sequence."""
        self._rows.appendleft(row)

    def extend(self, columns: Floats) -> None:
        """The map has grown: scores of the remembered queries, newest first, for the new places.

        Args:
            columns: float32 [remembered queries, new places].
        """
        rows = [np.concatenate(pair) for pair in zip(self._rows, columns, strict=True)]
        self._rows = deque(rows, maxlen=self._rows.maxlen)

    def keep(self, kept: NDArray[np.bool_]) -> None:
        """Places were removed: bool [places], True for those that stay."""
        self._rows = deque((row[kept] for row in self._rows), maxlen=self._rows.maxlen)

    def reset(self) -> None:
        """Forget all queries."""
        self._rows.clear()


def match_sequences(scores: Floats, config: SequenceConfig, session: Ints | None = None) -> Floats:
    """Sequence scores of a whole traverse, exactly as the stream would give them.

    Args:
        scores: float32 [queries, places], similarities in order of time, not standardised.
        config: length and velocities.
        session: int64 [places], ascending; None for one session.

    Returns:
        float32 [queries, places]. Row q depends on rows up to q alone.
    """
    places = scores.shape[1]
    bounds = session_bounds(np.zeros(places, dtype=np.int64) if session is None else session)
    matcher = SequenceMatcher(config)
    matched = np.empty(scores.shape, dtype=np.float32)
    for number, row in enumerate(standardise(scores) if places else scores):
        matched[number] = matcher.evaluate(row, bounds)
        matcher.push(row)
    return matched
