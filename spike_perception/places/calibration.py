# SPDX-License-Identifier: Apache-2.0
"""When to believe a match: score and margin thresholds taken from data instead of from the air.

Two ways. From the map itself, without labels: each sampled stretch of the map is looked up in the
map with its own surroundings masked out (and other sessions, which may show the same places), so
that every answer is wrong; thresholds are set above what such impostors reach, but never above the
cautious ones for small maps. This is the default, done when a map is opened and as it grows.
From labelled answers: the thresholds with the highest recall at a wanted precision.

What separates known from never seen best is the margin, the lead of the best place over any other:
a new scene may resemble the whole map strongly, but seldom one place of it alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.places.config import DecisionConfig, SequenceConfig
from spike_perception.places.index import PlaceIndex
from spike_perception.places.retrieval import Layout, retrieve
from spike_perception.places.sequence import match_sequences

# Both rules read the lower half of the impostors alone, because stretches that the map holds twice
# (a loop, a long stop) give answers that are right after all, and those lie in the upper half.
# The lead of the best of many impostors over the second is about exponentially distributed, so that
# its median tells the whole distribution; the rate was chosen by looking at all of Nordland.
SCORE_SPREADS = 1.27  # times (median - lower quartile) above the median: a Gumbel upper quartile
CLEAR_SPREADS = 12.76  # likewise, the Gumbel quantile that one impostor in ten thousand reaches
# It reads a tail off a spread, which a small map does not know well: mixed with the cautious limit
# as if that rested on so many places (our reading).
CLEAR_PRIOR_PLACES = 50
IMPOSTOR_RATE = 0.002  # share of impostors whose lead may pass
# That rule alone asks too much where the score itself says that this is no impostor; then a lead of
# this share of the score is enough. A map too small to calibrate itself is trusted less.
LEAD_SHARE = {"map": 0.3, "default": 0.5}
STRETCHES = 16  # stretches of the map that are looked up
STRETCH = 12  # answers taken from each
MOST_PLACES = 2048  # columns looked at; more would only cost time


@dataclass(frozen=True)
class Calibration:
    """Thresholds, and where they come from.

    Attributes:
        threshold: least score of a match.
        margin: least lead over a different place.
        clear: score that no impostor reaches; it waives most of a margin that nobody has checked.
        length: sequence length that they hold for.
        source: ``"default"``, ``"map"``, ``"labels"``, or ``"settings"`` where someone set them.
        answers: impostor or labelled answers that they rest on.
        places: places of the map at that time.
    """

    threshold: float
    margin: float
    clear: float
    length: int
    source: str
    answers: int
    places: int

    def accepts(self, score: float, margin: float) -> Literal["yes", "low", "ambiguous"]:
        """Judge a best place by its score and its lead.

        Thresholds from labels or settings hold as they are. A margin that nobody has checked is
        waived for a lead of ``LEAD_SHARE`` of a clear score.
        """
        if not score >= self.threshold:
            return "low"
        wanted = self.margin
        if score >= self.clear and self.source in LEAD_SHARE:
            wanted = min(wanted, LEAD_SHARE[self.source] * score)
        return "yes" if margin >= wanted else "ambiguous"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as kept in the map's manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Read what :meth:`to_dict` wrote.

        Raises:
            InputError: ``invalid_calibration``.
        """
        try:
            found = cls(
                float(values["threshold"]),
                float(values["margin"]),
                float(values["clear"]),
                int(values["length"]),
                str(values["source"]),
                int(values["answers"]),
                int(values["places"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "invalid_calibration", f"the calibration stored in the map is damaged: {error!r}"
            ) from error
        if not all(map(math.isfinite, (found.threshold, found.margin, found.clear))):
            raise InputError("invalid_calibration", "the map's calibration is not finite")
        return found


def default_calibration(length: int, places: int = 0) -> Calibration:
    """Cautious thresholds for a map too small to calibrate itself (our reading).

    Impostor scores shrink with the square root of the sequence length, like the mean of independent
    numbers; the constants lie above the impostors of Nordland, with room for the doubt that a map
    of a few places leaves about its own spread.
    """
    threshold = 2.0 + 6.0 / math.sqrt(length)
    margin = 1.0 + 2.0 / length
    return Calibration(threshold, margin, threshold, length, "default", 0, places)


def calibrate_from_map(
    index: PlaceIndex, layout: Layout, sequence: SequenceConfig, decision: DecisionConfig
) -> Calibration:
    """Thresholds from the map alone.

    Args:
        index: the places.
        layout: their sessions and positions.
        sequence: sequence length and velocities.
        decision: neighbourhood and radius within which two places count as the same.

    Returns:
        Calibration with source ``"map"``, or the default if fewer than 50 answers can be had.
    """
    found = None
    for found in calibration_steps(index, layout, sequence, decision):  # noqa: B007
        pass
    assert found is not None  # noqa: S101
    return found


def calibration_steps(
    index: PlaceIndex, layout: Layout, sequence: SequenceConfig, decision: DecisionConfig
) -> Iterator[Calibration | None]:
    """:func:`calibrate_from_map` in steps of some milliseconds, for use between two images.

    Works on copies made now: the index may change between the steps.

    Returns:
        Yields None after every step, and the calibration after the last.
    """
    places = min(len(index), MOST_PLACES)
    # The newest part of a large map: rows that follow one another, so that sequences are real.
    first = len(index) - places
    part = Layout(
        layout.order[first:].copy(),
        layout.session[first:].copy(),
        None if layout.position is None else layout.position[first:].copy(),
    )
    vectors = index.vectors(np.arange(first, len(index)))
    return _steps(index, vectors, part, sequence, decision)


def _steps(
    index: PlaceIndex,
    vectors: NDArray[Any],
    layout: Layout,
    sequence: SequenceConfig,
    decision: DecisionConfig,
) -> Iterator[Calibration | None]:
    places, total = len(vectors), len(index)
    length = sequence.length
    window = decision.neighbourhood + length
    scores: list[float] = []
    margins: list[float] = []
    run = length - 1 + STRETCH
    for start in np.unique(np.linspace(0, max(places - run, 0), STRETCHES).astype(int)):
        stretch = np.arange(start, min(start + run, places))
        if stretch.size < length or layout.session[stretch[0]] != layout.session[stretch[-1]]:
            continue
        matched = match_sequences(
            index.similarity(vectors[stretch], vectors), sequence, layout.session
        )
        for row in range(length - 1, stretch.size):
            own = _surroundings(layout, int(stretch[row]), window, decision.same_place_m)
            if places - own.sum() < window:
                continue
            ranking = retrieve(
                matched[row : row + 1],
                own[None],
                1,
                window=decision.neighbourhood,
                radius=decision.same_place_m,
                layout=layout,
            )
            if np.isfinite(ranking.margin[0]):
                scores.append(float(ranking.scores[0, 0]))
                margins.append(float(ranking.margin[0]))
        yield None
    cautious = default_calibration(length, total)
    if len(scores) < 50:
        yield cautious
        return
    clear = min(_score_limit(scores, CLEAR_SPREADS), cautious.threshold)
    doubt = CLEAR_PRIOR_PLACES / (CLEAR_PRIOR_PLACES + places)
    yield Calibration(
        min(_score_limit(scores, SCORE_SPREADS), cautious.threshold),
        min(_margin_limit(margins), cautious.margin),
        clear + doubt * (cautious.threshold - clear),
        length,
        "map",
        len(scores),
        total,
    )


def _surroundings(layout: Layout, column: int, window: int, radius: float) -> NDArray[np.bool_]:
    """Columns that show, or may show, the same place."""
    near: NDArray[np.bool_] = np.abs(layout.order - layout.order[column]) <= window
    other: NDArray[np.bool_] = layout.session != layout.session[column]
    if layout.position is not None:
        distance = np.linalg.norm(layout.position - layout.position[column], axis=1)
        near |= distance <= radius
        other &= np.isnan(distance)
    return near | other


def _score_limit(scores: list[float], spreads: float) -> float:
    quartile, median = np.quantile(scores, [0.25, 0.5])
    return float(median + spreads * (median - quartile))


def _margin_limit(margins: list[float]) -> float:
    return float(np.median(margins)) * math.log2(1.0 / IMPOSTOR_RATE)


def calibrate_from_labels(
    scores: NDArray[np.float32],
    margins: NDArray[np.float32],
    correct: NDArray[np.bool_],
    precision: float,
    length: int,
    places: int,
) -> Calibration:
    """Thresholds with the highest recall at a wanted precision.

    Args:
        scores: best score of each query, [queries].
        margins: its margin, [queries].
        correct: whether the best place was right, [queries].
        precision: share of accepted answers that must be right, 0 to 1.
        length: sequence length that the scores were made with.
        places: places of the map.

    Raises:
        InputError: ``calibration_impossible`` if no thresholds reach the precision.
    """
    steps = np.linspace(0.0, 1.0, 101)
    finite = np.where(np.isfinite(margins), margins, np.float32(np.finfo(np.float32).max))
    best: tuple[int, float, float] | None = None
    if scores.size:
        for threshold in np.quantile(scores, steps):
            reached = scores >= threshold
            for margin in np.quantile(finite, steps):
                accepted = reached & (finite >= margin)
                right = int(correct[accepted].sum())
                wanted = right > 0 and right >= precision * accepted.sum()
                if wanted and (best is None or right > best[0]):
                    best = (right, float(threshold), float(margin))
    if best is None:
        raise InputError(
            "calibration_impossible",
            f"no thresholds reach precision {precision:g} over these {scores.size} queries; ask "
            "for less, use longer sequences, or another descriptor",
        )
    return Calibration(best[1], best[2], best[1], length, "labels", int(scores.size), places)
