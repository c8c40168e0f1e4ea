# SPDX-License-Identifier: Apache-2.0
"""Finished runs side by side: means over seeds, gains over labels alone, variants of T and D.

A gain is in points of accuracy, on the same set with the same seed, over the stronger of the rows
that learn from labels alone; which one is stronger is decided set by set on the mean over seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spike_perception.training.ablation.rows import BASELINES, ROWS, WHOLE


@dataclass(frozen=True)
class Cell:
    """One row on one set.

    Attributes:
        accuracies: by seed (share).
        energy_ratio: estimated energy over that of the ANN twin, mean over seeds.
        mean_rate: spikes per neuron and time step, mean over seeds.
    """

    accuracies: Mapping[int, float]
    energy_ratio: float
    mean_rate: float

    @property
    def mean(self) -> float:
        """Mean accuracy over seeds."""
        return statistics.fmean(self.accuracies.values())

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds (n - 1); 0 for one."""
        values = list(self.accuracies.values())
        return statistics.stdev(values) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Variant:
    """One T and D of a row on the set of the variants.

    Attributes:
        row: name of the row.
        steps: T.
        levels: D.
        accuracy: mean over seeds (share).
        energy_mj: estimated energy of one image, mean over seeds (mJ).
        energy_ratio: that over the ANN twin's.
        mean_rate: spikes per neuron and time step.
    """

    row: str
    steps: int
    levels: int
    accuracy: float
    energy_mj: float
    energy_ratio: float
    mean_rate: float


