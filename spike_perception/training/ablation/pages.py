# SPDX-License-Identifier: Apache-2.0
"""Table in Markdown, plots and report page of an ablation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spike_perception.evaluation.provenance import provenance
from spike_perception.evaluation.report import Palette, open_report
from spike_perception.training.ablation.comparison import Comparison
from spike_perception.training.ablation.rows import ROWS, WHOLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE = "ablation.md"


def write_pages(found: Comparison, out: Path) -> Path:
    """Write ``ablation.md``, ``ablation.png``, ``variants.png`` and ``report.html``.

    Args:
        found: the finished runs.
        out: folder.

    Returns:
        Path of the page.

    Raises:
        InputError: ``output_unwritable``.
    """
    report = open_report(
        out,
        "Ablation of the VL2Spike losses",
        f"one student, one recipe, the same labelled images; teacher {found.teacher}",
    )
    report.headline("mean gain of all terms", _points(found.mean_gain(WHOLE)), "over sets, seeds")
    for name in found.sets:
        report.headline(
            f"gain on {name}",
            _points(found.mean_gain(WHOLE, [name])),
            f"over {found.baseline(name) or 'nothing'}",
        )
    report.headline("runs", found.runs)
    columns, rows = found.table()
    report.table(
        "Accuracy by losses",
        columns,
        rows,
        note="Test accuracy (%), mean and standard deviation over seeds. Gains are over the "
        "stronger row that learns from labels alone, with the same seed. Energy is estimated.",
    )
    if found.cells:
        report.figure(
            "Every seed",
            "ablation",
            lambda figure, palette: _draw_rows(figure, palette, found),
            note="A dot is a run, the line the mean; the dashed line the stronger baseline.",
            size=(max(5.2, 2.2 + 3.0 * len(found.sets)), 1.4 + 0.42 * len(found.rows)),
        )
    columns, rows = found.gain_table()
    report.table("Gain of all terms, seed by seed (points)", columns, rows)
    columns, rows = found.seed_table()
    report.table("Accuracy of every run (%)", columns, rows, folded=True)
    if found.variants:
        columns, rows = found.variant_table()
        report.table(f"Time steps T and levels D on {found.grid_set}", columns, rows)
        report.figure(
            f"Accuracy against energy on {found.grid_set}",
            "variants",
            lambda figure, palette: _draw_variants(figure, palette, found),
            note="Each dot is one T x D; energy is estimated, of one image.",
            size=(7.0, 4.4),
        )
    page = report.write({"config": {"command": found.command}, **found.summary(), **provenance()})
    (out / TABLE).write_text(found.markdown(), encoding="utf-8")
    return page or out / TABLE


def _points(value: float | None) -> str | None:
    return None if value is None else f"{value:+.2f} points"


def _draw_rows(figure: Figure, palette: Palette, found: Comparison) -> None:
    """One panel a set: accuracy of every row, seed by seed."""
    panels = figure.subplots(1, len(found.sets), sharey=True, squeeze=False)[0]
    places = {row: len(found.rows) - 1 - index for index, row in enumerate(found.rows)}
    for axes, name in zip(panels, found.sets, strict=True):
        for row, place in places.items():
            cell = found.cells.get((row, name))
            if cell is None:
                continue
            colour = palette.series[1] if row == WHOLE else palette.series[0]
            values = [100 * each for each in cell.accuracies.values()]
            axes.plot(values, [place] * len(values), "o", color=colour, alpha=0.55, markersize=5)
            axes.plot([100 * cell.mean] * 2, [place - 0.3, place + 0.3], color=colour)
        baseline = found.baseline(name)
        if baseline is not None:
            mean = 100 * found.cells[baseline, name].mean
            axes.axvline(mean, color=palette.muted, linestyle="--", linewidth=1.2)
        axes.set(xlabel="accuracy (%)", title=name)
        axes.grid(visible=False, axis="y")
    panels[0].set_yticks(list(places.values()), [ROWS[row].title for row in places])


def _draw_variants(figure: Figure, palette: Palette, found: Comparison) -> None:
    """Accuracy over energy, one line a row and D."""
    axes = figure.subplots()
    rows = list(dict.fromkeys(each.row for each in found.variants))
    for number, row in enumerate(rows):
        own = [each for each in found.variants if each.row == row]
        axes.plot(
            [each.energy_mj for each in own],
            [100 * each.accuracy for each in own],
            "o",
            color=palette.series[number % len(palette.series)],
            label=ROWS[row].title,
        )
        for each in own:
            axes.annotate(
                f"{each.steps}x{each.levels}",
                (each.energy_mj, 100 * each.accuracy),
                textcoords="offset points",
                xytext=(5, 4),
                fontsize=8,
                color=palette.muted,
            )
    axes.set(xlabel="estimated energy of one image (mJ)", ylabel="accuracy (%)", xscale="log")
    axes.legend()
