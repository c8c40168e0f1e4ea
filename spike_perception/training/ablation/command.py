# SPDX-License-Identifier: Apache-2.0
"""Train the same student with parts of the losses, on several image sets and seeds, and compare."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from spike_perception.cli import emit
from spike_perception.errors import InputError
from spike_perception.training.ablation.comparison import Comparison
from spike_perception.training.ablation.config import AblationConfig, load_config, preset_names
from spike_perception.training.ablation.pages import write_pages
from spike_perception.training.ablation.results import read_results
from spike_perception.training.config import dump_yaml
from spike_perception.training.run_command import (
    add_configuration,
    changes,
    command_line,
    need_folder,
    need_teacher,
    tell_configuration,
    until_stopped,
)

if TYPE_CHECKING:
    from spike_perception.training.ablation.rows import Run
    from spike_perception.training.teachers.teacher import Teacher


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("out", type=Path, help="folder of the runs; finished runs stay as they are")
    add_configuration(parser, preset_names(), "cpu")
    parser.add_argument(
        "--data", type=Path, default=Path(), help="folder where the sets' relative paths begin"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only runs whose SET.ROW.Tn.Dn.sSEED fits, such as 'cifar10.*' or '*.all.*.s0'; may "
        "be repeated",
    )
    parser.add_argument("--workers", type=int, default=0, help="runs at a time; 0 as configured")
    parser.add_argument(
        "--tables",
        action="store_true",
        help="train nothing: make table, plot and report anew of the runs that are finished",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train what is missing, then write table, plot and report."""
    if arguments.tables:
        return _tell(arguments, read_results(arguments.out))
    config = resolve(arguments)
    if tell_configuration(arguments, config):
        return 0
    need_folder(arguments.out)
    need_teacher(config.recipe.teacher.name)
    return until_stopped(
        lambda: _tell(
            arguments,
            ablate(config, arguments.data, arguments.out, command_line(), only=arguments.only),
        )
    )


def _tell(arguments: argparse.Namespace, results: dict[str, Any]) -> int:
    found = Comparison.of(results)
    pages = write_pages(found, arguments.out)
    emit(arguments, found.summary(), f"{found.markdown()}\n{pages}")
    return 0


def resolve(arguments: argparse.Namespace) -> AblationConfig:
    """The configuration that file and options make together.

    Raises:
        InputError: ``config_missing``, ``bad_config``, ``unknown_setting``, ``invalid_setting``.
    """
    config = load_config(arguments.config).changed(changes(arguments))
    if arguments.workers:
        config = dataclasses.replace(config, workers=arguments.workers)
    return config


def ablate(
    config: AblationConfig,
    root: Path,
    out: Path,
    command: str,
    *,
    only: Sequence[str] = (),
    teacher: Teacher | None = None,
) -> dict[str, Any]:
    """Carry out every run that is not finished.

    Args:
        config: the ablation.
        root: folder where relative paths of sets begin.
        out: folder of the runs and of ``results.json``.
        command: what to name as the command; that of a single run has ``--only`` besides.
        only: patterns of the runs to take; none for all.
        teacher: loaded already; None loads the one that is configured.

    Returns:
        The document of ``results.json``: every finished run of this configuration.

    Raises:
        InputError: whatever in configuration or data cannot be used.
        Stopped: after a signal.
    """
    from spike_perception.training.ablation.results import Results
    from spike_perception.training.ablation.sets import load_set, open_set, token_basis
    from spike_perception.training.ablation.training import (
        make_student,
        read_result,
        run_folder,
        run_identity,
    )
    from spike_perception.training.ablation.workers import Task, Work, results_of
    from spike_perception.training.scene import input_size
    from spike_perception.training.teachers.teacher import load_teacher

    runs = [run for run in config.runs() if _fits(run, only)]
    if not runs:
        raise InputError("no_runs", f"no run fits {', '.join(only) or 'the configuration'}")
    if teacher is None:
        chosen = config.recipe.teacher
        teacher = load_teacher(chosen.name, Path(chosen.checkpoint) if chosen.checkpoint else None)
    names = tuple(dict.fromkeys(run.set for run in runs))
    first = open_set(config.sets[0], root)
    opened = {each.name: open_set(each, root) for each in config.sets if each.name in names}
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text(dump_yaml(config.document()), encoding="utf-8")
    origin = {"command": command, "teacher": {"name": teacher.name, "sha256": teacher.id}}
    results = Results(out, config, origin)
    tasks = []
    for run in runs:
        ids = (opened[run.set].id, first.encoded.id, teacher.id)
        identity = run_identity(run, config, ids)
        found = read_result(run_folder(out, run, identity), identity)
        if found is not None:
            results.put(found)
        else:
            tasks.append(Task(run, identity, f"{command} --only {shlex.quote(run.key)}"))
    if tasks:
        size = input_size(make_student(tasks[0].run, config))
        basis = token_basis(first, teacher, config.recipe)
        sets = {}
        for name in dict.fromkeys(task.run.set for task in tasks):
            sets[name] = load_set(opened[name], teacher, config.recipe, size, basis)
            results.describe(name, sets[name].described())
        del teacher  # its memory is better used by the runs
        bar = tqdm(
            total=len(runs),
            initial=len(runs) - len(tasks),
            desc="ablation",
            unit="run",
            disable=None,
        )
        with bar:
            for result in results_of(Work(sets, config, out), tasks, config.workers):
                results.put(result)
                bar.set_postfix_str(f"{result['key']} {result['accuracy']:.3f}", refresh=False)
                bar.update()
    return results.document


def _fits(run: Run, only: Sequence[str]) -> bool:
    return not only or any(fnmatch.fnmatchcase(run.key, each) for each in only)