@dataclass(frozen=True)
class Comparison:
    """All finished runs.

    Attributes:
        command: that made them.
        teacher: its name.
        described: the sets.
        sets: their names, in order.
        rows: rows of the table, in order.
        size: T and D of the table.
        cells: by row and set.
        variants: of T and D, in order.
        grid_set: set of the variants.
        runs: how many runs there are.
    """

    command: str
    teacher: str
    described: Mapping[str, Mapping[str, Any]]
    sets: tuple[str, ...]
    rows: tuple[str, ...]
    size: tuple[int, int]
    cells: Mapping[tuple[str, str], Cell]
    variants: tuple[Variant, ...]
    grid_set: str
    runs: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Comparison:
        """From the document of ``results.json``."""
        runs = list(document["runs"])
        sizes = [(int(each["steps"]), int(each["levels"])) for each in runs]
        # The table's size is the one that most runs have.
        size = max(dict.fromkeys(sizes), key=sizes.count) if sizes else (0, 0)
        table = [each for each, own in zip(runs, sizes, strict=True) if own == size]
        sets = tuple(dict.fromkeys(each["set"] for each in table))
        rows = tuple(row for row in ROWS if any(each["row"] == row for each in table))
        cells = {}
        for row in rows:
            for name in sets:
                found = [each for each in table if (each["row"], each["set"]) == (row, name)]
                if found:
                    cells[row, name] = Cell(
                        {int(each["seed"]): float(each["accuracy"]) for each in found},
                        _mean(found, "energy_ratio"),
                        _mean(found, "mean_rate"),
                    )
        odd = [each for each, own in zip(runs, sizes, strict=True) if own != size]
        grid_set = odd[0]["set"] if odd else ""
        variants = []
        if odd:
            rows_of = {each["row"] for each in odd}
            seeds = {each["seed"] for each in odd}
            parts = [
                each
                for each in runs
                if each["set"] == grid_set and each["row"] in rows_of and each["seed"] in seeds
            ]
            for row in (row for row in ROWS if row in rows_of):
                own = [each for each in parts if each["row"] == row]
                for steps, levels in sorted({(e["steps"], e["levels"]) for e in own}):
                    same = [e for e in own if (e["steps"], e["levels"]) == (steps, levels)]
                    variants.append(
                        Variant(
                            row,
                            steps,
                            levels,
                            _mean(same, "accuracy"),
                            _mean(same, "energy_mj"),
                            _mean(same, "energy_ratio"),
                            _mean(same, "mean_rate"),
                        )
                    )
        return cls(
            document["command"],
            document["teacher"]["name"],
            document["sets"],
            sets,
            rows,
            size,
            cells,
            tuple(variants),
            grid_set,
            len(runs),
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of the table."""
        return tuple(sorted({seed for cell in self.cells.values() for seed in cell.accuracies}))

    def baseline(self, name: str) -> str | None:
        """The stronger row without teacher on a set."""
        found = [row for row in BASELINES if (row, name) in self.cells]
        return max(found, key=lambda row: self.cells[row, name].mean) if found else None

    def gain(self, row: str, name: str, seed: int) -> float | None:
        """Points gained over the baseline with the same seed; None if a run is missing."""
        baseline = self.baseline(name)
        if baseline is None or (row, name) not in self.cells:
            return None
        mine = self.cells[row, name].accuracies.get(seed)
        other = self.cells[baseline, name].accuracies.get(seed)
        return None if mine is None or other is None else 100.0 * (mine - other)

    def mean_gain(
        self, row: str, sets: Iterable[str] | None = None, seeds: Iterable[int] | None = None
    ) -> float | None:
        """Mean over sets and seeds; None unless every run of them is finished."""
        found = [
            self.gain(row, name, seed)
            for name in (self.sets if sets is None else sets)
            for seed in (self.seeds if seeds is None else seeds)
        ]
        given = [each for each in found if each is not None]
        return statistics.fmean(given) if given and len(given) == len(found) else None

    def table(self) -> tuple[list[str], list[list[str | float | None]]]:
        """The table: accuracy of each row on each set, gain, energy and rate."""
        columns = [
            "losses", *self.sets, "mean gain (points)", "energy / ANN twin", "spikes a neuron, step"
        ]  # fmt: skip
        rows: list[list[str | float | None]] = []
        for row in self.rows:
            own = [self.cells[row, name] for name in self.sets if (row, name) in self.cells]
            gain = self.mean_gain(row)
            rows.append(
                [
                    ROWS[row].title,
                    *(self._shown(row, name) for name in self.sets),
                    None if gain is None else f"{gain:+.2f}",
                    f"{statistics.fmean(each.energy_ratio for each in own):.3f}",
                    f"{statistics.fmean(each.mean_rate for each in own):.3f}",
                ]
            )
        return columns, rows

    def seed_table(self) -> tuple[list[str], list[list[str | float | None]]]:
        """Accuracy (%) of every row, set and seed, each in a cell of its own."""
        columns = ["losses", *(f"{name}, seed {seed}" for name in self.sets for seed in self.seeds)]
        rows: list[list[str | float | None]] = []
        for row in self.rows:
            line: list[str | float | None] = [ROWS[row].title]
            for name in self.sets:
                cell = self.cells.get((row, name))
                found = [cell.accuracies.get(seed) if cell else None for seed in self.seeds]
                line += [None if each is None else f"{100 * each:.2f}" for each in found]
            rows.append(line)
        return columns, rows

    def gain_table(self) -> tuple[list[str], list[list[str | float | None]]]:
        """Gain of the whole over cross-entropy alone, by seed and set."""
        columns = ["seed", *(f"{n} (over {self.baseline(n)})" for n in self.sets), "mean of sets"]
        rows: list[list[str | float | None]] = []
        for seed in self.seeds:
            gains = [self.gain(WHOLE, name, seed) for name in self.sets]
            rows.append(
                [f"{seed}", *map(_signed, gains), _signed(self.mean_gain(WHOLE, None, [seed]))]
            )
        means = [self.mean_gain(WHOLE, [name]) for name in self.sets]
        rows.append(["mean", *map(_signed, means), _signed(self.mean_gain(WHOLE))])
        return columns, rows

    def variant_table(self) -> tuple[list[str], list[list[str | float | None]]]:
        """T and D as in SVL's table 7."""
        columns = [
            "T x D", "losses", "accuracy (%)", "energy (mJ)", "energy / ANN twin",
            "spikes a neuron, step",
        ]  # fmt: skip
        rows: list[list[str | float | None]] = [
            [
                f"{each.steps} x {each.levels}",
                ROWS[each.row].title,
                f"{100 * each.accuracy:.2f}",
                f"{each.energy_mj:.4f}",
                f"{each.energy_ratio:.3f}",
                f"{each.mean_rate:.3f}",
            ]
            for each in sorted(self.variants, key=lambda v: (v.steps, v.levels))
        ]
        return columns, rows

    def summary(self) -> dict[str, Any]:
        """The figures that count, as JSON."""
        return {
            "runs": self.runs,
            "seeds": list(self.seeds),
            "sets": {
                name: {
                    **self.described.get(name, {}),
                    "baseline": self.baseline(name),
                    "accuracy": {
                        row: self.cells[row, name].mean
                        for row in self.rows
                        if (row, name) in self.cells
                    },
                    "gain": self.mean_gain(WHOLE, [name]),
                    "gain_by_seed": {str(s): self.gain(WHOLE, name, s) for s in self.seeds},
                }
                for name in self.sets
            },
            "mean_gain": self.mean_gain(WHOLE),
            "mean_gain_by_row": {row: self.mean_gain(row) for row in self.rows},
            "mean_gain_by_seed": {str(s): self.mean_gain(WHOLE, None, [s]) for s in self.seeds},
            "command": self.command,
        }

    def markdown(self) -> str:
        """All tables as Markdown."""
        steps, levels = self.size
        sets = "; ".join(_described(name, self.described.get(name, {})) for name in self.sets)
        parts = [
            f"# Ablation\n\nTest accuracy in %, mean and standard deviation over seeds "
            f"{', '.join(map(str, self.seeds))}; T = {steps}, D = {levels}. Gains are over the "
            "stronger of the rows that learn from labels alone, with the same seed. Every row has "
            "the same labelled images, and sees as many images in all; rows with a term that needs "
            "no labels draw half of them from those without label, where there are such. Energy is "
            f"estimated. Sets: {sets}.\n\n{_grid(*self.table())}",
            f"## Gain of all terms, seed by seed (points)\n\n{_grid(*self.gain_table())}",
            f"## Every seed\n\n{_grid(*self.seed_table())}",
        ]
        if self.variants:
            parts.append(
                f"## Time steps T and levels D on {self.grid_set}\n\n{_grid(*self.variant_table())}"
            )
        parts.append(f"Made by `{self.command}`.\n")
        return "\n\n".join(parts)

    def _shown(self, row: str, name: str) -> str | None:
        cell = self.cells.get((row, name))
        return None if cell is None else f"{100 * cell.mean:.2f} ± {100 * cell.deviation:.2f}"


def _described(name: str, found: Mapping[str, Any]) -> str:
    if not found:
        return name
    more = found["unlabelled_images"]
    return (
        f"{name} ({found['classes']} classes, {found['labelled_images']} labelled images"
        + (f" and {more} without label" if more else "")
        + f", {found['test_images']} test images; the teacher alone names "
        f"{100 * found['teacher_top_1_on_pool']:.1f} % of the training images)"
    )


def _mean(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.fmean(float(each[name]) for each in runs)


def _signed(value: float | None) -> str | None:
    return None if value is None else f"{value:+.2f}"


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    lines = [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join("-" if e is None else str(e) for e in row) + " |" for row in rows),
    ]
    return "\n".join(lines)
