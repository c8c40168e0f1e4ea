# SPDX-License-Identifier: Apache-2.0
"""Distil a vision-language teacher into a spiking student for images, without labels if need be."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spike_perception.training import config as settings_of
from spike_perception.training.config import DistillConfig
from spike_perception.training.run_command import (
    add_configuration,
    add_run_folder,
    add_sets,
    carry_out,
    changes,
    need_data,
    need_teacher,
)

if TYPE_CHECKING:
    from spike_perception.training.teachers.teacher import Teacher


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_run_folder(parser)
    add_configuration(parser, settings_of.preset_names(), "cpu")
    add_sets(parser, "DIR, FILE.zip/train or SET,labels=true,weight=2")


def run(arguments: argparse.Namespace) -> int:
    """Train, judge, write the run's folder."""
    return carry_out(arguments, resolve(arguments), distill)


def resolve(arguments: argparse.Namespace) -> DistillConfig:
    """The configuration that file and options make together.

    Raises:
        InputError: ``config_missing``, ``bad_config``, ``unknown_setting``, ``invalid_setting``.
    """
    loaded = settings_of.load_config(arguments.config)
    loaded = loaded.changed(changes(arguments))
    data, judged = (
        tuple(settings_of.parse_data(each) for each in given)
        for given in (arguments.data, arguments.evaluate)
    )
    return dataclasses.replace(loaded, data=data or loaded.data, evaluate=judged or loaded.evaluate)


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

    need_data(config)
    if teacher is None:
        need_teacher(config.settings.teacher.name)
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
