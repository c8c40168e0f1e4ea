# SPDX-License-Identifier: Apache-2.0
"""Align a spiking point student with words and pictures (SVL), for names of LiDAR objects."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spike_perception.training.run_command import (
    add_configuration,
    add_run_folder,
    add_sets,
    carry_out,
    changes,
    need_data,
    need_teacher,
)
from spike_perception.training.svl.config import (
    RunConfig,
    SVLConfig,
    TeacherConfig,
    parse_entry,
    preset_names,
)

if TYPE_CHECKING:
    from torch import nn

    from spike_perception.training.svl.scene import PointTeacher
    from spike_perception.training.trainer import Trained

T = TypeVar("T", bound=RunConfig)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_run_folder(parser)
    add_configuration(parser, preset_names(SVLConfig), "cpu")
    add_sets(parser, "set.npz,split=train,without=modelnet10 or FOLDER,labels=false")


def run(arguments: argparse.Namespace) -> int:
    """Train, judge, write the run's folder."""
    return carry_out(arguments, resolve(SVLConfig, arguments), train_svl)


def resolve(
    kind: type[T], arguments: argparse.Namespace, more: Mapping[str, object] | None = None
) -> T:
    """The configuration that file and options make together.

    Args:
        kind: of configuration.
        arguments: of the command.
        more: settings that options of this command alone name.

    Raises:
        InputError: ``config_missing``, ``bad_config``, ``unknown_setting``, ``invalid_setting``.
    """
    loaded = kind.load(arguments.config).changed({**changes(arguments), **(more or {})})
    data, judged = (
        tuple(parse_entry(each) for each in given) for given in (arguments.data, arguments.evaluate)
    )
    return dataclasses.replace(loaded, data=data or loaded.data, evaluate=judged or loaded.evaluate)


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


def configured_teacher(chosen: TeacherConfig) -> PointTeacher:
    """Load the teacher of a configuration, with its table of texts.

    Raises:
        InputError: ``unknown_teacher``, those of ``reading_teacher``.
    """
    from spike_perception.training.teachers.text_table import reading_teacher

    need_teacher(chosen.name)
    checkpoint = Path(chosen.checkpoint) if chosen.checkpoint else None
    return reading_teacher(chosen.name, checkpoint, chosen.texts, Path(chosen.cache))


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

    need_data(config)
    teacher = teacher or configured_teacher(config.settings.teacher)
    scene = SVLScene(config, teacher, **seams)
    trained = fitted(config, scene.objective(), scene, out)
    if not trained.is_first:
        return None
    best: Any = trained.objective.cpu()
    with torch.no_grad():
        return scene.finish(
            best, out, command, steps=trained.steps, speed=trained.samples_per_second
        )
