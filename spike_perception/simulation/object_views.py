# SPDX-License-Identifier: Apache-2.0
"""Write labelled views of simulated objects, one folder of PNG images a class.

Most views are of one object as a crop of a robot's picture shows it: near or far, from any side,
cut at times. The others are whole pictures from streets and rooms, of the class that fills most.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.cli import emit
from spike_perception.errors import InputError
from spike_perception.simulation import class_folders
from spike_perception.simulation.classes import CLASSES, word_shares
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.random_scenes import (
    BACKGROUND,
    Placed,
    random_place,
    random_room,
    random_street,
    write_texture_variants,
)
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sensors import expose, label_shares, visible_geoms

SIZE = 128  # edge of a view (px)
SCENE_VIEWS = 2  # of one object; the next are taken of another one
ATTEMPTS = 40  # at a view that shows the object
MAXIMUM_VIEWS = 100_000
PLACES = 6  # open places, streets and rooms, with one set of textures
PICTURES = 0.4  # of a class's views at most are whole pictures
PICTURES_OF_SCENE = 3  # of one class from one street or room


def object_views(
    views: int, seed: int, classes: tuple[str, ...] = CLASSES
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Render views of objects.

    Args:
        views: of each class.
        seed: of all randomness.
        classes: words, of :data:`~spike_perception.simulation.classes.CLASSES`.

    Yields:
        Word and RGB image ``[128, 128, 3]`` of one view, in no order of classes. The object's
        longer side fills 45 % of the crop or more, and more than the whole crop at times.

    Raises:
        InputError: ``opengl_missing``, see :class:`~spike_perception.simulation.scene.Scene`.
    """
    rng = np.random.default_rng(seed)
    missing = dict.fromkeys(classes, views)
    pictures = dict.fromkeys(classes, int(views * PICTURES))
    with tempfile.TemporaryDirectory(prefix="spike_perception_objects_") as name:
        folder = Path(name)
        while any(missing.values()):
            write_texture_variants(folder / "textures", rng)
            for _ in range(PLACES):
                for word, image in _scene_views(folder, missing, pictures, rng):
                    missing[word] -= 1
                    yield word, image


def _scene_views(
    folder: Path, missing: dict[str, int], pictures: dict[str, int], rng: np.random.Generator
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Views of one street, one room and one open place, of classes that still miss some."""
    for build in (random_street, random_room):
        if not any(pictures.values()):
            break
        scene, poses = build(folder, SIZE, rng)
        renderer = scene.renderer(SIZE, SIZE)
        left = dict.fromkeys(missing, PICTURES_OF_SCENE)
        try:
            for pose in poses:
                fovy = math.radians(float(rng.uniform(55, 70)))
                shares = _look(scene, renderer, pose, fovy)
                word = next(iter(shares), "")
                if min(missing.get(word, 0), pictures.get(word, 0), left.get(word, 0)) < 1:
                    continue
                share = shares.pop(word)
                if share < 0.18 or share < 1.25 * max(shares.values(), default=0):
                    continue
                pictures[word] -= 1
                left[word] -= 1
                yield word, _picture(scene, renderer, rng)
        finally:
            renderer.close()
    due = tuple(word for word, count in missing.items() if count)
    if not due:
        return
    scene, placed = random_place(folder, due, SIZE, rng)
    renderer = scene.renderer(SIZE, SIZE)
    try:
        for target in placed:
            for _ in range(min(SCENE_VIEWS, missing[target.word])):
                image = _view(scene, renderer, target, rng)
                if image is not None:
                    yield target.word, image
    finally:
        renderer.close()


def _look(scene: Scene, renderer: Any, pose: Pose, fovy: float) -> dict[str, float]:
    """Turn the camera to a pose (of body axes, x forward); shares of what it sees, by word."""
    camera, mount, _ = scene.camera("camera")
    scene.place_robot(pose @ mount.inverse())
    scene.model.camera(camera).fovy = math.degrees(fovy)
    return word_shares(label_shares(scene, visible_geoms(scene, renderer, camera)))


def _picture(scene: Scene, renderer: Any, rng: np.random.Generator) -> NDArray[np.uint8]:
    renderer.update_scene(scene.data, camera=scene.camera("camera")[0])
    return _as_seen(expose(renderer.render(), scene.daylight, rng), rng)


def _view(
    scene: Scene, renderer: Any, target: Placed, rng: np.random.Generator
) -> NDArray[np.uint8] | None:
    """One view in which ``target`` is what there is to be named; None if no attempt shows it."""
    for _ in range(ATTEMPTS):
        extent = max(target.width, target.height)
        # The camera turns towards the middle of the object, off by up to a quarter of it.
        off = rng.uniform(-0.25, 0.25, 2) * (target.width, target.height)
        height = float(rng.uniform(0.5, 1.4))
        distance = float(target.width / 2 + rng.uniform(0.8, 1.2 + 1.6 * extent))
        side = float(rng.uniform(-math.pi, math.pi))
        if target.front is not None:
            side = target.front + side / 3
        x = target.x + distance * math.cos(side)
        y = target.y + distance * math.sin(side)
        aim = math.atan2(target.height / 2 + off[1] - height, distance)
        yaw = side + math.pi + math.atan2(off[0], distance)
        fill = float(rng.uniform(0.6, 2.2 if target.word in BACKGROUND else 1.2))
        fovy = min(2 * math.atan(extent / 2 / fill / distance), math.radians(75))
        pose = Pose.from_euler(x, y, height, float(rng.normal(0, 0.03)), -aim, yaw)
        shares = _look(scene, renderer, pose, fovy)
        share = shares.pop(target.word, 0.0)
        if _shown(target.word, share, shares):
            return _picture(scene, renderer, rng)
    return None


def _shown(word: str, share: float, others: dict[str, float]) -> bool:
    """Whether an object of this share of the view is what the view is of."""
    if word in BACKGROUND:
        return share >= 0.35 and share > 2 * max(others.values(), default=0)
    rivals = [other for name, other in others.items() if name not in BACKGROUND]
    thin = word in ("street light", "traffic sign")
    return share >= (0.03 if thin else 0.1) and share > 2 * max(rivals, default=0)


def _as_seen(view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The view at the sharpness that a part of a larger, smaller or farther picture has."""
    import cv2

    size = int(rng.integers(48, SIZE + 1))
    small = cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), np.uint8)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    class_folders.add_arguments(parser, "views", "images")


def run(arguments: argparse.Namespace) -> int:
    """Render, write ``FOLDER/WORD/NUMBER.png``, say how many."""
    class_folders.check(arguments, "views", MAXIMUM_VIEWS)
    output, views, seed = arguments.output, arguments.views, arguments.seed
    total = views * len(CLASSES)
    counts = class_folders.write(object_views(views, seed), CLASSES, total, output, "png", _save)
    result = {"folder": str(output), "images": total, "classes": counts, "seed": seed}
    emit(arguments, result, f"{output}: {total:,} views of {len(CLASSES)} classes")
    return 0


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    import cv2

    if not cv2.imwrite(str(path), image[..., ::-1]):
        raise InputError("cannot_write", f"cannot write an image to {path.parent}")
