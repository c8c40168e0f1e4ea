# SPDX-License-Identifier: Apache-2.0
"""A world of three solids: clouds, event recordings, and a teacher that knows their names."""

from __future__ import annotations

import argparse
import dataclasses

import cv2
import numpy as np
import pytest

from spike_perception.training.teachers.teacher import ImageFeatures

SOLIDS = {"ball": (1.0, 1.0, 1.0), "rod": (0.1, 0.1, 1.0), "plate": (1.0, 1.0, 0.08)}
CHANNELS = 16


class SolidTeacher:
    """Embeds texts by the solid that they name, and pictures by their pixels."""

    name, id, logit_scale, channels = "solids", "d" * 64, 20.0, CHANNELS

    def __init__(self):
        rng = np.random.default_rng(0)
        self._words = _unit(rng.standard_normal((3, CHANNELS)))
        self._pixels = rng.standard_normal((48, CHANNELS))

    def encode_images(self, images):
        small = np.stack(
            [cv2.resize(each, (4, 4), interpolation=cv2.INTER_AREA) for each in images]
        )
        features = _unit((small.reshape(len(images), -1) / 255.0 - 0.5) @ self._pixels)
        return ImageFeatures(features, np.zeros((len(images), 1, 1, 1), np.float32))

    def encode_text(self, texts):
        rows = []
        for text in texts:
            known = [row for row, name in zip(self._words, SOLIDS, strict=True) if name in text]
            seed = sum(map(ord, text))
            rows.append(known[0] if known else np.random.default_rng(seed).normal(size=CHANNELS))
        return _unit(np.stack(rows))


def _unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def _clouds(count, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(SOLIDS)
    points = (
        _unit(rng.standard_normal((count, 200, 3))) * np.array(list(SOLIDS.values()))[labels, None]
    )
    return points.astype(np.float32), labels.astype(np.int64)


def _write_events(folder, count, seed):
    """Recordings as N-MNIST lays them out: ON on the left and OFF on the right, or the reverse."""
    rng = np.random.default_rng(seed)
    (folder / "events").mkdir(parents=True)
    rows = ["sample,digit"]
    for number in range(1, count + 1):
        label = number % 2
        t = np.sort(rng.integers(0, 300_000, 300))
        x, y = rng.integers(0, 34, 300), rng.integers(0, 34, 300)
        on = (x < 17) == bool(label)
        words = (x << 32) | (y << 24) | (on.astype(np.int64) << 23) | t
        data = words.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 3:]
        (folder / "events" / f"{number}.bs2").write_bytes(data.tobytes())
        rows.append(f"{number},{label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def solids(tmp_path_factory):
    """``shapes.npz`` with the splits train and dev, ``events`` with recordings of two classes."""
    folder = tmp_path_factory.mktemp("solids")
    train, dev = _clouds(48, 1), _clouds(18, 2)
    np.savez(
        folder / "shapes.npz",
        points_train=train[0],
        label_train=train[1],
        points_dev=dev[0],
        label_dev=dev[1],
        classes=np.array(list(SOLIDS)),
    )
    _write_events(folder / "events", 40, 3)
    return argparse.Namespace(
        folder=folder, shapes=str(folder / "shapes.npz"), teacher=SolidTeacher()
    )


@pytest.fixture(scope="session")
def run(solids):
    """A finished SVL run on the solids."""
    from spike_perception.training.svl.command import train_svl
    from spike_perception.training.svl.config import SVLConfig, parse_entry

    config = dataclasses.replace(
        SVLConfig.load("tiny").changed(
            {
                "teacher.cache": str(solids.folder / "cache"),
                "trainer.epochs": 20.0,
                "trainer.accelerator": "cpu",
                "trainer.threads": 1,
                "trainer.optimiser.learning_rate": 0.005,
                "augment.dropout": 0.0,
                "augment.cut": 0.0,
                "augment.one_sided": 0.0,
            }
        ),
        data=(parse_entry(f"{solids.shapes},split=train"),),
        evaluate=(parse_entry(f"{solids.shapes},split=dev"),),
    )
    out = solids.folder / "run"
    document = train_svl(config, out, "spike-train svl ...", teacher=solids.teacher)
    return argparse.Namespace(config=config, out=out, document=document)
