# SPDX-License-Identifier: Apache-2.0
"""From photos to a robot's files by the commands alone: teacher, distill, fold, export."""

from __future__ import annotations

import json

import pytest

from spike_perception.deploy.runtime import load_runtime
from spike_perception.training.cli import main
from spike_perception.training.data.images import open_images
from spike_perception.training.teachers import recipe
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack

pytest.importorskip("lightning_fabric")


def run(*words):
    assert main([str(word) for word in words]) == 0


def test_from_photos_to_a_robots_files(photos, image_weights, text_tower, tmp_path, monkeypatch):
    # Short names: a thousand real ones would take seconds to tokenise and encode.
    monkeypatch.setattr(recipe, "class_names", lambda: tuple(f"a {i}" for i in range(1000)))
    words = tmp_path / "words.txt"
    words.write_text("red\ngreen\nblue\n")
    teacher, cache = tmp_path / "teacher", tmp_path / "cache"
    small = ("views.size=32", "views.low=8", "project.channels=32", "texts.holdout=4",
             "texts.templates={name}")  # fmt: skip
    run("teacher", "--data", photos / "images", "--captions", photos / "captions.csv",
        "--words", words, "--out", teacher, "--config", "tiny", "--tower",
        f"test_efficientnet={image_weights}", "--text", text_tower,
        *(each for value in small for each in ("--set", value)))  # fmt: skip
    own = (f"teacher.cache={cache}", f"vocabulary.words={words}", "trainer.steps=4",
           "trainer.threads=1", "trainer.accelerator=cpu", "trainer.precision=bf16-mixed",
           "teacher.token_dimensions=8", "image.margin=0.2")  # fmt: skip
    distill = ("distill", tmp_path / "run", "--config", "tiny", "--teacher", teacher,
               "--data", f"{photos / 'images'}", "--data", f"{photos / 'labelled'},labels=true",
               "--evaluate", photos / "labelled", "--json", tmp_path / "metrics.json",
               *(each for value in own for each in ("--set", value)))  # fmt: skip
    run(*distill)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert {"labelled.f32.top_1", "labelled.int8.top_1", "labelled.teacher.top_1"} <= set(
        found["metrics"]
    )
    run("fold", tmp_path / "run", tmp_path / "packs", "--teacher", teacher, "--pack", words,
        "--calibrate", photos / "labelled", "--cache", cache, "--templates", "plain")  # fmt: skip
    model = tmp_path / "models" / "camera.safetensors"
    run("export", tmp_path / "run", model)
    # The same command again trains nothing, and gives the same weights.
    run(*distill)
    assert json.loads((tmp_path / "metrics.json").read_text())["encoder_id"] == found["encoder_id"]

    runtime = load_runtime(model, engine="torch", threads=1, cache=None)
    head = Head(
        VocabularyPack.load(tmp_path / "packs" / "words.safetensors", encoder_id=runtime.encoder_id)
    )
    images = open_images(photos / "labelled")
    counts = runtime.infer(runtime.prepare_images([images.image(i) for i in range(len(images))]))
    chosen = [head.pack.names[index] for index in head.nearest(counts)]
    right = sum(name == images.classes[k] for name, k in zip(chosen, images.labels, strict=True))
    assert right / len(images) == pytest.approx(found["metrics"]["labelled.int8.top_1"])
