# SPDX-License-Identifier: Apache-2.0
"""Figures of the reports. Each function draws on an empty matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spike_perception.evaluation.metrics import (
    NO_TRUE_PLACE,
    Matches,
    PrecisionRecall,
    Scores,
    Truth,
    recall_at,
)
from spike_perception.evaluation.report import Palette, Strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_CELLS = 640  # a matrix is pooled to so many cells a side: more are not told apart


def draw_precision_recall(
    figure: Figure, _: Palette, curves: Mapping[str, PrecisionRecall]
) -> None:
    """Precision over recall of one or several runs, R@100P marked."""
    axes = figure.subplots()
    for name, curve in curves.items():
        if not len(curve.recall):
            axes.plot([], [], label=f"{name}: nothing to show")
            continue
        area = curve.average_precision()
        (line,) = axes.step(
            np.concatenate([[0.0], curve.recall]),
            np.concatenate([curve.precision[:1], curve.precision]),
            where="pre",
            label=f"{name}: AP {area:.3f}",
        )
        full = curve.recall_at_full_precision()
        if full:
            axes.plot([full], [1.0], "o", color=line.get_color(), clip_on=False, zorder=5)
    axes.set(
        xlabel="recall (of queries with a match)", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02)
    )
    axes.legend(loc="lower left")


def draw_recall_at_k(figure: Figure, _: Palette, runs: Mapping[str, Matches], places: int) -> None:
    """Recall@K over K of one or several runs, over all queries."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    ks = np.arange(1, min(25, places) + 1)
    for name, matches in runs.items():
        recall = [share for k in ks if (share := recall_at(matches, int(k))) is not None]
        if not recall:
            axes.plot([], [], label=f"{name}: {NO_TRUE_PLACE}")
            continue
        axes.plot(ks, recall, marker="o", markersize=3.5, label=f"{name}: R@1 {recall[0]:.3f}")
    axes.set(xlabel="K", ylabel="recall@K (of all queries)", ylim=(0, 1.02))
    axes.set_xlim(0.5, max(2, ks[-1]) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right")


def draw_scores(
    figure: Figure, palette: Palette, matches: Matches, threshold: float | None
) -> None:
    """Histograms of the best scores of right and of wrong matches, with a threshold."""
    axes = figure.subplots()
    answered = matches.answered
    if answered.any():
        score = matches.score[answered]
        bins = np.histogram_bin_edges(score, bins=40).tolist()
        for correct, name, colour in (
            (True, "right", palette.right),
            (False, "wrong", palette.wrong),
        ):
            part = score[matches.correct[answered] == correct]
            axes.hist(part, bins, color=colour, alpha=0.35, label=f"{name} ({len(part):,})")
            axes.hist(part, bins, color=colour, histtype="step", linewidth=1.5)
        if threshold is not None:
            label = f"largest F1 at {threshold:.3g}"
            axes.axvline(threshold, color=palette.ink, linestyle="--", linewidth=1.2, label=label)
        figure.legend(loc="outside upper center", ncols=3, fontsize=9, columnspacing=1.2)
    axes.set(xlabel="score of the best match", ylabel="queries")


def draw_similarity(
    figure: Figure, palette: Palette, scores: Scores, truth: Truth, matches: Matches
) -> None:
    """Score matrix beside itself with the ground truth and the matches drawn in."""
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    pooled = _pooled(scores)
    finite = pooled[np.isfinite(pooled)]
    low, high = np.percentile(finite, (5, 99.5)) if len(finite) else (0.0, 1.0)
    extent = (-0.5, scores.shape[1] - 0.5, scores.shape[0] - 0.5, -0.5)
    image = left.imshow(
        np.ma.masked_invalid(pooled),
        cmap="viridis",
        vmin=low,
        vmax=max(high, low + 1e-9),
        extent=extent,
        aspect="auto",
        interpolation="nearest",
    )
    figure.colorbar(image, ax=left, location="left", shrink=0.6, pad=0.02)
    true = _pooled(truth.astype(np.float32))
    overlay = np.zeros((*true.shape, 4), np.float32)
    overlay[true > 0] = _rgba(palette.muted, 0.55)
    right.imshow(overlay, extent=extent, aspect="auto", interpolation="nearest")
    answered = np.flatnonzero(matches.answered)
    wrong = answered[~matches.correct[answered]]
    correct = answered[matches.correct[answered]]
    size = float(np.clip(3000 / max(len(matches.rank), 1), 2.0, 24.0))
    right.scatter(matches.place[wrong], wrong, s=size, marker="x", lw=0.8, color=palette.wrong)
    right.scatter(matches.place[correct], correct, s=size, color=palette.right, lw=0)
    right.plot([], [], "s", color=palette.muted, alpha=0.55, label="ground truth")
    right.plot([], [], "o", ms=5, color=palette.right, label=f"right ({len(correct):,})")
    right.plot([], [], "x", ms=5, color=palette.wrong, label=f"wrong ({len(wrong):,})")
    figure.legend(loc="outside lower right", ncols=3, handletextpad=0.3)
    for axes, title in ((left, "scores"), (right, "best matches")):
        axes.grid(visible=False)
        axes.set_xlabel("reference place")
        axes.set_title(title, fontsize=10.5, color=palette.muted)
    left.set_ylabel("query")


def draw_trajectory(
    figure: Figure,
    palette: Palette,
    reference: npt.NDArray[np.float64],
    query: npt.NDArray[np.float64],
    matched: npt.NDArray[np.int64],
    correct: npt.NDArray[np.bool_],
) -> None:
    """Both drives seen from above, with a line from every matched query to its place.

    Args:
        figure: the empty figure.
        palette: colours.
        reference: float64 ``[P, 2]`` or more columns, positions of the places (m).
        query: float64 ``[Q, 2]`` or more columns, positions of the queries (m).
        matched: int64 ``[Q]``, matched place, -1 for none.
        correct: bool ``[Q]``, whether the match is right.
    """
    from matplotlib.collections import LineCollection

    axes = figure.subplots()
    axes.plot(reference[:, 0], reference[:, 1], color=palette.series[0], label="reference")
    axes.plot(query[:, 0], query[:, 1], color=palette.series[1], label="query")
    for wanted, colour, name in ((True, palette.right, "right"), (False, palette.wrong, "wrong")):
        at = np.flatnonzero((matched >= 0) & (correct == wanted))
        lines = np.stack([query[at, :2], reference[matched[at], :2]], axis=1)
        axes.add_collection(LineCollection(list(lines), colors=colour, linewidths=0.8))
        axes.plot([], [], color=colour, linewidth=0.8, label=f"{name} ({len(at):,})")
    axes.set(xlabel="x (m)", ylabel="y (m)")
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="best")


