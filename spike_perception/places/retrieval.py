# SPDX-License-Identifier: Apache-2.0
"""From scores to an answer: pure functions of a score matrix and an invalid mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Layout:
    """Where the columns of a score matrix lie in the map.

    Attributes:
        order: int64 [places], position of each column in the map, ascending.
        session: int64 [places], session of each column.
        position: float64 [places, 3] in metres, NaN where unknown; or None. All in one frame.
    """

    order: NDArray[np.int64]
    session: NDArray[np.int64]
    position: NDArray[np.float64] | None = None

    @classmethod
    def single(cls, places: int) -> Layout:
        """One unbroken session of that many places, without poses."""
        return cls(np.arange(places), np.zeros(places, dtype=np.int64))


@dataclass(frozen=True)
class Ranking:
    """The best columns of every row.

    Attributes:
        columns: int64 [queries, k], best first; -1 where fewer than k columns are valid.
        scores: float32 [queries, k]; -inf where the column is -1.
        margin: float32 [queries], best score minus best score of a different place; inf without
            any different place, NaN without any valid column.
    """

    columns: NDArray[np.int64]
    scores: Floats
    margin: Floats


def best_columns(scores: Floats, invalid: Mask | None, k: int) -> tuple[NDArray[np.int64], Floats]:
    """The k best valid columns of every row, best first; ties go to the lower column.

    Args:
        scores: [queries, places], greater is better.
        invalid: [queries, places] or None, True where a column must not be used.
        k: columns wanted; may exceed the number of places.

    Returns:
        Columns int64 [queries, k] (-1 where there is none) and scores float32 [queries, k].
    """
    queries, places = scores.shape
    usable = scores if invalid is None else np.where(invalid, np.float32(-np.inf), scores)
    columns = np.full((queries, k), -1, dtype=np.int64)
    best = np.full((queries, k), -np.inf, dtype=np.float32)
    kept = min(k, places)
    if kept == 0 or queries == 0:
        return columns, best
    if kept < places:
        # argpartition breaks ties at random places of its own; taking all that reach the k-th
        # score and sorting those stably keeps the answer independent of the path to it.
        reach = np.partition(usable, places - kept, axis=1)[:, places - kept]
    else:
        reach = np.full(queries, -np.inf, dtype=np.float32)
    for row in range(queries):
        found = np.flatnonzero((usable[row] >= reach[row]) & (usable[row] > -np.inf))
        order = found[np.argsort(-usable[row, found], kind="stable")[:kept]]
        columns[row, : order.size] = order
        best[row, : order.size] = usable[row, order]
    return columns, best


def rivals(column: int, layout: Layout, window: int, radius: float) -> Mask:
    """Columns that are a different place than ``column``.

    Where both positions are known, a different place is one farther than ``radius`` metres.
    Otherwise it is one of the same session and more than ``window`` places away: whether two
    sessions without poses show the same place is not known, so they are not held against
    each other.
    """
    far = np.abs(layout.order - layout.order[column]) > window
    different: Mask = far & (layout.session == layout.session[column])
    if layout.position is None or not np.isfinite(layout.position[column]).all():
        return different
    distance = np.linalg.norm(layout.position - layout.position[column], axis=1)
    return np.asarray(np.where(np.isfinite(distance), distance > radius, different))


def retrieve(
    scores: Floats,
    invalid: Mask | None,
    k: int,
    *,
    window: int = 10,
    radius: float = 5.0,
    layout: Layout | None = None,
) -> Ranking:
    """Rank the places for every query and say how far the best leads.

    Args:
        scores: float32 [queries, places], greater is better.
        invalid: bool [queries, places] or None, True where a place must not be used.
        k: places wanted per query.
        window: see :func:`rivals`.
        radius: see :func:`rivals`, in metres.
        layout: sessions and positions; None for one session without poses.

    Returns:
        The ranking; rows without a valid place have columns -1 and margin NaN.
    """
    layout = Layout.single(scores.shape[1]) if layout is None else layout
    columns, best = best_columns(scores, invalid, k)
    margin = np.full(len(scores), np.nan, dtype=np.float32)
    for row in range(len(scores)):
        if k < 1 or columns[row, 0] < 0:
            continue
        different = rivals(int(columns[row, 0]), layout, window, radius)
        if invalid is not None:
            different &= ~invalid[row]
        rival = scores[row, different].max() if different.any() else -np.inf
        margin[row] = best[row, 0] - rival
    return Ranking(columns, best, margin)
