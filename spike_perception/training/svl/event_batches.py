# SPDX-License-Identifier: Apache-2.0
"""Event recordings as sequences of windows, and batches of them: a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from spike_perception.sensing.event_recordings import recording_windows
from spike_perception.sensing.event_views import event_points
from spike_perception.sensing.events import Events
from spike_perception.training.chance import Order, keys
from spike_perception.training.svl.batches import Prepare
from spike_perception.training.svl.config import EventAugmentConfig, EventInputConfig
from spike_perception.training.trainer import Batch

Float = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Recordings:
    """Recordings of one sensor.

    Attributes:
        events: of each recording.
        labels: class of each, int64 [M].
        size: columns and rows of the sensor (pixels).
    """

    events: Sequence[Events]
    labels: NDArray[np.int64]
    size: tuple[int, int]


def window_points(
    events: Events,
    size: tuple[int, int],
    config: EventInputConfig,
    steps: int,
    points: int,
    rng: np.random.Generator | None = None,
) -> Float:
    """A recording as the student takes it: T windows, the last repeated if there are fewer.

    Args:
        events: of the recording.
        size: columns and rows of the sensor (pixels).
        config: windows and augmentation.
        steps: T.
        points: of each window.
        rng: draws the augmentation; None for none.

    Returns:
        float32 [T, P, 4]: x, y, z (time within the window) and polarity, see ``event_points``.
    """
    if rng is not None:
        span = int(events.t_ns[-1] - events.t_ns[0])
        delay = rng.uniform(0.0, config.augment.late) * span / steps
        events = events[int(np.searchsorted(events.t_ns, events.t_ns[0] + round(delay))) :]
    windows = recording_windows(events, steps, config.window_ms, config.overlap)[:steps]
    windows += [windows[-1]] * (steps - len(windows))
    clouds = np.stack([event_points(each, *size, points, rng) for each in windows])
    if rng is not None:
        matrix, shift = _placing(config.augment, rng)
        clouds[..., :2] = clouds[..., :2] @ matrix + shift
    return clouds


def _placing(
    config: EventAugmentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A random map of the image plane."""
    angle = math.radians(rng.uniform(-config.rotation_deg, config.rotation_deg))
    scale = 1.0 + rng.uniform(-config.scale, config.scale)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    shift = rng.uniform(-config.shift, config.shift, 2)
    return np.array([[cosine, sine], [-sine, cosine]], np.float32), shift.astype(np.float32)


class EventBatches:
    """Batches of several sets of recordings: a pure function of the step."""

    def __init__(
        self,
        sets: Sequence[Recordings],
        weights: list[float],
        batch: int,
        config: EventInputConfig,
        steps: int,
        points: int,
        prepare: Prepare,
        seed: int,
    ) -> None:
        """Draw from these sets.

        Args:
            sets: at least one.
            weights: how often a sample of each is drawn, relative to one another.
            batch: samples a step, over all processes.
            config: windows and augmentation.
            steps: T.
            points: of each window.
            prepare: the student's, which groups clouds [B, P, 4].
            seed: of order and augmentation.
        """
        self.sets = sets
        self.config = config
        self.steps, self.points = steps, points
        self.prepare = prepare
        self.seed = seed
        self.order = Order([len(each.labels) for each in sets], weights, batch, seed)

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        """This process's part: ``points`` [B, T, ...] as prepared, ``labels``."""
        sets, indices, epochs = (each[rank::world] for each in self.order(step))
        sample_keys = keys(self.seed, sets, epochs, indices)
        clouds = np.stack(
            [
                self._cloud(number, index, np.random.Generator(np.random.Philox(int(key))))
                for number, index, key in zip(sets, indices, sample_keys, strict=True)
            ]
        )
        labels = [self.sets[k].labels[i] for k, i in zip(sets, indices, strict=True)]
        points = self.prepare(torch.from_numpy(clouds).flatten(0, 1))
        return {
            "points": points.unflatten(0, (len(clouds), self.steps)),
            "labels": torch.from_numpy(np.array(labels, np.int64)),
        }

    def clean(self, batches: int) -> list[Float]:
        """Windows of the first batches of the order, without augmentation, [B, T, P, 4] each."""
        found = []
        for step in range(batches):
            sets, indices, _ = self.order(step)
            found.append(
                np.stack([self._cloud(k, i, None) for k, i in zip(sets, indices, strict=True)])
            )
        return found

    def _cloud(self, number: int, index: int, rng: np.random.Generator | None) -> Float:
        source = self.sets[number]
        return window_points(
            source.events[index], source.size, self.config, self.steps, self.points, rng
        )
