# SPDX-License-Identifier: Apache-2.0
"""Train a tiny student on random data; run by tests in a process of its own.

Arguments: folder, precision, weights' average, step at which the process ends itself (-1: never),
signal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from spike_perception.config import replace
from spike_perception.students.registry import create_student
from spike_perception.training import chance
from spike_perception.training.augment import Augment, AugmentConfig
from spike_perception.training.config import TrainerConfig
from spike_perception.training.trainer import fit
from spike_perception.training.vl2spike.config import VL2SpikeConfig
from spike_perception.training.vl2spike.total import TeacherBatch, VL2SpikeLoss

STEPS, SAMPLES = 8, 20
TINY = {
    "height": 16, "width": 16, "first_stride": 2, "stem_channels": 4, "middle_channels": 8,
    "channels": 16, "heads": 2, "blocks": 1, "features": 16,
}  # fmt: skip
CONFIG = {"batch": 6, "threads": 1, "checkpoint_every": 3, "log_every": 2, "accelerator": "cpu"}


class Objective(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.student = create_student("spikformer-s", TINY)
        self.dropout = nn.Dropout(0.2)
        text = torch.randn(5, 4, 12)
        config = replace(VL2SpikeConfig(), {"manifold.enabled": False})
        self.loss = VL2SpikeLoss(self.student, text, logit_scale=20.0, config=config)

    def forward(self, batch, progress, seed, detail):
        trace = self.student.trace(self.dropout(batch["images"]), record=self.loss.record)
        generator = torch.Generator().manual_seed(seed)
        found = self.loss(
            trace, TeacherBatch(batch["features"]), batch["labels"], progress, generator
        )
        return found.total, {f"loss/{name}": value for name, value in found.terms.items()}


class Data:
    def __init__(self, kill_at: int, number: int) -> None:
        self.kill_at, self.number = kill_at, number
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (SAMPLES, 20, 20, 3), dtype=np.uint8)
        self.features = torch.from_numpy(rng.standard_normal((SAMPLES, 12)).astype(np.float32))
        self.order = chance.Order([12, 8], [1.0, 2.0], CONFIG["batch"], 0)
        self.augment = Augment(AugmentConfig(), (16, 16))

    def __call__(self, step, rank, world):
        if step == self.kill_at:
            os.kill(os.getpid(), self.number)
        sets, indices, epochs = (each[rank::world] for each in self.order(step))
        rows = indices + 12 * sets
        images = self.augment(self.pixels[rows], chance.keys(0, sets, epochs, indices))
        return {
            "images": images,
            "features": self.features[rows],
            "labels": torch.from_numpy(rows % 5),
        }


def main() -> None:
    folder, precision, average, kill_at, number = sys.argv[1:]
    changes = {**CONFIG, "precision": precision, "average": float(average)}
    config = replace(TrainerConfig(), changes)
    done = fit(
        Objective(),
        Data(int(kill_at), int(number)),
        STEPS,
        Path(folder),
        config,
        validate=lambda module: {"silent": float(module.training)},
    )
    if done.is_first:
        torch.save(done.objective.state_dict(), Path(folder) / "weights.pt")


if __name__ == "__main__":
    main()
