# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from spike_perception.cli import main as perception
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.network import student_of
from spike_perception.errors import InputError
from spike_perception.training.cli import main
from spike_perception.training.config import DataConfig
from spike_perception.training.distill import distill
from spike_perception.training.fold import Folder, HeldOut
from spike_perception.training.run_folder import Projection, RunFolder
from spike_perception.training.teachers import teacher as teachers
from spike_perception.training.words import load_words
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack

from . import colours

pytest.importorskip("lightning_fabric")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images and a finished run."""
    folder = tmp_path_factory.mktemp("fold")
    colours.write_images(folder / "photos", 12, 0, labelled=False)
    colours.write_images(folder / "test", 8, 2)
    config = dataclasses.replace(
        colours.tiny_config(folder), data=(DataConfig(path=str(folder / "photos")),)
    )
    distill(config, folder / "run", "spike-train distill", teacher=colours.ColourTeacher())
    return folder


@pytest.fixture(autouse=True)
def teacher(monkeypatch):
    monkeypatch.setattr(teachers, "load_teacher", lambda name, file: colours.ColourTeacher())


def fold(folder, *words):
    given = ["fold", folder / "run", folder / "out", "--teacher", "x", "--cache", folder / "cache"]
    return main([*map(str, given), *map(str, words)])


def test_packs_and_banks_name_colours_on_the_robot(folder, capsys):
    words = folder / "words.txt"
    assert fold(folder, "--pack", words, "--bank", words, "--json", folder / "x.json") == 0
    pack = VocabularyPack.load(folder / "out" / "words.safetensors")
    bank = WordBank.load(folder / "out" / "words.bank.safetensors")
    bundle = RunFolder(folder / "run").bundle()
    assert pack.names == ("red", "green", "blue", "stone") == bank.names
    assert pack.encoder_id == bank.encoder_id == bundle.encoder_id
    assert pack.teacher.name == "colours" and pack.prompts[0] == "a {name}"
    assert bank.names[bank.find("scarlet")] == "red"
    with torch.no_grad():
        blue = np.full((1, 3, 32, 32), 0, np.float32)
        for channel, value in enumerate(colours.CLASSES["blue"]):
            blue[:, channel] = (value / 255 - 0.45) / 0.25
        counts = student_of(bundle)(torch.from_numpy(blue)).numpy()
    assert Head(pack).decide(counts[0]).hypotheses[0].name == "blue"
    files = json.loads((folder / "x.json").read_text())["files"]
    assert [each["kind"] for each in files] == ["pack", "bank"]
    assert "4 names" in capsys.readouterr().out


@pytest.mark.parametrize(("images", "labels", "count"), [("test", "folders", 24),
                                                        ("photos", "teacher", 36)])  # fmt: skip
def test_calibration_by_folders_and_by_the_teacher(folder, images, labels, count):
    assert fold(folder, "--pack", folder / "words.txt", "--calibrate", folder / images,
                "--method", "max_logit", "--json", folder / "x.json") == 0  # fmt: skip
    pack = VocabularyPack.load(folder / "out" / "words.safetensors")
    found = json.loads((folder / "x.json").read_text())["files"][0]
    assert (found["labels"], found["images"]) == (labels, count) and found["top_1"] > 0.8
    assert pack.rejection.method == "max_logit" and pack.rejection.count_low > 0
    assert found["temperature"] == pack.temperature != pytest.approx(1 / 30)


def test_a_calibrated_bank_gives_probabilities_that_can_be_believed(folder, capsys):
    words = folder / "words.txt"
    shown = colours.write_images(folder / "shown", 8, 5)
    bundle = folder / "run" / "bundle.safetensors"
    file = folder / "out" / "words.bank.safetensors"

    def judged(*options):
        assert fold(folder, "--bank", words, *options, "--json", folder / "x.json") == 0
        judge = ["evaluate", "images", shown, "--bundle", bundle, "--word-bank", file,
                 "--engine", "torch", "--threads", "1", "--json", folder / "y.json"]  # fmt: skip
        assert perception(list(map(str, judge))) == 0
        files = json.loads((folder / "x.json").read_text())["files"]
        return files[0], json.loads((folder / "y.json").read_text())

    _, before = judged()
    assert before["temperature"] == pytest.approx(1 / 30)
    fitted, after = judged("--calibrate", folder / "test")
    assert (fitted["images"], fitted["classes"], fitted["labels"]) == (24, 3, "folders")
    assert after["temperature"] == fitted["temperature"] != before["temperature"]
    assert after["top_1"] == before["top_1"]
    assert after["expected_calibration_error"] < before["expected_calibration_error"]
    assert after["rejection"]["calibrated"] is False  # a threshold would hold for these words alone
    vocabulary = WordBank.load(file).vocabulary(["red", "blue"])  # as a node takes words
    assert vocabulary.temperature == fitted["temperature"]


def test_a_bank_needs_labels_of_two_of_its_nouns(folder, tmp_path, capsys):
    words = folder / "words.txt"
    assert fold(folder, "--bank", words, "--calibrate", folder / "photos") == 2
    assert "no labels; a word bank" in capsys.readouterr().err
    few = tmp_path / "few.txt"
    few.write_text("red\nstone\n")
    assert fold(folder, "--bank", few, "--calibrate", folder / "test") == 2
    assert "1 of the classes" in capsys.readouterr().err
    assert not (folder / "out" / "few.bank.safetensors").exists()


PLANE = {"day": (1.0, 0.0), "night": (1.0, 1.0)}


class PlaneTeacher:
    """Texts are given directions in a plane."""

    id = "e" * 64

    def encode_text(self, texts):
        rows = np.array([PLANE[text] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize(("mean", "alias", "told"), [(0.0, "", 1), (0.9, "", 0), (0.0, "dusk", 1)])
def test_the_teacher_answers_with_the_texts_of_the_pack(tmp_path, mean, alias, told):
    # An alias finds its word but has no part in the row, or "dusk" would be looked up in PLANE.
    (tmp_path / "words.txt").write_text(f"day\nnight{' | ' if alias else ''}{alias}\n")
    words = load_words(tmp_path / "words.txt")
    teacher, text_mean = PlaneTeacher(), np.array([mean, 0], np.float32)
    projection = Projection(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), text_mean,
                            "0" * 64, {"name": "plane", "sha256": teacher.id}, 1.0)  # fmt: skip
    pack = Folder(projection, teacher, ("{name}",)).pack(words)
    features = np.array([[1.0, 0.9]], np.float32)
    labels = np.full(1, -1)
    held = HeldOut(features, (), labels, features, text_mean, teacher, None)
    assert held._told(pack).tolist() == [told]
    np.testing.assert_array_equal(Head(pack).nearest(features), [told])  # which learnt from it


def test_headings_become_coarser_classes_and_counts_can_be_centred(folder):
    words = folder / "tree.txt"
    words.write_text("[red]\nscarlet red\n[green]\ngreen grass\n[]\nblue\n")
    assert fold(folder, "--pack", words, "--hierarchy", "--centre-features") == 0
    pack = VocabularyPack.load(folder / "out" / "tree.safetensors")
    assert pack.names == ("scarlet red", "green grass", "blue", "red", "green")
    assert pack.parents == (3, 4, -1, -1, -1)
    assert pack.feature_mean is not None and pack.bias.any()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--pack"),
        (["--pack", "nowhere"], "nowhere"),
        (["--pack", "coco", "--pack", "mine/coco.txt"], "coco"),
        (["--pack", "coco", "--pass-rate", "0"], "rate"),
        (["--pack", "coco", "--calibrate", "test"], "no class"),
    ],
)
def test_what_cannot_be_folded_is_said(folder, capsys, monkeypatch, words, named):
    monkeypatch.chdir(folder)
    assert fold(folder, *words) == 2
    assert named in capsys.readouterr().err


def test_texts_of_another_teacher_are_refused(folder, capsys, monkeypatch):
    monkeypatch.setattr(colours.ColourTeacher, "id", "d" * 64)
    assert fold(folder, "--pack", folder / "words.txt") == 2
    assert "run's own teacher" in capsys.readouterr().err


def test_a_projection_that_does_not_belong_to_the_bundle_is_refused(folder, tmp_path):
    for name in ("bundle.safetensors", "projection.safetensors"):
        (tmp_path / name).write_bytes((folder / "run" / name).read_bytes())
    found = Projection.load(tmp_path / "projection.safetensors")
    dataclasses.replace(found, encoder_id="0" * 64).save(tmp_path / "projection.safetensors")
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path).projection()
    assert caught.value.reason == "wrong_encoder"
    dataclasses.replace(found, text_mean=found.text_mean[:-1]).save(
        tmp_path / "projection.safetensors"
    )
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path).projection()
    assert caught.value.reason == "bad_projection"
    with pytest.raises(InputError, match="train first"):
        RunFolder(tmp_path).card()


def test_export_writes_a_small_model_and_its_card_once(folder, capsys, monkeypatch):
    target = folder / "models" / "camera.safetensors"
    assert main(["export", str(folder / "run"), str(target)]) == 0
    shipped = Bundle.load(target)
    assert shipped.encoder_id == RunFolder(folder / "run").bundle().encoder_id
    assert target.with_suffix(".md").read_text() == RunFolder(folder / "run").card()
    weight = shipped.tensors["embed.layer.weight"]
    assert weight.dtype == np.float16 and shipped.tensors["embed.norm.running_var"].dtype == "f4"
    assert target.stat().st_size < 2.5 * shipped.parameter_count + 60_000
    assert main(["export", str(folder / "run"), str(target)]) == 2
    assert "--force" in capsys.readouterr().err
    monkeypatch.setattr("spike_perception.training.export.MAX_BYTES", 1000)
    assert main(["export", str(folder / "run"), str(target), "--force"]) == 2
    assert "smaller student" in capsys.readouterr().err
    assert main(["export", str(folder / "run"), str(folder / "camera.pt")]) == 2