def draw_strips(figure: Figure, palette: Palette, strips: Sequence[Strip]) -> None:
    """Rows of images with frames in the colour of their verdict."""
    columns = max(len(strip.frames) for strip in strips)
    grid: Any = figure.subplots(len(strips), columns, squeeze=False)
    colours = {"right": palette.right, "wrong": palette.wrong, "plain": palette.muted}
    for row, strip in zip(grid, strips, strict=True):
        for axes in row:
            axes.set_axis_off()
        for number, (axes, frame) in enumerate(zip(row, strip.frames, strict=False)):
            axes.set_axis_on()
            axes.imshow(frame.image, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            # The caption has the line above the labels to itself and may run across the row.
            title = axes.set_title(
                f"{'' if number else strip.caption}\n{frame.label}",
                fontsize=7.5,
                color=palette.ink,
                loc="left",
            )
            title.set_in_layout(False)
            axes.spines[:].set(visible=True, color=colours[frame.verdict], linewidth=3)


def _pooled(matrix: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Maximum over blocks, so that a thin ridge survives the shrinking."""
    for axis in (0, 1):
        length = matrix.shape[axis]
        if length > _MAX_CELLS:
            starts = np.linspace(0, length, _MAX_CELLS, endpoint=False).astype(np.int64)
            matrix = np.maximum.reduceat(matrix, starts, axis=axis)
    return np.asarray(matrix, np.float32)


def _rgba(colour: str, alpha: float) -> tuple[float, float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue, alpha
