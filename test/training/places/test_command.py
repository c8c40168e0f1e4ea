# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")
pytest.importorskip("tensorboard")

from spike_perception.deploy.bundle import Bundle  # noqa: E402
from spike_perception.errors import InputError  # noqa: E402
from spike_perception.places.descriptors import create_descriptor  # noqa: E402
from spike_perception.training.places import command  # noqa: E402
from spike_perception.training.places.development import judge  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A way of 40 places in two lights, and photos."""
    folder = tmp_path_factory.mktemp("drives")
    rng = np.random.default_rng(0)
    for each in ("summer", "winter", "photos"):
        (folder / each).mkdir()
    for k in range(40):
        scene = cv2.resize(
            rng.integers(0, 256, (6, 12), dtype=np.uint8), (64, 32), interpolation=cv2.INTER_CUBIC
        )
        cv2.imwrite(str(folder / "summer" / f"{k:02}.png"), scene)
        cv2.imwrite(str(folder / "winter" / f"{k:02}.png"), (scene * 0.4 + 20).astype(np.uint8))
        if k < 12:
            photo = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "photos" / f"{k:02}.png"), photo)
    return folder


def call(drives: Path, out: Path, *more: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    given = [
        str(out), "--config", "tiny",
        "--traverse", f"{drives}/summer[:24]", f"{drives}/winter[:24]",
        "--photos", f"{drives}/photos",
        "--develop", f"{drives}/summer[24:]", f"{drives}/winter[24:]",
        "--set", "trainer.steps=6", "--set", "trainer.accelerator=cpu", *more,
    ]  # fmt: skip
    return command.run(parser.parse_args(given))


def test_a_run_leaves_a_descriptor(drives: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call(drives, out) == 0
    found = json.loads((out / "metrics.json").read_text())
    bundle = Bundle.load(out / "bundle.safetensors")
    assert bundle.kind == "place" and found["encoder_id"] == bundle.encoder_id
    assert "24 places" in found["data"][0] and "12 photos" in found["data"][1]
    assert bundle.weights_id in (out / "card.md").read_text()
    assert "dimension: 64" in (out / "config.yaml").read_text()
    figures = {name.partition(".")[2]: each for name, each in found["metrics"].items()}
    # What was measured in training is what a robot computes, engine and all.
    for form, name in (("float", "spiking"), ("bits", "spiking_bits")):
        descriptor = create_descriptor(f"{name}:{out / 'bundle.safetensors'}")
        vectors = [
            np.stack(
                [
                    descriptor.describe(cv2.imread(str(drives / season / f"{k:02}.png")))
                    for k in range(24, 40)
                ]
            )
            for season in ("summer", "winter")
        ]
        again = judge(descriptor.kind, vectors[0], vectors[1])
        figure = figures[f"f32.{form}_recall_at_1_sequence_1"]
        assert abs(again["recall_at_1_sequence_1"] - figure) <= 1 / 16


class KilledError(Exception):
    """Ends a run in the middle."""


def test_an_interrupted_run_ends_in_the_same_weights(
    drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spike_perception.training.places.sampling import PlaceBatches
    from spike_perception.training.trainer import CHECKPOINT, read_checkpoint

    every = ["--set", "trainer.checkpoint_every=3"]
    call(drives, tmp_path / "whole", *every)
    make = PlaceBatches.__call__

    def dying(self, step, rank, world):
        if step == 4:
            raise KilledError
        return make(self, step, rank, world)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(PlaceBatches, "__call__", dying)
        call(drives, tmp_path / "parts", *every)
    assert read_checkpoint(tmp_path / "parts" / CHECKPOINT)["step"] == 3
    call(drives, tmp_path / "parts", *every)
    states = [read_checkpoint(tmp_path / n / CHECKPOINT)["objective"] for n in ("whole", "parts")]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def test_distillation_needs_a_teacher(drives: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        call(drives, tmp_path, "--set", "loss.distillation=1.0")
    assert caught.value.reason == "unknown_teacher"


def test_a_teacher_is_followed(
    drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spike_perception.training.teachers import teacher

    class Seen:
        """Stands for a large model: what it says of an image is the image, coarsely."""

        name, id = "coarse", "0" * 64

        def encode_images(self, images):
            small = [cv2.resize(each, (6, 3), interpolation=cv2.INTER_AREA) for each in images]
            tokens = np.stack(small).astype(np.float32) / 255
            tokens = np.concatenate([tokens, tokens**2], 3)
            flat = tokens.reshape(len(tokens), -1)
            features = flat / np.linalg.norm(flat, axis=1, keepdims=True)
            return teacher.ImageFeatures(features, tokens)

    monkeypatch.setattr(teacher, "load_teacher", lambda name, checkpoint: Seen())
    changes = {
        "loss.distillation": 1.0,
        "teacher.token_dimensions": 2,
        "teacher.cache": tmp_path / "cache",
    }
    options = [part for k, v in changes.items() for part in ("--set", f"{k}={v}")]
    options += ["--teacher", "coarse"]
    assert call(drives, tmp_path / "run", *options) == 0
    bundle = Bundle.load(tmp_path / "run" / "bundle.safetensors")
    assert bundle.provenance["teacher"] == {"name": "coarse", "sha256": "0" * 64}
    assert not [name for name in bundle.tensors if "manifold" in name]
    assert "distilled from coarse" in (tmp_path / "run" / "card.md").read_text()


@pytest.mark.parametrize(
    "change",
    ["dimension=12", "sampling.neighbourhood=7", "sampling.span=2", "trainer.steps=0",
     "student.name=spike-pointnet-s", "nonsense=1"],
)  # fmt: skip
def test_settings_that_contradict_are_refused(change: str, drives: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        call(drives, tmp_path, "--set", change)


@pytest.mark.parametrize("preset", command.preset_names())
def test_presets_resolve(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args(["x", "--config", preset, "--show-config"])) == 0
    assert "traverse_views:" in capsys.readouterr().out


def test_development_drives_are_not_learnt_from(drives: Path, tmp_path: Path) -> None:
    develop = ["--develop", f"{drives}/summer[20:30]", f"{drives}/winter[20:30]"]
    with pytest.raises(InputError, match=r"summer: 4 frames .* 20\.png") as caught:
        call(drives, tmp_path, *develop)
    assert caught.value.reason == "develop_is_learnt"


def test_two_judged_parts_of_one_drive_have_a_figure_each(drives: Path, tmp_path: Path) -> None:
    develop = ["--develop", f"{drives}/summer[30:]", f"{drives}/winter[30:]"]
    assert call(drives, tmp_path / "run", *develop, "--set", "trainer.steps=1") == 0
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    names = {name.partition(".")[0] for name in found if "recall" in name}
    assert len(names) == 2 and any(name.endswith("#2") for name in names)


@pytest.mark.parametrize("teacher", ["0", "1"])
def test_nothing_to_learn_from(teacher: str, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    given = [str(tmp_path), "--config", "tiny", "--set", f"loss.distillation={teacher}"]
    with pytest.raises(InputError, match="--traverse"):
        command.run(parser.parse_args(given))
