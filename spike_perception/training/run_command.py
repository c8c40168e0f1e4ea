# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``spike-train`` that train have in common: options, and how they end."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.training.config import dump_yaml, parse_setting
from spike_perception.training.stopped import Stopped

_SPEED = "_per_second"


class Documented(Protocol):
    """A configuration that can be shown."""

    def document(self) -> dict[str, Any]:
        """Plain nested values, as a YAML file holds them."""


class Learning(Protocol):
    """A configuration of a training on sets."""

    @property
    def data(self) -> Sequence[object]:
        """The sets to learn from."""


T = TypeVar("T", bound=Documented)


def add_configuration(
    parser: argparse.ArgumentParser, presets: Sequence[str], preset: str, *, teacher: bool = True
) -> None:
    """Declare ``--config``, ``--set``, ``--teacher``, ``--show-config`` and ``--json``.

    Args:
        parser: of the command.
        presets: configurations that come with it.
        preset: the one that is taken if none is named.
        teacher: whether it has one.
    """
    parser.add_argument(
        "--config", default=preset, help=f"YAML file, or one of {', '.join(presets)}"
    )
    if teacher:
        parser.add_argument(
            "--teacher", default="", help="as setting teacher.name: folder or open_clip model"
        )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change one setting, such as trainer.steps=300 or student.overrides.blocks=2",
    )
    parser.add_argument(
        "--show-config", action="store_true", help="print the resolved configuration and end"
    )
    add_json(parser)


def add_run_folder(parser: argparse.ArgumentParser) -> None:
    """Declare the folder of one training, and ``--fresh``."""
    parser.add_argument("out", type=Path, help="folder of the run; a run that is there goes on")
    parser.add_argument(
        "--fresh", action="store_true", help="forget the checkpoint that is there, begin anew"
    )


def add_sets(parser: argparse.ArgumentParser, example: str) -> None:
    """Declare ``--data`` and ``--evaluate``; ``example`` is one of ``--data``."""
    for name, purpose in (
        ("data", f"set to learn from, such as {example}"),
        ("evaluate", "labelled set to judge by, never learnt from"),
    ):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="PATH[,SETTING=VALUE...]",
            help=f"{purpose}; may be repeated, and replaces those of the configuration",
        )


def changes(arguments: argparse.Namespace) -> dict[str, object]:
    """What ``--set`` and ``--teacher`` change, by the settings' paths.

    Raises:
        InputError: ``invalid_setting``.
    """
    found = dict(parse_setting(each) for each in arguments.set)
    teacher = getattr(arguments, "teacher", "")
    return {**found, "teacher.name": teacher} if teacher else found


def command_line() -> str:
    """What made a run, for its folder and its card."""
    return f"spike-train {shlex.join(sys.argv[1:])}"


def tell_configuration(arguments: argparse.Namespace, config: Documented) -> bool:
    """Print the configuration if ``--show-config`` asks for it; whether it did."""
    if arguments.show_config:
        emit(arguments, config.document(), dump_yaml(config.document()).rstrip())
    return bool(arguments.show_config)


def need_teacher(name: str) -> None:
    """Refuse an empty name.

    Raises:
        InputError: ``unknown_teacher``.
    """
    if not name:
        raise InputError("unknown_teacher", "no teacher: give --teacher FOLDER or a model's name")


def need_data(config: Learning) -> None:
    """Refuse a configuration without sets.

    Raises:
        InputError: ``data_missing``.
    """
    if not config.data:
        raise InputError("data_missing", "nothing to learn from: give --data PATH")


def need_folder(out: Path) -> None:
    """Refuse a file where a run's folder is to be, before work is put into it.

    Raises:
        InputError: ``cannot_write``.
    """
    if out.exists() and not out.is_dir():
        raise InputError("cannot_write", f"{out} is a file; a run needs a folder of its own")


def until_stopped(work: Callable[[], int]) -> int:
    """The exit status of ``work``; 128 and the signal's number if one stopped it."""
    try:
        return work()
    except Stopped as stopped:
        print(f"spike-train: {stopped}; the same command goes on", file=sys.stderr)
        return 128 + stopped.number


def carry_out(
    arguments: argparse.Namespace,
    config: T,
    train: Callable[[T, Path, str], dict[str, Any] | None],
) -> int:
    """Show the configuration, or train one run and print its figures.

    Args:
        arguments: of the command, see :func:`add_configuration` and :func:`add_run_folder`.
        config: as resolved.
        train: takes it, the run's folder and the command line; returns the metrics document, None
            in processes of a distributed run that write nothing.

    Raises:
        InputError: ``cannot_write`` if the run's folder is a file, and the reasons of ``train``.
    """
    if tell_configuration(arguments, config):
        return 0
    out: Path = arguments.out
    need_folder(out)

    def work() -> int:
        if arguments.fresh:
            from spike_perception.training.trainer import CHECKPOINT

            (out / CHECKPOINT).unlink(missing_ok=True)
        found = train(config, out, command_line())
        if found is not None:
            lines = [f"{name:<56}{value:>10.4f}" for name, value in found["metrics"].items()]
            lines += [
                f"trained at {value:.0f} {name.removesuffix(_SPEED)}/s"
                for name, value in found.items()
                if name.endswith(_SPEED) and value
            ]
            emit(arguments, found, "\n".join([*lines, f"run folder {out}"]))
        return 0

    return until_stopped(work)
