# SPDX-License-Identifier: Apache-2.0
"""Distil a vision-language teacher into a spiking student for images, without labels if need be."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.training import config as settings_of
from spike_perception.training.config import DistillConfig

if TYPE_CHECKING:
    from spike_perception.training.teachers.teacher import Teacher


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("out", type=Path, help="folder of the run; a run that is there goes on")
    parser.add_argument(
        "--config",
        default="cpu",
        help=f"YAML file, or one of the presets {', '.join(settings_of.preset_names())}",
    )
    parser.add_argument(
        "--teacher", default="", help="as setting teacher.name: folder or open_clip model"
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="PATH[,SETTING=VALUE...]",
        help="image set to learn from, such as DIR, FILE.zip/train or SET,labels=true,weight=2; "
        "may be repeated, and replaces those of the configuration",
    )
    parser.add_argument(
        "--evaluate",
        action="append",
        default=[],
        metavar="PATH[,SETTING=VALUE...]",
        help="labelled image set to judge zero-shot accuracy by; may be repeated",
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
    resolved = resolve(arguments)
    if arguments.show_config:
        emit(arguments, resolved.document(), settings_of.dump_yaml(resolved.document()).rstrip())
        return 0
    if not resolved.data:
        raise InputError("data_missing", "no image set to learn from: give --data PATH")
    if not resolved.settings.teacher.name:
        raise InputError("unknown_teacher", "no teacher: give --teacher FOLDER or a model's name")
    from spike_perception.training.trainer import CHECKPOINT, Stopped

    if arguments.fresh:
        (arguments.out / CHECKPOINT).unlink(missing_ok=True)
    try:
        metrics = distill(resolved, arguments.out, _command())
    except Stopped as stopped:
        print(f"spike-train: {stopped}; the same command goes on", file=sys.stderr)
        return 128 + stopped.number
    if metrics is not None:
        emit(arguments, metrics, _summary(metrics, arguments.out))
    return 0


def resolve(arguments: argparse.Namespace) -> DistillConfig:
    """The configuration that file and options make together.

    Raises:
        InputError: ``config_missing``, ``bad_config``, ``unknown_setting``, ``invalid_setting``.
    """
    loaded = settings_of.load_config(arguments.config)
    changes = dict(settings_of.parse_setting(each) for each in arguments.set)
    if arguments.teacher:
        changes["teacher.name"] = arguments.teacher
    loaded = loaded.changed(changes)
    data, judged = (
        tuple(settings_of.parse_data(each) for each in given)
        for given in (arguments.data, arguments.evaluate)
    )
    return dataclasses.replace(loaded, data=data or loaded.data, evaluate=judged or loaded.evaluate)


def _command() -> str:
    return f"spike-train {shlex.join(sys.argv[1:])}"


def distill(
    config: DistillConfig,
    out: Path,
    command: str,
    *,
    teacher: Teacher | None = None,
) -> dict[str, Any] | None:
    """Train a student and write its run folder.

    Args:
        config: the configuration.
        out: folder of the run.
        command: what to name as the command that made it.
        teacher: loaded already; None loads the one that is configured.

    Returns:
        The metrics document; None in processes of a distributed run that write nothing.

    Raises:
        InputError: whatever in configuration or data cannot be used.
        Stopped: after a signal.
    """
    import torch

    from spike_perception.training.result import write_run
    from spike_perception.training.scene import Scene
    from spike_perception.training.trainer import fit

    scene = Scene.open(config, teacher)
    objective = scene.objective()
    steps = config.settings.trainer.steps or max(
        1, round(config.settings.trainer.epochs * scene.batches.order.epoch_steps())
    )
    trained = fit(
        objective,
        scene.batches,
        steps,
        out,
        config.settings.trainer,
        identity=scene.identity(),
        validate=scene.validate if scene.judged else None,
    )
    if not trained.is_first:
        return None
    best: Any = trained.objective.cpu()
    with torch.no_grad():
        return write_run(
            scene, best, out, command, steps=trained.steps, speed=trained.samples_per_second
        )


def _summary(metrics: dict[str, Any], out: Path) -> str:
    lines = [f"{name:<48}{value:>10.4f}" for name, value in metrics["metrics"].items()]
    if metrics["images_per_second"]:
        lines.append(f"trained at {metrics['images_per_second']:.0f} images/s")
    return "\n".join([*lines, f"run folder {out}"])
