# SPDX-License-Identifier: Apache-2.0
"""Train the same point student with parts of SVL's losses, and with other T x D, and compare."""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spike_perception.cli import emit
from spike_perception.errors import InputError
from spike_perception.training.config import dump_yaml
from spike_perception.training.run_command import (
    add_configuration,
    add_run_folder,
    add_sets,
    command_line,
    need_folder,
    tell_configuration,
    until_stopped,
)
from spike_perception.training.svl.command import configured_teacher, resolve, train_svl
from spike_perception.training.svl.config import AblationConfig, SVLConfig, preset_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spike_perception.evaluation.report import Palette
    from spike_perception.training.svl.scene import PointTeacher

#: Rows: title, weights of text, image and mse (all 0: no training), and what SVL's table 6 gives
#: for E-3DSNN-S on ModelNet40 after pretraining on Objaverse (%).
ROWS: Mapping[str, tuple[str, tuple[float, float, float], float]] = {
    "none": ("no alignment (random weights)", (0.0, 0.0, 0.0), 5.1),
    "image": ("pictures", (0.0, 1.0, 0.0), 73.1),
    "text": ("words", (1.0, 0.0, 0.0), 70.1),
    "both": ("both", (1.0, 1.0, 0.0), 77.8),
    "mse": ("both + squared distance", (1.0, 1.0, 1.0), 79.6),
}
WHOLE = "mse"
#: SVL's table of T x D, for the same backbone and set (%).
PAPER_GRID: Mapping[str, float] = {
    "1x2": 78.5, "2x1": 78.0, "2x2": 80.5, "1x4": 79.6, "4x1": 78.6,
}  # fmt: skip
TABLE = "ablation.md"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        row: of :data:`ROWS`.
        size: T x D, such as ``1x4``.
        seed: of weights, order and augmentation.
    """

    row: str
    size: str
    seed: int

    @property
    def key(self) -> str:
        """Its name, and that of its folder."""
        return f"{self.row}.{self.size}.s{self.seed}"

    def config(self, recipe: SVLConfig) -> SVLConfig:
        """What this run does."""
        text, image, mse = ROWS[self.row][1]
        steps, levels = sizes(self.size)
        values: dict[str, object] = {
            "name": self.key,
            "trainer.seed": self.seed,
            "student.overrides.steps": steps,
            "student.overrides.levels": levels,
        }
        if self.row == "none":  # one step that changes nothing, so that it ends like the others
            values |= {"trainer.steps": 1, "trainer.optimiser.learning_rate": 0.0}
        else:
            values |= {"loss.text": text, "loss.image": image, "loss.mse": mse}
        return recipe.changed(values)


def sizes(text: str) -> tuple[int, int]:
    """T and D of ``TxD``.

    Raises:
        InputError: ``invalid_setting``.
    """
    steps, _, levels = text.partition("x")
    if not (steps.isdigit() and levels.isdigit() and int(steps) and int(levels)):
        raise InputError("invalid_setting", f"{text!r} is no TxD, such as 1x4")
    return int(steps), int(levels)


def runs_of(config: AblationConfig) -> list[Run]:
    """All runs, without repetition, rows first.

    Raises:
        InputError: ``invalid_setting`` for a row that does not exist.
    """
    s = config.settings.compare
    rows, grid = (
        tuple(each.strip() for each in text.split(",") if each.strip()) for text in (s.rows, s.grid)
    )
    if unknown := [each for each in rows if each not in ROWS]:
        raise InputError(
            "invalid_setting", f"compare.rows: no row {unknown[0]}; there are {', '.join(ROWS)}"
        )
    named = [(row, base_size(config)) for row in rows] + [(WHOLE, size) for size in grid]
    return [Run(row, size, seed) for row, size in dict.fromkeys(named) for seed in range(s.seeds)]


def base_size(config: AblationConfig) -> str:
    """T x D of the table of losses."""
    given = {"steps": 1, "levels": 4, **config.overrides}
    return f"{given['steps']}x{given['levels']}"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_run_folder(parser)
    add_configuration(parser, preset_names(AblationConfig), "ablation")
    add_sets(parser, "set.npz,split=train")


def run(arguments: argparse.Namespace) -> int:
    """Train what is missing, then write tables, plot and report."""
    config = resolve(AblationConfig, arguments)
    if tell_configuration(arguments, config):
        return 0
    need_folder(arguments.out)

    def work() -> int:
        results = ablate(config, arguments.out, command_line(), fresh=arguments.fresh)
        found = Comparison(config, results)
        page = write_pages(found, arguments.out, command_line())
        emit(arguments, found.document(), f"{found.markdown()}\n{page}")
        return 0

    return until_stopped(work)


@dataclass(frozen=True)
class Told:
    """A teacher whose answers are all in the cache: what other processes need of it."""

    name: str
    id: str

    def encode_text(self, texts: Sequence[str]) -> Any:
        """Never needed."""
        raise InputError("bad_cache", f"no cached embedding of {texts[0]!r}; start anew")


@dataclass(frozen=True)
class Task:
    """One run to carry out."""

    run: Run
    config: SVLConfig


@dataclass(frozen=True)
class Work:
    """What all runs share."""

    out: Path
    teacher: Told
    command: str

    def do(self, task: Task) -> dict[str, Any]:
        """Carry out one run."""
        from spike_perception.training.run_folder import RunFolder

        folder = self.out / task.run.key
        train_svl(task.config, folder, self.command, teacher=self.teacher, open_data=_opened)
        return {**RunFolder(folder).metrics(), "key": task.run.key}


def _opened(path: str, split: str | None, **options: Any) -> Any:
    return _kept(path, split, tuple(sorted(options.items())))


@functools.lru_cache(maxsize=8)
def _kept(path: str, split: str | None, options: tuple[tuple[str, Any], ...]) -> Any:
    """Shapes, read once a process."""
    from spike_perception.training.svl.shapes import open_shapes

    return open_shapes(path, split, **dict(options))


def ablate(
    config: AblationConfig,
    out: Path,
    command: str,
    *,
    teacher: PointTeacher | None = None,
    fresh: bool = False,
    **seams: Any,
) -> dict[str, dict[str, Any]]:
    """Carry out every run that is not finished.

    Args:
        config: the ablation.
        out: folder of the runs.
        command: what to name as the command that made them.
        teacher: loaded already; None loads the one that is configured.
        fresh: True to begin anew.
        seams: as ``SVLScene`` takes them.

    Returns:
        The metrics document of every run, by its key.

    Raises:
        InputError: whatever in configuration or data cannot be used.
        Stopped: after a signal.
    """
    from spike_perception.training.ablation.workers import results_of
    from spike_perception.training.run_folder import CONFIG, METRICS, RunFolder
    from spike_perception.training.svl.scene import SVLScene
    from spike_perception.training.trainer import CHECKPOINT

    if not config.data or not config.evaluate:
        raise InputError("data_missing", "give --data to learn from and --evaluate to judge by")
    recipe = config.recipe()
    if recipe.settings.teacher.texts:
        raise InputError(
            "invalid_setting",
            "teacher.texts: the ablation compares words and pictures of one teacher; leave it out",
        )
    teacher = teacher or configured_teacher(recipe.settings.teacher)
    scene = SVLScene(recipe, teacher, **seams)  # names and pictures are in the cache from here on
    found: dict[str, dict[str, Any]] = {}
    tasks = []
    for run in runs_of(config):
        own, folder = run.config(recipe), out / run.key
        if fresh:
            for name in (CHECKPOINT, METRICS):
                (folder / name).unlink(missing_ok=True)
        same = (folder / CONFIG).is_file() and (folder / CONFIG).read_text(
            encoding="utf-8"
        ) == dump_yaml(own.document())
        if same and (folder / METRICS).is_file():
            metrics = RunFolder(folder).metrics()
            if metrics["teacher"]["sha256"] == teacher.id and metrics["data"] == scene.described:
                found[run.key] = metrics
                continue
            (folder / CHECKPOINT).unlink(missing_ok=True)  # of other data or another teacher
        tasks.append(Task(run, own))
    if tasks:
        out.mkdir(parents=True, exist_ok=True)
        work = Work(out, Told(teacher.name, teacher.id), command)
        workers = config.settings.compare.workers
        for done in results_of(cast(Any, work), cast(Any, tasks), workers):
            found[done["key"]] = done
    return found


class Comparison:
    """Finished runs side by side."""

    def __init__(self, config: AblationConfig, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Collect the figures of the first evaluation set."""
        self.config = config
        self.results = results
        precision = "int8" if config.settings.student.precision == "int8" else "f32"
        self.figure = f"{config.evaluate[0].name}.{precision}.top_1"
        self.set = config.evaluate[0].name
        self.base = base_size(config)
        runs = runs_of(config)
        self.rows = list(dict.fromkeys(each.row for each in runs if each.size == self.base))
        self.grid = list(dict.fromkeys(each.size for each in runs if each.row == WHOLE))

    def values(self, row: str, size: str, name: str = "") -> list[float]:
        """A figure of every seed; the accuracy (share) if none is named."""
        return [
            float(self.results[each.key]["metrics"][name or self.figure])
            for each in runs_of(self.config)
            if (each.row, each.size) == (row, size) and each.key in self.results
        ]

    def row_table(self) -> tuple[list[str], list[list[str]]]:
        """Accuracy by losses, beside the paper's."""
        columns = ["losses", "top-1 (%)", "each seed", "SVL table 6, E-3DSNN-S (%)"]
        rows = [
            [ROWS[row][0], *shown(self.values(row, self.base)), f"{ROWS[row][2]:.1f}"]
            for row in self.rows
        ]
        return columns, rows

    def grid_table(self) -> tuple[list[str], list[list[str]]]:
        """Accuracy and estimated energy by T x D, beside the paper's."""
        columns = ["T x D", "top-1 (%)", "each seed", "estimated mJ", "SVL, E-3DSNN-S (%)"]
        rows = []
        for size in self.grid:
            energy = statistics.fmean(self.values(WHOLE, size, "energy_mj_estimated") or [0.0])
            paper = PAPER_GRID.get(size)
            rows.append(
                [
                    size.replace("x", " x "),
                    *shown(self.values(WHOLE, size)),
                    f"{energy:.4f}",
                    "-" if paper is None else f"{paper:.1f}",
                ]
            )
        return columns, rows

    def document(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return {
            "figure": self.figure,
            "rows": {row: self.values(row, self.base) for row in self.rows},
            "grid": {size: self.values(WHOLE, size) for size in self.grid},
            "paper": {row: ROWS[row][2] / 100 for row in self.rows},
        }

    def markdown(self) -> str:
        """Both tables."""
        parts = []
        for title, (columns, rows) in (
            (f"Losses, T x D = {self.base.replace('x', ' x ')}, {self.set}", self.row_table()),
            (f"T x D, all losses, {self.set}", self.grid_table()),
        ):
            lines = [columns, ["---"] * len(columns), *rows]
            parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(each)} |" for each in lines))
        return "\n\n".join(parts) + f"\n\n{NOTE}\n"


