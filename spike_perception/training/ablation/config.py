# SPDX-License-Identifier: Apache-2.0
"""Settings of an ablation: image sets, rows, seeds, and the recipe that all runs share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from spike_perception.config import flatten, from_flat, setting, to_flat
from spike_perception.errors import InputError
from spike_perception.students.registry import create_student
from spike_perception.training.ablation.rows import ROWS, Run
from spike_perception.training.config import DistillConfig, DistillSettings, load_yaml, nest

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class SetConfig:
    """One labelled image set."""

    name: str = setting("", "name of the set in tables")
    train: str = setting("", "images to learn from: FOLDER, FILE.zip/FOLDER, or IDX files")
    test: str = setting("", "images to judge by")
    words: str = setting("", "classes.tsv with the words of class folders, if these are codes")
    names: str = setting("", "words of the labels 0, 1, ... of IDX files, between commas")
    pool: int = setting(
        0, "images a class, evenly over the set, that seeds choose from; 0 for all", minimum=0
    )
    labelled: int = setting(
        0, "images a class that a run learns from, chosen by its seed; 0 for the pool", minimum=0
    )
    unlabelled: int = setting(
        0,
        "further images a class of the pool that a run sees without their labels, if its row has "
        "a term that needs none; its batches are no larger for that",
        minimum=0,
    )
    encode_all: bool = setting(
        False, "encode the whole set, whose features other commands find too; not the pool alone"
    )
    steps: int = setting(0, "steps of the optimiser; 0 as the recipe says", minimum=0)
    test_images: int = setting(0, "images to judge by, evenly over the set; 0 for all", minimum=0)


@dataclass(frozen=True)
class GridConfig:
    """Variants of time steps T and levels D, on one set.

    Attributes:
        set: name of the set; "" for no variants.
        rows: rows to train.
        steps: values of T.
        levels: values of D.
        seeds: seeds of the variants.
    """

    set: str = ""
    rows: tuple[str, ...] = ("ce", "all")
    steps: tuple[int, ...] = (1, 2, 4)
    levels: tuple[int, ...] = (1, 2, 4)
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class AblationConfig:
    """A whole ablation.

    Attributes:
        sets: the image sets.
        rows: rows of the table, of :data:`~.rows.ROWS`.
        seeds: every row is trained with each.
        grid: variants of T and D.
        workers: runs at the same time, each on ``recipe.trainer.threads`` threads.
        recipe: what all runs share; of ``loss`` the weights count, rows set the switches.
        overrides: of the student's own configuration.
    """

    sets: tuple[SetConfig, ...] = ()
    rows: tuple[str, ...] = tuple(row for row in ROWS if row != "feature")
    seeds: tuple[int, ...] = (0, 1, 2)
    grid: GridConfig = GridConfig()
    workers: int = 2
    recipe: DistillSettings = DistillSettings()
    overrides: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what is named.

        Raises:
            InputError: ``invalid_setting``.
        """
        for row in (*self.rows, *self.grid.rows):
            if row not in ROWS:
                _refuse(f"there is no row {row!r}; choose of {', '.join(ROWS)}")
        names = [each.name for each in self.sets]
        if len(set(names)) < len(names) or not all(_is_plain(each) for each in names):
            _refuse(f"names of sets are distinct and of letters, digits, - and _; given {names}")
        if self.grid.set and self.grid.set not in names:
            _refuse(f"grid.set is {self.grid.set!r}; the sets are {', '.join(names)}")
        if self.workers < 1:
            _refuse(f"workers is {self.workers}; give at least 1")

    def runs(self) -> list[Run]:
        """Every run, those of the table first; a variant that is in the table is not repeated."""
        c: Any = create_student(self.recipe.student.name, self.overrides).config
        found = [
            Run(each.name, row, c.steps, c.levels, seed)
            for seed in self.seeds
            for each in self.sets
            for row in self.rows
        ]
        grid = self.grid
        if grid.set:
            found += [
                Run(grid.set, row, steps, levels, seed)
                for seed in grid.seeds
                for steps in grid.steps
                for levels in grid.levels
                for row in grid.rows
            ]
        return list(dict.fromkeys(found))

    def changed(self, values: Mapping[str, object]) -> AblationConfig:
        """A copy with some dotted paths of the recipe changed, as ``DistillConfig.changed``.

        Raises:
            InputError: ``unknown_setting`` or ``invalid_setting``.
        """
        new = DistillConfig(self.recipe, self.overrides).changed(values)
        return dataclasses.replace(self, recipe=new.settings, overrides=new.overrides)

    def document(self) -> dict[str, Any]:
        """Plain nested values, as the YAML file holds them."""
        recipe = nest(to_flat(self.recipe))
        if self.overrides:
            recipe["student"]["overrides"] = dict(self.overrides)
        return {
            "sets": [to_flat(each) for each in self.sets],
            "rows": list(self.rows),
            "seeds": list(self.seeds),
            "grid": {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in dataclasses.asdict(self.grid).items()
            },
            "workers": self.workers,
            "recipe": recipe,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> AblationConfig:
        """From nested values; what is absent keeps its default.

        Raises:
            InputError: ``unknown_setting`` or ``invalid_setting``.
        """
        rest = dict(document)
        recipe = DistillConfig.of(_mapping(rest.pop("recipe", None) or {}, "recipe"))
        if recipe.data or recipe.evaluate:
            _refuse("the recipe names image sets; they belong under sets")
        sets = _list(rest.pop("sets", None) or [], "sets")
        values: dict[str, Any] = {
            "sets": tuple(from_flat(SetConfig, flatten(_mapping(e, "sets"))) for e in sets)
        }
        for name, kind in (("rows", str), ("seeds", int)):
            if name in rest:
                values[name] = _tuple(rest.pop(name), name, kind)
        if "grid" in rest:
            values["grid"] = _grid(_mapping(rest.pop("grid"), "grid"))
        if "workers" in rest:
            (values["workers"],) = _tuple([rest.pop("workers")], "workers", int)
        if rest:
            raise InputError(
                "unknown_setting",
                f"there is no {', '.join(map(str, rest))}; an ablation has sets, rows, seeds, "
                "grid, workers and recipe",
            )
        return cls(recipe=recipe.settings, overrides=recipe.overrides, **values)


def preset_names() -> tuple[str, ...]:
    """Configurations that come with the command."""
    return tuple(sorted(each.stem for each in PRESETS.glob("*.yaml")))


def load_config(name: str) -> AblationConfig:
    """An ablation's configuration, by preset or file.

    Raises:
        InputError: as ``config.load_yaml`` and :meth:`AblationConfig.of`.
    """
    preset = PRESETS / f"{name}.yaml"
    try:
        return AblationConfig.of(load_yaml(preset if preset.is_file() else name))
    except InputError as error:
        raise InputError(error.reason, f"{name}: {error}") from error


def _grid(document: Mapping[str, Any]) -> GridConfig:
    kinds = {"set": str, "rows": str, "steps": int, "levels": int, "seeds": int}
    unknown = set(document) - set(kinds)
    if unknown:
        raise InputError(
            "unknown_setting", f"grid has no {', '.join(unknown)}; only {', '.join(kinds)}"
        )
    values: dict[str, Any] = {
        name: _tuple(document[name], f"grid.{name}", kinds[name])
        for name in kinds
        if name in document and name != "set"
    }
    if "set" in document:
        (values["set"],) = _tuple([document["set"]], "grid.set", str)
    return GridConfig(**values)


def _is_plain(name: str) -> bool:
    return bool(name) and name.replace("-", "").replace("_", "").isalnum()


def _refuse(message: str) -> None:
    raise InputError("invalid_setting", message)


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        _refuse(f"{name} is no mapping of settings")
    return cast(Mapping[str, Any], value)


def _list(value: object, name: str) -> Sequence[Any]:
    if not isinstance(value, list):
        _refuse(f"{name} is no list")
    return cast(Sequence[Any], value)


def _tuple(value: object, name: str, kind: type) -> tuple[Any, ...]:
    found = _list(value, name)
    if not _all_are(found, kind):
        _refuse(f"{name} is {value!r}; allowed is a list of values of type {kind.__name__}")
    return tuple(found)


def _all_are(values: Iterable[object], kind: type) -> bool:
    return all(isinstance(each, kind) and not isinstance(each, bool) for each in values)
