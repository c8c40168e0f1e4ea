# SPDX-License-Identifier: Apache-2.0
"""Small bundles with random weights, words that fit their features, and data of these words."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.deploy.runtime import load_runtime
from spike_perception.sensing.event_recordings import recording_windows
from spike_perception.sensing.event_views import event_points
from spike_perception.sensing.events import Events
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


def settled(student, batch):
    """The student with random weights whose normalisation has seen a batch; no training."""
    import torch

    for module in student.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None  # the batch's own statistics
    with torch.no_grad():
        student.train()(batch)
    return student.eval()


def bundle_of(student, kind: str, preprocessing: dict) -> Bundle:
    from spike_perception.students.registry import student_config_to_json

    written = student_config_to_json(student)
    config = student.config
    return Bundle(
        kind,
        written["student"],
        written["config"],
        preprocessing,
        config.steps,
        config.levels if config.neuron == "ilif" else 1,
        student.feature_dim,
        {name: np.array(each.numpy()) for name, each in student.state_dict().items()},
        {"command": "none", "data": [], "seeds": [0], "version": "0", "teacher": None},
    )


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

    from spike_perception.students.registry import create_student

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
    bundle = bundle_of(settled(student, batch), "image", preprocessing)
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


SHAPES = ("flat_board", "rod", "two-balls")


def shape(name: str, rng, count: int = 150) -> np.ndarray:
    """Points of a shape, z up, with some noise (m)."""
    points = rng.normal(0, 0.02, (count, 3))
    along = rng.uniform(-1, 1, (count, 2))
    if name == "flat_board":
        points[:, :2] += along
    elif name == "rod":
        points[:, 2] += along[:, 0]
    else:
        points[:, 0] += np.sign(along[:, 0])
        points += 4 * rng.normal(0, 0.06, (count, 3))
    return points.astype(np.float32)


@pytest.fixture(scope="session")
def point_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    import torch

    from spike_perception.students.registry import create_student

    folder = tmp_path_factory.mktemp("points")
    rng = np.random.default_rng(2)
    arrays = {}
    for part, count in (("test", 6), ("train", 5)):
        rows = [shape(name, rng) for name in SHAPES for _ in range(count)]
        arrays[f"points_{part}"] = np.rint(np.array(rows) * 1000).astype(np.int16)
        arrays[f"label_{part}"] = np.repeat(np.arange(len(SHAPES)), count)
    np.savez(folder / "shapes.npz", classes=SHAPES, scale=np.float32(0.001), **arrays)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = create_student(
        "pointformer-s",
        {"groups": 12, "neighbours": 8, "channels": 48, "heads": 3, "blocks": 2,
         "patch_channels": 8},
    )  # fmt: skip
    seen = [shape(name, rng) for name in SHAPES for _ in range(12)]
    preprocessing = {"points": 96, "channels": ["x", "y", "z"], "normalise": "unit_sphere"}
    clouds = np.stack([prepare_points(each, preprocessing) for each in seen])
    bundle = bundle_of(settled(student, torch.from_numpy(clouds)), "points", preprocessing)
    bundle.save(folder / "bundle.safetensors")
    runtime = load_runtime(bundle, engine="torch", cache=None)
    features = runtime.infer(runtime.prepare_points(seen))
    bank = bank_of(bundle, features, ["flat board", "rod", "two balls"], rng)
    bank.save(folder / "bank.safetensors")
    data = folder / "shapes.npz"
    return World(
        folder / "bundle.safetensors", folder / "bank.safetensors", data / "test", data / "train"
    )


def bank_of(bundle: Bundle, features: np.ndarray, nouns: list[str], rng) -> WordBank:
    """A bank of nouns in the order of equal blocks of features, and two more."""
    mean = features.mean(axis=0)
    directions = (features - mean).reshape(len(nouns), -1, features.shape[1]).mean(axis=1)
    rows = [*directions, *rng.standard_normal((2, features.shape[1]))]
    folded = fold(rows, feature_mean=mean)
    return WordBank.of([*nouns, "snow", "couch"], folded, bundle.encoder_id, {}, temperature=0.2)


def recording(digit: int, rng, count: int = 300) -> Events:
    """A bar that is drawn upright (digit 1) or a ring (digit 0), twice, on 34 x 34 pixels."""
    t = np.sort(rng.integers(0, 300_000, count)) * 1000
    phase = 2 * np.pi * t / 150e6
    where = (
        np.stack([np.cos(phase), np.sin(phase)])
        if digit == 0
        else np.stack([0 * phase, np.sin(phase)])
    )
    xy = np.rint(17 + 10 * where + rng.normal(0, 0.7, where.shape)).astype(np.uint16)
    return Events(xy[0], xy[1], rng.random(count) < 0.5, t)


def to_bs2(events: Events) -> bytes:
    rows = zip(events.x, events.y, events.polarity, events.t_ns // 1000, strict=True)
    return b"".join(
        (int(x) << 32 | int(y) << 24 | int(p) << 23 | int(t)).to_bytes(5, "big")
        for x, y, p, t in rows
    )


@pytest.fixture(scope="session")
def event_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    import torch

    from spike_perception.students.registry import create_student

    folder = tmp_path_factory.mktemp("events")
    rng = np.random.default_rng(3)
    for part, count in (("test", 16), ("train", 6)):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as file:
            lines = [f"{k + 1},{k % 2}" for k in range(count)]
            file.writestr("labels.csv", "\n".join(["sample,digit", *lines]))
            for k in range(count):
                file.writestr(f"events/{k + 1}.bs2", to_bs2(recording(k % 2, rng)))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = create_student(
        "pointformer-s",
        {"groups": 12, "neighbours": 8, "channels": 48, "heads": 3, "blocks": 2,
         "patch_channels": 8, "point_features": 1, "steps": 3},
    )  # fmt: skip
    preprocessing = {"points": 96, "channels": ["x", "y", "t", "p"], "normalise": "none"}
    seen = [
        np.stack([event_points(each, 34, 34, 96) for each in recording_windows(events, 3)])
        for events in (recording(digit, rng) for digit in (0, 1) for _ in range(12))
    ]
    batch = torch.from_numpy(np.stack(seen))
    bundle = bundle_of(settled(student, batch), "events", preprocessing)
    bundle.save(folder / "bundle.safetensors")
    with torch.no_grad():
        features = student(batch).numpy()
    bank_of(bundle, features, ["zero", "one"], rng).save(folder / "bank.safetensors")
    return World(
        folder / "bundle.safetensors",
        folder / "bank.safetensors",
        folder / "test.zip",
        folder / "train.zip",
    )
