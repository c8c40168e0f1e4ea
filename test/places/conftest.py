# SPDX-License-Identifier: Apache-2.0
"""A world of drawn pictures: cheap to make, the same each time, and hard to confuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.config import from_flat
from spike_perception.places.config import RecognitionConfig
from spike_perception.places.descriptors import create_descriptor
from spike_perception.places.map import PlaceMap
from spike_perception.places.recogniser import PlaceRecognizer
from spike_perception.places.types import Pose, Query, Recognition

SPACING_M = 0.5


class World:
    """A straight wall seen while driving along it; other walls are other seeds."""

    def __init__(self, seed: int, places: int) -> None:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (8, 10 + places), dtype=np.uint8)
        self.wall = cv2.resize(coarse, None, fx=12, fy=6, interpolation=cv2.INTER_CUBIC)

    def view(self, metres: float, night: int | None = None) -> np.ndarray:
        """The picture at that distance: uint8 [48, 96, 3]; by night darker, noisy, tilted."""
        left = round(metres / SPACING_M * 12)
        grey = self.wall[:, left : left + 96].astype(np.float32)
        if night is not None:
            rng = np.random.default_rng(night)
            slope = np.linspace(0.2, 0.7, 96, dtype=np.float32)
            grey = 0.5 * grey * slope + 20 + 12 * rng.standard_normal(grey.shape)
        return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


class Robot:
    """A recogniser on a map file, driven through a world at one keyframe a step."""

    def __init__(self, path: Path, mode: str = "both", descriptor: str = "patch_norm", **settings):
        self.descriptor = create_descriptor(descriptor)
        values = {"map.mode": mode, "sequence.length": 5, "decision.exclusion_s": 10.0, **settings}
        self.config = from_flat(RecognitionConfig, values)
        if mode == "localisation":
            self.map = PlaceMap.open(path, self.descriptor, read_only=True)
        else:
            self.map = PlaceMap.open_or_create(path, self.descriptor)
        self.recogniser = PlaceRecognizer(self.config, self.map, self.descriptor)
        self.seconds = 0.0

    def see(self, image: np.ndarray, metres: float | None = None) -> Recognition:
        self.seconds += 1.0
        pose = None if metres is None else Pose((metres, 0.0, 0.0))
        return self.recogniser.register(Query(image, int(self.seconds * 1e9), "camera", pose))

    def drive(
        self, world: World, start: int, stop: int, night: bool = False, posed: bool = True
    ) -> list[Recognition]:
        return [
            self.see(
                world.view(n * SPACING_M, n if night else None), n * SPACING_M if posed else None
            )
            for n in range(start, stop)
        ]


@pytest.fixture
def worlds() -> type[World]:
    """Makes worlds: ``worlds(seed, places)``."""
    return World


@pytest.fixture
def world() -> World:
    """A world with room for 130 keyframes."""
    return World(1, 130)


@pytest.fixture
def robot(tmp_path: Path) -> Iterator:
    """Makes robots on one map file; each new one ends the one before."""
    made: list[Robot] = []

    def make(mode: str = "both", **settings) -> Robot:
        for earlier in made:
            earlier.map.close()
        made.append(Robot(tmp_path / "map.db", mode, **settings))
        return made[-1]

    yield make
    for each in made:
        each.map.close()
