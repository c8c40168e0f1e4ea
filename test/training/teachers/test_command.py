# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.teachers import command, recipe
from spike_perception.training.teachers.teacher import load_teacher


def arguments(*words):
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(list(words))


@pytest.fixture
def towers(image_weights, text_tower):
    return ["--tower", f"test_efficientnet={image_weights}", "--text", str(text_tower)]


def settings(**values):
    words = ["--config", "tiny"]
    fixed = {
        "views.size": "32",
        "views.low": "8",
        "project.channels": "32",
        "texts.holdout": "4",
        "texts.templates": "{name}",
    }
    for path, value in {**fixed, **values}.items():
        words += ["--set", f"{path}={value}"]
    return words


@pytest.fixture
def few_classes(monkeypatch):
    """Short names: a thousand real ones would take seconds to tokenise and encode."""
    monkeypatch.setattr(recipe, "class_names", lambda: tuple(f"a {i}" for i in range(1000)))


def test_a_teacher_from_photos_and_captions(photos, towers, tmp_path, capsys, few_classes):
    nouns = tmp_path / "nouns.txt"
    nouns.write_text("dog\ncat\ncar\ntree\n")
    out = tmp_path / "teacher"
    given = arguments(
        "--data", str(photos / "images"), "--data", str(photos / "labelled"),
        "--captions", str(photos / "captions.csv"), "--words", str(nouns),
        "--evaluate", str(photos / "labelled"), "--out", str(out), "--json", "-",
        *towers, *settings(),
    )  # fmt: skip
    assert command.run(given) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == 24 - 4 + 12
    assert result["captions"] == 2 * 20
    assert result["words"] == 4
    assert result["measured"]["text_to_image"]["images"] == 4
    assert result["zero_shot"][str(photos / "labelled")]["images"] == 12
    assert set(result["losses"]) == {"captions", "conse", "geometry"}
    assert json.loads((out / "teacher.json").read_text())["settings"]["views.size"] == 32
    teacher = load_teacher(str(out))
    assert teacher.id == result["zero_shot"]["teacher_id"]
    assert teacher.channels == 32
    assert teacher.logit_scale == pytest.approx(result["logit_scale"], rel=1e-4)
    assert teacher.encode_images(np.zeros((1, 9, 9, 3), np.uint8)).features.shape == (1, 32)

    # The teacher alone can be measured again; its features need no second run of the towers.
    again = arguments("--out", str(out), "--evaluate", str(photos / "labelled"), "--json", "-")
    assert command.run(again) == 0
    assert json.loads(capsys.readouterr().out)["zero_shot"] == result["zero_shot"]


def test_the_same_seed_gives_the_same_teacher(photos, towers, tmp_path, few_classes):
    ids = []
    for seed in ("0", "0", "1"):
        out = tmp_path / f"teacher{len(ids)}"
        command.run(
            arguments("--data", str(photos / "images"), "--words", "coco", "--out", str(out),
                      "--cache", str(tmp_path / "cache"), "--seed", seed, *towers,
                      *settings(**{"project.steps": "3"}))
        )  # fmt: skip
        ids.append(load_teacher(str(out)).id)
    assert ids[0] == ids[1] != ids[2]


def test_class_words_make_a_labelled_set(photos, towers, tmp_path, few_classes):
    words = tmp_path / "classes.tsv"
    words.write_text("red\tred object\ngreen\tgreen object\nblue\tblue object\n")
    given = arguments(
        "--data", str(photos / "labelled"), "--words", "coco", "--class-words", str(words),
        "--out", str(tmp_path / "t"), "--json", str(tmp_path / "result.json"), *towers,
        *settings(**{"labels.weight": "1", "project.steps": "5"}),
    )  # fmt: skip
    command.run(given)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["labelled_images"] == 12
    assert "labels" in result["losses"]


def test_corrupt_images_are_named(photos, towers, tmp_path, capsys, few_classes):
    folder = tmp_path / "set"
    folder.mkdir()
    for index in range(6):
        (folder / f"{index}.png").write_bytes((photos / "images" / f"p{index}.png").read_bytes())
    (folder / "3.png").write_bytes(b"damaged")
    given = arguments("--data", str(folder), "--words", "coco", "--out", str(tmp_path / "t"),
                      *towers, *settings(**{"project.steps": "2"}))  # fmt: skip
    command.run(given)
    text = capsys.readouterr().out
    assert "5 images" in text
    assert "1 images skipped" in text
    assert "3.png" in text


def test_a_projection_may_be_left_out(photos, towers, tmp_path, few_classes):
    given = arguments(
        "--data", str(photos / "images"), "--words", "coco", "--out", str(tmp_path / "t"),
        *towers, *settings(**{"project.text": "none", "project.image": "linear",
                              "project.steps": "2", "views.low": "0"}),
    )  # fmt: skip
    command.run(given)
    assert load_teacher(str(tmp_path / "t")).channels == 32


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "images_missing"),
        (["--data", "missing"], "images_missing"),
        (["--data", "x", "--config", "none"], "no_config"),
        (["--data", "x", "--set", "project.steps=many"], "invalid_setting"),
        (["--data", "x", "--set", "project.step=1"], "unknown_setting"),
        (["--data", "x", "--set", "project.steps"], "invalid_setting"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, words, reason):
    with pytest.raises(InputError) as caught:
        command.run(arguments("--out", str(tmp_path / "t"), *words))
    assert caught.value.reason == reason


def test_presets_and_files_are_read(tmp_path):
    for preset in sorted(command.PRESETS.glob("*.yaml")):
        assert command.read_settings(preset.stem, []).views.size > 0
    file = tmp_path / "mine.yaml"
    file.write_text("project: {steps: 7, text: mlp}\n")
    config = command.read_settings(str(file), ["conse.top=3", "project.text=none"])
    assert (config.project.steps, config.conse.top, config.project.text) == (7, 3, "none")
    for text in ("[1]", "a: [", "project: 3"):
        file.write_text(text)
        with pytest.raises(InputError):
            command.read_settings(str(file), [])
