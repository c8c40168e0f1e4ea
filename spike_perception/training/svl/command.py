# SPDX-License-Identifier: Apache-2.0
"""Align a spiking point student with words and pictures (SVL), for names of LiDAR objects."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.training.config import dump_yaml, parse_setting
from spike_perception.training.svl.config import RunConfig, SVLConfig, parse_entry, preset_names

if TYPE_CHECKING:
    from torch import nn

    from spike_perception.training.svl.scene import PointTeacher
    from spike_perception.training.trainer import Trained

T = TypeVar("T", bound=RunConfig)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_training(parser, "cpu", "set.npz,split=train,without=modelnet10 or FOLDER,labels=false")
    parser.add_argument(
        "--teacher", default="", help="as setting teacher.name: folder or open_clip model"
    )


def add_training(parser: argparse.ArgumentParser, config: str, example: str) -> None:
    """Declare what all trainings on points and events share.

    Args:
        parser: of the command.
        config: preset that is taken if none is named.
        example: of ``--data``.
    """
    parser.add_argument("out", type=Path, help="folder of the run; a run that is there goes on")
    parser.add_argument(
        "--config", default=config, help=f"YAML file, or one of {', '.join(preset_names())}"
    )
    for name, purpose in (("data", "to learn from"), ("evaluate", "to judge accuracy by")):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="PATH[,SETTING=VALUE...]",
            help=f"set {purpose}, such as {example}; may be repeated, and replaces those of the "
            "configuration",
        )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change one setting, such as trainer.epochs=3 or student.overrides.blocks=2",
    )
    parser.add_argument(
        "--fresh", action="store_true", help="forget the checkpoint that is there, begin anew"
    )
    parser.add_argument(
        "--show-config", action="store_true", help="print the resolved configuration and end"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, judge, write the run's folder."""
    changes = {"teacher.name": arguments.teacher} if arguments.teacher else {}
    config = resolve(SVLConfig, arguments, changes)
    return carry_out(arguments, config, train_svl)


def resolve(kind: type[T], arguments: argparse.Namespace, changes: dict[str, object]) -> T:
    """The configuration that file and options make together.

    Args:
        kind: of configuration.
        arguments: of the command.
        changes: settings that further options name.

    Raises:
        InputError: ``config_missing``, ``bad_config``, ``unknown_setting``, ``invalid_setting``.
    """
    loaded = kind.load(arguments.config).changed(
        {**dict(parse_setting(each) for each in arguments.set), **changes}
    )
    data, judged = (
        tuple(parse_entry(each) for each in given) for given in (arguments.data, arguments.evaluate)
    )
    return dataclasses.replace(loaded, data=data or loaded.data, evaluate=judged or loaded.evaluate)


def carry_out(
    arguments: argparse.Namespace,
    config: T,
    train: Callable[[T, Path, str], dict[str, Any] | None],
) -> int:
    """Show the configuration, or train and print the figures."""
    if arguments.show_config:
        emit(arguments, config.document(), dump_yaml(config.document()).rstrip())
        return 0
    if not config.data:
        raise InputError("data_missing", "nothing to learn from: give --data PATH")
    from spike_perception.training.trainer import CHECKPOINT, Stopped

    if arguments.fresh:
        (arguments.out / CHECKPOINT).unlink(missing_ok=True)
    try:
        found = train(config, arguments.out, f"spike-train {shlex.join(sys.argv[1:])}")
    except Stopped as stopped:
        print(f"spike-train: {stopped}; the same command goes on", file=sys.stderr)
        return 128 + stopped.number
    if found is not None:
        lines = [f"{name:<56}{value:>10.4f}" for name, value in found["metrics"].items()]
        if found["samples_per_second"]:
            lines.append(f"trained at {found['samples_per_second']:.0f} samples/s")
        emit(arguments, found, "\n".join([*lines, f"run folder {arguments.out}"]))
    return 0


def fitted(config: RunConfig, objective: nn.Module, scene: Any, out: Path) -> Trained:
    """Train a scene's objective, by steps or epochs as configured."""
    from spike_perception.training.trainer import fit

    trainer = config.settings.trainer
    steps = trainer.steps or max(1, round(trainer.epochs * scene.batches.order.epoch_steps()))
    return fit(
        objective,
        scene.batches,
        steps,
        out,
        trainer,
        identity=scene.identity(),
        validate=scene.validate if scene.judged else None,
    )


def train_svl(
    config: SVLConfig,
    out: Path,
    command: str,
    *,
    teacher: PointTeacher | None = None,
    **seams: Any,
) -> dict[str, Any] | None:
    """Train a point student and write its run folder.

    Args:
        config: the configuration.
        out: folder of the run.
        command: what to name as the command that made it.
        teacher: loaded already; None loads the one that is configured.
        seams: as :class:`~spike_perception.training.svl.scene.SVLScene` takes them.

    Returns:
        The metrics document; None in processes of a distributed run that write nothing.

    Raises:
        InputError: whatever in configuration or data cannot be used.
        Stopped: after a signal.
    """
    import torch

    from spike_perception.training.svl.scene import SVLScene
    from spike_perception.training.teachers.teacher import load_teacher

    chosen = config.settings.teacher
    if teacher is None:
        if not chosen.name:
            raise InputError(
                "unknown_teacher", "no teacher: give --teacher FOLDER or a model's name"
            )
        teacher = load_teacher(chosen.name, Path(chosen.checkpoint) if chosen.checkpoint else None)
    scene = SVLScene(config, teacher, **seams)
    trained = fitted(config, scene.objective(), scene, out)
    if not trained.is_first:
        return None
    best: Any = trained.objective.cpu()
    with torch.no_grad():
        return scene.finish(
            best, out, command, steps=trained.steps, speed=trained.samples_per_second
        )
