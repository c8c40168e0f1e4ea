# SPDX-License-Identifier: Apache-2.0
"""Write labelled LiDAR points of simulated objects, one folder of ``.npy`` files a class.

Each file holds what one scan met of one object: float32 ``[P, 3]``, z up, in the sensor's frame
moved to the middle of the points (m). Sensors differ in rings, beams, height and noise.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spike_perception.cli import emit
from spike_perception.simulation import class_folders
from spike_perception.simulation.classes import CLASSES, WORDS
from spike_perception.simulation.lidar import beams
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.random_scenes import (
    CELL,
    random_place,
    random_room,
    random_street,
    write_texture_variants,
)
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import LidarSensor

SIZE = 16  # edge of pictures that nobody takes (px)
PLACE_SCANS = 4  # of one open place
SCENE_SCANS = 3  # of one street or room
OF_A_SCAN = 2  # objects of one class at most, so that no scene fills the set
MAXIMUM_SCANS = 100_000

Cloud = NDArray[np.float32]


def object_scans(
    count: int, seed: int, classes: tuple[str, ...] = CLASSES, least: int = 30
) -> Iterator[tuple[str, Cloud]]:
    """Word and points of objects, ``count`` of each class, in no order.

    Args:
        count: objects of each class.
        seed: of scenes, sensors and noise.
        classes: the words wanted.
        least: fewest points of an object.
    """
    rng = np.random.default_rng(seed)
    missing = dict.fromkeys(classes, count)
    with tempfile.TemporaryDirectory(prefix="spike_perception_scans_") as name:
        folder = Path(name)
        write_texture_variants(folder / "textures", rng)
        while any(missing.values()):
            for scene, poses in _scenes(folder, missing, rng):
                for pose in poses:
                    for word, points in _seen(scene, pose, least, rng):
                        if missing.get(word, 0):
                            missing[word] -= 1
                            yield word, points


def _scenes(
    folder: Path, missing: dict[str, int], rng: np.random.Generator
) -> Iterator[tuple[Scene, list[Pose]]]:
    """A street, a room and an open place of what is still missing, and where sensors stand."""
    for build in (random_street, random_room):
        scene, poses = build(folder, SIZE, rng)
        rows = rng.choice(len(poses), SCENE_SCANS)
        yield scene, [poses[int(row)] for row in rows]
    due = tuple(word for word, left in missing.items() if left)
    if not due:
        return
    scene, placed = random_place(folder, due, SIZE, rng)
    stands = []
    for _ in range(PLACE_SCANS):
        target = placed[int(rng.integers(len(placed)))]
        side = float(rng.uniform(-math.pi, math.pi))
        away = target.width / 2 + float(rng.uniform(1.0, CELL))
        x, y = target.x + away * math.cos(side), target.y + away * math.sin(side)
        height = float(rng.uniform(0.4, 1.8))
        stands.append(Pose.from_euler(x, y, height, 0.0, 0.0, float(rng.uniform(-3.1, 3.1))))
    yield scene, stands


def _sensor(rng: np.random.Generator) -> LidarSensor:
    """Any spinning LiDAR."""
    span = math.radians(float(rng.uniform(12, 25)))
    return LidarSensor(
        name="any",
        pose=Pose.planar(0.0, 0.0, 0.0),
        steps=int(rng.choice((512, 900, 1800))),
        azimuth=(-math.pi, math.pi),
        rings=int(rng.choice((16, 32, 64))),
        elevation=(-span, float(rng.uniform(0.1, 1.0)) * span),
        near=0.3,
        far=60.0,
        noise=float(rng.uniform(0.003, 0.03)),
    )


def _seen(
    scene: Scene, pose: Pose, least: int, rng: np.random.Generator
) -> Iterator[tuple[str, Cloud]]:
    """What one scan from a pose meets of each nameable object."""
    sensor = _sensor(rng)
    directions = beams(sensor)
    geoms, ranges = scene.cast(pose, directions, sensor.far)
    met = (geoms >= 0) & (ranges > sensor.near)
    far = ranges[met] + sensor.noise * rng.standard_normal(int(met.sum()))
    points = (directions[met] * far[:, None]).astype(np.float32)
    bodies = scene.model.body_rootid[scene.model.geom_bodyid[geoms[met]]]
    taken: dict[str, int] = {}
    for body in rng.permutation(np.unique(bodies)).tolist():
        word = WORDS.get(scene.labels[scene.model.body(body).name], "")
        own = points[bodies == body]
        if not word or len(own) < least or taken.get(word, 0) >= OF_A_SCAN:
            continue
        taken[word] = taken.get(word, 0) + 1
        yield word, own - (own.min(axis=0) + own.max(axis=0)) / 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    class_folders.add_arguments(parser, "scans", "objects")


def run(arguments: argparse.Namespace) -> int:
    """Cast, write ``FOLDER/WORD/NUMBER.npy``, say how many."""
    class_folders.check(arguments, "scans", MAXIMUM_SCANS)
    output, scans, seed = arguments.output, arguments.scans, arguments.seed
    total = scans * len(CLASSES)
    counts = class_folders.write(
        object_scans(scans, seed),
        CLASSES,
        total,
        output,
        "npy",
        partial(np.save, allow_pickle=False),
    )
    result = {"folder": str(output), "objects": total, "classes": counts, "seed": seed}
    emit(arguments, result, f"{output}: points of {total:,} objects of {len(CLASSES)} classes")
    return 0
