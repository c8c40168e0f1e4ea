# SPDX-License-Identifier: Apache-2.0
"""Names over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spike_perception.evaluation.report import Palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_ROWS = 40  # words whose names can still be read


def draw_names(
    figure: Figure,
    palette: Palette,
    seconds: npt.NDArray[np.float64],
    said: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    words: Sequence[str],
    unknown: npt.NDArray[np.bool_] | None = None,
) -> None:
    """True and named words over time: a row a word, bars for the truth, dots for the names.

    Args:
        figure: the empty figure.
        palette: colours.
        seconds: float64 ``[N]``, time of each answer (s).
        said: int64 ``[N]``, index of the word named, -1 for none.
        labels: int64 ``[N]``, index of the true word, -1 where it is not known.
        words: the vocabulary; of more words than there is room for, the most frequent are drawn.
        unknown: bool ``[N]``, answers that are drawn hollow, as called unknown.
    """
    axes = figure.subplots()
    used = np.concatenate([labels[labels >= 0], said[said >= 0]])
    found, counts = np.unique(used, return_counts=True)
    rows = np.sort(found[np.argsort(-counts, kind="stable")[:_MOST_ROWS]])
    row = np.full(len(words) + 1, np.nan)  # the last one is the -1 of none
    row[rows] = np.arange(len(rows))
    if (labels >= 0).any():
        axes.scatter(
            seconds, row[labels], marker="s", s=34, color=palette.muted, alpha=0.4, label="true"
        )
    hollow = np.zeros(len(said), np.bool_) if unknown is None else unknown
    groups = (
        ((labels >= 0) & (said == labels), palette.right, "named, right"),
        ((labels >= 0) & (said != labels), palette.wrong, "named, wrong"),
        (labels < 0, palette.series[0], "named"),
    )
    for group, colour, name in groups:
        for chosen, face, note in ((~hollow, colour, ""), (hollow, "none", ", unknown")):
            at = np.flatnonzero(group & chosen & (said >= 0))
            if len(at):
                axes.scatter(
                    seconds[at], row[said[at]], s=9, facecolors=face, edgecolors=colour,
                    linewidths=0.8, label=f"{name}{note} ({len(at):,})",
                )  # fmt: skip
    axes.set_yticks(range(len(rows)), [words[k] for k in rows], fontsize=8)
    axes.set(xlabel="time (s)", ylim=(max(len(rows), 1) - 0.4, -0.6))
    figure.legend(loc="outside upper center", ncols=4, fontsize=9)


def timeline_size(words: int) -> tuple[float, float]:
    """Width and height (inch) of the figure for so many words that are named."""
    return 9.0, float(np.clip(1.6 + 0.24 * words, 3.0, 8.0))
