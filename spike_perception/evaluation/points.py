# SPDX-License-Identifier: Apache-2.0
"""Measure how a bundle names objects given as points, from words."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from spike_perception.bags.labelled_points import UP_AXES, PointSet, open_point_set
from spike_perception.config import setting
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.deploy.runtime import Features, Runtime, load_runtime
from spike_perception.errors import InputError
from spike_perception.evaluation import naming_command
from spike_perception.evaluation.labelled_sets import SetConfig, part
from spike_perception.evaluation.naming_task import Encoder, Task
from spike_perception.sensing.image import RgbImage

_SIDE = 160  # pixels of a drawn object


@dataclass(frozen=True)
class PointsEvaluationConfig(SetConfig):
    """Settings of ``evaluate points``."""

    up: str = setting("z", "axis that is up in the data", choices=UP_AXES)


class PointEncoder(Encoder[Features]):
    """A bundle that takes points without further values.

    Raises:
        InputError: ``wrong_kind`` for a bundle that takes more than x, y, z; as
            :func:`~spike_perception.deploy.runtime.load_runtime`.
    """

    runtime: Runtime

    def __init__(self, bundle: Bundle, config: PointsEvaluationConfig) -> None:
        channels = bundle.preprocessing["channels"]
        if len(channels) != 3:
            raise InputError(
                "wrong_kind",
                f"this bundle takes {', '.join(channels)}; objects are judged by x, y, z alone",
            )
        self.runtime = load_runtime(bundle, config.engine, config.precision, config.threads)

    def features(self, sample: Features) -> Features:
        """Spike counts ``[C]`` of an object, float32 ``[P, 3]``."""
        counts: Features = self.runtime.infer(self.runtime.prepare_points([sample]))[0]
        return counts

    def network_input(self, sample: Features) -> Features:
        """The object as the student groups it itself, ``[points, 3]``."""
        return prepare_points(sample, self.runtime.bundle.preprocessing)

    def warm_up(self) -> None:
        """Run an empty object."""
        self.runtime.warm_up(1)


class PointTask(Task[PointSet, Features, PointsEvaluationConfig]):
    """Objects as points."""

    noun = "object"
    plural = "objects"
    title = "Objects from points"
    kinds = ("points",)
    data_help = (
        "objects: FILE.npz with points, label and classes (or points_SPLIT, label_SPLIT), or one "
        "folder a class of .bin, .npy, .pcd or .ply files in a folder, FILE.zip or FILE.zip/FOLDER"
    )
    bank = "points_bank"
    config_type = PointsEvaluationConfig

    def open(self, path: str, config: PointsEvaluationConfig) -> AbstractContextManager[PointSet]:
        """The objects to judge."""
        return nullcontext(part(open_point_set(path, config.split or None, up=config.up), config))

    def open_examples(
        self, path: str, config: PointsEvaluationConfig
    ) -> AbstractContextManager[PointSet]:
        """All objects, of those classes that are judged."""
        whole = replace(config, first=0, last=0, limit=0)
        return nullcontext(part(open_point_set(path, up=config.up), whole))

    def read(self, data: PointSet, index: int) -> Features:
        """Points of an object."""
        return data.points(index)

    def picture(self, data: PointSet, index: int) -> RgbImage:
        """The object, drawn."""
        return draw_object(data.points(index))

    def encoder(self, bundle: Bundle, config: PointsEvaluationConfig) -> PointEncoder:
        """The bundle made ready for points."""
        return PointEncoder(bundle, config)

    def skipped(self, data: PointSet) -> dict[str, str]:
        """Objects that could not be read."""
        return data.skipped


def draw_object(points: npt.NDArray[np.float32], side: int = _SIDE) -> RgbImage:
    """Draw points from above and in front, the nearer the darker, on white.

    Args:
        points: float32 ``[P, 3]``, z up.
        side: of the picture (pixels).

    Returns:
        uint8 ``[side, side, 3]``.
    """
    centred = points - (points.min(0) + points.max(0)) / 2
    turn, tilt = np.radians(30.0), np.radians(25.0)
    right = np.array([np.cos(turn), np.sin(turn), 0.0])
    up = np.array([np.sin(turn) * np.sin(tilt), -np.cos(turn) * np.sin(tilt), np.cos(tilt)])
    depth = centred @ np.cross(right, up)
    scale = 0.46 * side / max(float(np.linalg.norm(centred, axis=1).max()), 1e-9)
    column = np.rint(side / 2 + scale * (centred @ right)).astype(np.int64).clip(0, side - 2)
    row = np.rint(side / 2 - scale * (centred @ up)).astype(np.int64).clip(0, side - 2)
    order = np.argsort(depth)  # the nearest is drawn last
    spread = max(float(np.ptp(depth)), 1e-9)
    grey = (190 - 170 * (depth - depth.min()) / spread).astype(np.uint8)[order]
    picture = np.full((side, side, 3), 255, np.uint8)
    for down, along in ((0, 0), (0, 1), (1, 0), (1, 1)):
        picture[row[order] + down, column[order] + along] = grey[:, None]
    return picture


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    naming_command.configure(PointTask(), parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return naming_command.run(PointTask(), args)
