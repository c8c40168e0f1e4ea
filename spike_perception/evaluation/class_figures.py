# SPDX-License-Identifier: Apache-2.0
"""Figures of the report on classification. Each function draws on an empty matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spike_perception.evaluation.metrics import Reliability, roc
from spike_perception.evaluation.open_set import Separation
from spike_perception.evaluation.report import Palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_BARS = 40
_MAX_NAMES = 30  # rows of a confusion matrix whose names can still be read
_MAX_NUMBERS = 16  # rows of a confusion matrix whose cells can hold a number


def draw_reliability(figure: Figure, palette: Palette, found: Reliability) -> None:
    """Accuracy over confidence in bins, with the number of answers in each bin below."""
    bins = len(found.count)
    centres = (np.arange(bins) + 0.5) / bins
    grid: Any = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    top, bottom = grid
    filled = found.count > 0
    top.plot([0, 1], [0, 1], "--", color=palette.muted, linewidth=1.2, label="calibrated")
    top.bar(
        centres[filled],
        found.accuracy[filled],
        width=0.92 / bins,
        color=palette.series[0],
        label="accuracy",
    )
    gap = found.confidence - found.accuracy
    top.bar(
        centres[filled],
        gap[filled],
        bottom=found.accuracy[filled],
        width=0.92 / bins,
        color="none",
        edgecolor=palette.wrong,
        hatch="////",
        linewidth=0.8,
        label="gap",
    )
    top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    top.legend(loc="upper left", fontsize=9)
    bottom.bar(centres, found.count, width=0.92 / bins, color=palette.muted)
    bottom.set(xlabel="confidence", ylabel="images")


def draw_confusion(
    figure: Figure,
    _: Palette,
    matrix: npt.NDArray[np.int64],
    rows: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Shares of each true class's images by answer.

    Args:
        figure: the empty figure.
        matrix: int64 ``[rows, columns]``, number of images.
        rows: true classes.
        columns: answers.
    """
    axes = figure.subplots()
    total = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    share = matrix / total
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    axes.grid(visible=False)
    axes.set(xlabel="said", ylabel="true")
    if len(rows) <= _MAX_NAMES:
        axes.set_yticks(range(len(rows)), [_short(name) for name in rows], fontsize=8)
        names = [_short(name) for name in columns]
        axes.set_xticks(range(len(columns)), names, fontsize=8, rotation=60, ha="right")
    if len(rows) <= _MAX_NUMBERS:
        for (row, column), value in np.ndenumerate(share):
            if matrix[row, column]:
                ink = "#ffffff" if value > 0.5 else "#1c2430"
                text = f"{100 * value:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)


def draw_rejection(
    figure: Figure, palette: Palette, methods: Mapping[str, Separation], used: str
) -> None:
    """ROC of each rejection method, averaged over the splits; single splits of the one in use."""
    axes = figure.subplots()
    false = np.linspace(0, 1, 401)
    axes.plot([0, 1], [0, 1], "--", color=palette.muted, linewidth=1.0)
    for (name, separation), colour in zip(methods.items(), palette.series, strict=False):
        curves = [np.interp(false, *roc(*scores)) for scores in separation.splits]
        if name == used:
            for curve in curves:
                axes.plot(false, curve, color=colour, linewidth=0.6, alpha=0.4)
        area = separation.summary()["auroc"]
        label = f"{name}: {area:.3f}" + (" (in use)" if name == used else "")
        axes.plot(
            false,
            np.mean(curves, axis=0),
            color=colour,
            linewidth=2.4 if name == used else 1.3,
            label=label,
        )
    axes.set(xlabel="unknown taken for known", ylabel="known accepted", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower right", fontsize=9, title="AUROC", title_fontsize=9)


def draw_latency(figure: Figure, palette: Palette, seconds: npt.NDArray[np.float64]) -> None:
    """Histogram of the times of single images, without the slowest hundredth."""
    axes = figure.subplots()
    values = seconds * 1e3
    top = float(np.percentile(values, 99)) if len(values) > 1 else float(values.max())
    axes.hist(values[values <= top], bins=40, color=palette.series[0])
    for share, style in ((50, "-"), (95, "--")):
        at = float(np.percentile(values, share))
        axes.axvline(
            at, color=palette.ink, linestyle=style, linewidth=1.2, label=f"p{share} {at:.2f} ms"
        )
    axes.set(xlabel="time of an image (ms)", ylabel="images")
    axes.legend(loc="upper right")


def draw_class_bars(
    figure: Figure, palette: Palette, names: Sequence[str], accuracy: Sequence[float]
) -> None:
    """Accuracy of each class, worst at the bottom; of many classes the best and the worst."""
    axes = figure.subplots()
    order = np.argsort(np.asarray(accuracy), kind="stable")
    left_out = len(order) - _MAX_BARS
    if left_out > 0:
        order = np.concatenate([order[: _MAX_BARS // 2], order[-_MAX_BARS // 2 :]])
        axes.axhline(_MAX_BARS // 2 - 0.5, color=palette.ink, linewidth=1.0)
        axes.text(
            1.0, _MAX_BARS // 2 - 0.4, f"{left_out} more", ha="right", va="bottom", fontsize=8
        )
    values = [accuracy[k] for k in order]
    axes.barh(range(len(order)), values, color=palette.series[0], height=0.8)
    axes.set_yticks(range(len(order)), [_short(names[k]) for k in order], fontsize=8)
    mean = float(np.mean(np.asarray(accuracy)))
    axes.axvline(mean, color=palette.ink, linestyle="--", linewidth=1.2, label=f"mean {mean:.3f}")
    axes.set(xlabel="top-1", xlim=(0, 1), ylim=(-0.6, len(order) - 0.4))
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper right", fontsize=9)


def draw_few_shot(figure: Figure, palette: Palette, rows: Sequence[Mapping[str, Any]]) -> None:
    """Top-1 over the number of examples a class, with its spread over seeds."""
    axes = figure.subplots()
    shots = [int(row["shots"]) for row in rows]
    mean = np.array([float(row["top_1"]) for row in rows])
    spread = np.array([float(row["top_1_std"]) for row in rows])
    at = range(len(shots))
    axes.fill_between(at, mean - spread, mean + spread, color=palette.series[0], alpha=0.2)
    axes.plot(at, mean, marker="o", color=palette.series[0], label="word and examples")
    alone = [float(row["examples_alone_top_1"]) for row in rows if row["shots"]]
    axes.plot(at[1:], alone, "--s", color=palette.series[1], label="examples alone")
    axes.set_xticks(at, [str(n) if n else "0 (word)" for n in shots])
    axes.set(xlabel="examples of each class", ylabel="top-1", ylim=(0, 1.02))
    axes.legend(loc="lower right")


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:20]}\N{HORIZONTAL ELLIPSIS}"