NOTE = (
    "Mean and standard deviation over seeds; the int8 or f32 form that robots run. The paper's "
    "student is another backbone, pretrained on Objaverse with a far larger teacher: compare "
    "differences between rows, not accuracies. Energies are estimated."
)


def shown(values: Sequence[float]) -> tuple[str, str]:
    """Mean and deviation, and every value (%), of shares."""
    if not values:
        return "-", "-"
    per_cent = [100 * each for each in values]
    deviation = f" ± {statistics.stdev(per_cent):.1f}" if len(values) > 1 else ""
    return (
        f"{statistics.fmean(per_cent):.1f}{deviation}",
        ", ".join(f"{each:.1f}" for each in per_cent),
    )


def write_pages(found: Comparison, out: Path, command: str) -> Path:
    """Write ``ablation.md``, ``ablation.png`` and ``report.html``; returns the page's path.

    Raises:
        InputError: ``output_unwritable``.
    """
    from spike_perception.evaluation.provenance import provenance
    from spike_perception.evaluation.report import open_report

    report = open_report(out, "Ablation of SVL's losses", "one point student, one recipe")
    for title, (columns, rows) in (
        ("Accuracy by losses", found.row_table()),
        ("Time steps T and levels D", found.grid_table()),
    ):
        report.table(title, columns, rows, note=NOTE)
    report.figure(
        "Every seed",
        "ablation",
        lambda figure, palette: _draw(figure, palette, found),
        note="A dot is a run, the line the mean; crosses are the paper's figures.",
        size=(7.0, 1.6 + 0.4 * (len(found.rows) + len(found.grid))),
    )
    page = report.write({"config": {"command": command}, **found.document(), **provenance()})
    (out / TABLE).write_text(found.markdown(), encoding="utf-8")
    return page or out / TABLE


def _draw(figure: Figure, palette: Palette, found: Comparison) -> None:
    """Accuracy of every row and every T x D, seed by seed."""
    lines = [
        (ROWS[row][0], found.values(row, found.base), ROWS[row][2] / 100) for row in found.rows
    ]
    for size in found.grid:
        paper = PAPER_GRID.get(size, float("nan")) / 100
        lines.append((f"T x D = {size}", found.values(WHOLE, size), paper))
    axes = figure.subplots()
    for place, (_, values, paper) in enumerate(reversed(lines)):
        axes.plot([100 * each for each in values], [place] * len(values), "o",
                  color=palette.series[0], alpha=0.55)  # fmt: skip
        if values:
            mean = 100 * statistics.fmean(values)
            axes.plot([mean] * 2, [place - 0.3, place + 0.3], color=palette.series[0])
        axes.plot([100 * paper], [place], "x", color=palette.muted)
    axes.set_yticks(range(len(lines)), [name for name, _, _ in reversed(lines)])
    axes.set(xlabel=f"top-1 (%), {found.set}")
    axes.grid(visible=False, axis="y")
