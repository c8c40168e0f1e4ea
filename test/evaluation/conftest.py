# SPDX-License-Identifier: Apache-2.0
"""A small bundle with random weights, words that fit its features, and images of these words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.runtime import load_runtime
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.folding import fold

SIZE = 32
COLOURS = {
    "red_cup": (220, 30, 30),
    "green-leaf": (30, 200, 40),
    "blue sky": (40, 60, 230),
    "sand": (230, 210, 120),
    "night": (15, 15, 25),
}
NOUNS = ["red cup", "green leaf", "blue sky", "sand", "night", "snow", "couch"]


def image(colour, rng) -> np.ndarray:
    """A flat colour with a stripe of another and some noise, RGB."""
    pixels = np.empty((SIZE, SIZE, 3), np.float64)
    pixels[:] = colour
    row = rng.integers(0, SIZE - 6)
    pixels[row : row + 6] = rng.integers(0, 256, 3)
    return np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1])


@dataclass(frozen=True)
class World:
    """Files of the small world."""

    bundle: Path
    bank: Path
    data: Path
    more: Path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    import torch

    from spike_perception.students.registry import create_student, student_config_to_json

    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(5)
    for name, colour in COLOURS.items():
        for part, count in (("test", 8), ("train", 6)):
            for k in range(count):
                write(folder / part / name / f"{k}.png", image(colour, rng))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = create_student(
        "spikformer-s",
        {"height": SIZE, "width": SIZE, "first_stride": 2, "stem_channels": 8,
         "middle_channels": 16, "channels": 48, "heads": 3, "blocks": 1, "features": 64},
    )  # fmt: skip
    preprocessing = {
        "input_size": [SIZE, SIZE],
        "channel_order": "rgb",
        "mean": [0.5],
        "std": [0.25],
        "resize": "shorter_side_crop",
        "interpolation": "area",
    }
    seen = [image(colour, rng) for colour in COLOURS.values() for _ in range(12)]
    batch = torch.tensor(np.array(seen).transpose(0, 3, 1, 2) / 255 / 0.25 - 2, dtype=torch.float32)
    for module in student.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None  # the batch's own statistics
    with torch.no_grad():
        student.train()(batch)  # no training
    written = student_config_to_json(student.eval())
    config = student.config
    bundle = Bundle(
        "image",
        written["student"],
        written["config"],
        preprocessing,
        config.steps,
        config.levels if config.neuron == "ilif" else 1,
        student.feature_dim,
        {name: np.array(each.numpy()) for name, each in student.state_dict().items()},
        {"command": "none", "data": [], "seeds": [0], "version": "0", "teacher": None},
    )
    bundle.save(folder / "bundle.safetensors")
    runtime = load_runtime(bundle, engine="torch", cache=None)
    features = runtime.infer(runtime.prepare_images(seen))
    mean = features.mean(axis=0)
    directions = (features - mean).reshape(len(COLOURS), 12, -1).mean(axis=1)
    rows = [*directions, *rng.standard_normal((2, student.feature_dim))]
    folded = fold(rows, feature_mean=mean)
    aliases = {"couch": ["sofa"], "sand": ["beach"]}
    bank = WordBank.of(NOUNS, folded, bundle.encoder_id, aliases, temperature=0.2)
    bank.save(folder / "bank.safetensors")
    return World(
        folder / "bundle.safetensors",
        folder / "bank.safetensors",
        folder / "test",
        folder / "train",
    )
