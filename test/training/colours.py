# SPDX-License-Identifier: Apache-2.0
"""A world of three colours: images, a teacher that knows them, settings that learn in seconds."""

from __future__ import annotations

import cv2
import numpy as np

from spike_perception.training.config import load_config
from spike_perception.training.teachers.teacher import ImageFeatures

CLASSES = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220)}
CHANNELS, TOKEN_CHANNELS = 12, 8


class ColourTeacher:
    """Embeds images by their mean colour and texts by the colour that they name."""

    name, id, logit_scale = "colours", "c" * 64, 30.0

    def __init__(self):
        rng = np.random.default_rng(0)
        self._features = rng.standard_normal((3, CHANNELS)).astype(np.float32)
        self._tokens = rng.standard_normal((3, TOKEN_CHANNELS)).astype(np.float32)
        self.images = self.texts = 0

    def encode_images(self, images):
        self.images += len(images)
        small = [cv2.resize(each, (4, 4), interpolation=cv2.INTER_AREA) for each in images]
        tokens = np.stack(small).astype(np.float32) / 255.0 - 0.4
        return ImageFeatures(_unit(tokens.mean((1, 2)) @ self._features), tokens @ self._tokens)

    def encode_text(self, texts):
        self.texts += len(texts)
        rows = []
        for text in texts:
            found = [np.array(c, np.float32) / 255.0 - 0.4 for n, c in CLASSES.items() if n in text]
            rng = np.random.default_rng(len(text))
            rows.append((found[0] if found else rng.standard_normal(3)) @ self._features)
        return _unit(np.asarray(rows, np.float32))


def _unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def write_images(folder, count, seed, labelled=True):
    """``count`` noisy PNGs a colour, one of them corrupt where there are labels."""
    rng = np.random.default_rng(seed)
    for name, colour in CLASSES.items():
        inner = folder / name if labelled else folder
        inner.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            noise = rng.integers(-40, 40, (30, 40, 3))
            image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(inner / f"{name}{index}.png"), image[..., ::-1])
    if labelled:
        (folder / "red" / "broken.png").write_bytes(b"no image")
    return folder


def tiny_config(folder, **changes):
    """The tiny preset, its words and cache in ``folder``."""
    words = folder / "words.txt"
    words.write_text("red | scarlet\ngreen\nblue\nstone\n")
    return load_config("tiny").changed(
        {
            "vocabulary.words": str(words),
            "teacher.cache": str(folder / "cache"),
            "teacher.token_dimensions": 4,
            "trainer.threads": 1,
            "trainer.accelerator": "cpu",
            "trainer.steps": 20,
            "trainer.optimiser.learning_rate": 5e-3,
            "student.overrides.features": 32,
            "student.overrides.first_stride": 4,
            **changes,
        }
    )
