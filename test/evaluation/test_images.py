# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spike_perception.deploy.bundle import Bundle
from spike_perception.errors import InputError
from spike_perception.evaluation import images, naming, naming_command
from spike_perception.evaluation.naming import choose_splits
from spike_perception.evaluation.naming_report import confusion_with_others
from spike_perception.evaluation.naming_task import NamingConfig
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.rejection import Rejection

TIMES = ("ms_per_image", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "command_line")


def call(world: Any, data: object, *options: object) -> int:
    parser = argparse.ArgumentParser()
    images.configure(parser)
    given = [data, "--bundle", world.bundle, "--engine", "torch", "--threads", 1, *options]
    return images.run(parser.parse_args([str(each) for each in given]))


def result(
    world: Any, data: object, capsys: pytest.CaptureFixture[str], *options: object
) -> dict[str, Any]:
    assert call(world, data, *options, "--json", "-") == 0
    return json.loads(capsys.readouterr().out)


def test_folder_names_are_the_words(world, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(world, world.data, capsys, "--word-bank", world.bank)
    assert found["top_1"] >= 0.8  # chance is 0.2
    assert found["top_5"] == 1.0
    assert found["images"] == 40
    assert found["skipped"] == {}
    assert found["folders"]["red_cup"] == "red cup"
    assert found["classes"] == ["blue sky", "green-leaf", "night", "red cup", "sand"]
    assert found["distractors"] == 0
    assert set(found["per_class"]) == set(found["classes"])
    shares = [each["top_1"] for each in found["per_class"].values()]
    assert found["top_1"] == pytest.approx(np.mean(shares))  # classes of equal size
    assert 0 <= found["expected_calibration_error"] <= 1
    assert found["ms_per_image"] > 0
    assert found["bundle"] == Bundle.load(world.bundle).encoder_id
    assert len(found["vocabulary"]) == 64
    assert (found["engine"], found["precision"]) == ("torch", "f32")
    methods = found["rejection"]["methods"]
    assert found["rejection"]["method"] == "max_softmax"
    assert found["auroc_unknown"] == methods["max_softmax"]["auroc"]
    assert found["fpr95_unknown"] == methods["max_softmax"]["fpr95"]
    assert methods["max_logit"]["auroc"] > 0.7
    held = [name for split in found["rejection"]["held_out"] for name in split]
    assert sorted(held) == sorted(found["classes"])  # five splits of a fifth
    assert found["energy"]["student_mj"] > 0
    assert found["few_shot"] == []


def test_two_runs_differ_in_times_alone(world, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--word-bank", world.bank, "--shots", "1,3", "--shot-seeds", 2, "--limit", 25]
    first, second = (result(world, world.data, capsys, *options) for _ in range(2))
    assert first["images"] == 25
    for key in TIMES:
        del first[key], second[key]
    assert first == second


def test_corrupt_images_are_named_and_left_out(
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = result(world, world.data, capsys, "--word-bank", world.bank)
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for each in sorted(world.data.rglob("*.png")):
            file.write(each, Path("test") / each.relative_to(world.data))
        file.writestr("test/sand/broken.png", b"\x89PNG\r\n\x1a\nnothing")
        file.writestr("test/night/text.jpg", b"no image")
    found = result(world, archive / "test", capsys, "--word-bank", world.bank)
    assert set(found["skipped"]) == {"sand/broken.png", "night/text.jpg"}
    assert found["skipped"]["night/text.jpg"].startswith("undecodable")
    assert found["images"] == 40
    for key in ("top_1", "expected_calibration_error", "auroc_unknown", "per_class"):
        assert found[key] == whole[key]


def test_nothing_readable(world, tmp_path: Path) -> None:
    for name in ("sand", "night"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="no JPEG") as caught:
        call(world, tmp_path, "--word-bank", world.bank)
    assert caught.value.reason == "no_readable_image"


def test_a_pack_with_distractors_and_a_rule(
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = WordBank.load(world.bank)
    pack = bank.vocabulary(["night", "couch", "red cup", "sand", "snow"], negatives=1)
    rule = Rejection("negative_labels", 1.0)  # nothing is known that well
    path = tmp_path / "pack.safetensors"
    pack.replace(rejection=rule).save(path)
    data = tmp_path / "data"
    for name in ("night", "red_cup", "sand"):
        shutil.copytree(world.data / name, data / name)
    found = result(world, data, capsys, "--vocabulary", path)
    assert found["vocabulary"] == VocabularyPack.load(path).vocabulary_id
    assert found["distractors"] == 2
    assert found["classes"] == ["night", "red cup", "sand"]
    assert found["rejection"]["method"] == "negative_labels"
    assert found["auroc_unknown"] == found["rejection"]["methods"]["negative_labels"]["auroc"]
    assert found["known_called_unknown"] == 1.0
    assert found["top_1"] > 0.5  # judged without rejection
    with pytest.raises(InputError, match=r"'green-leaf'"):
        call(world, world.data, "--vocabulary", path)
    with pytest.raises(InputError, match="has its own words"):
        call(world, data, "--vocabulary", path, "--labels", "sand,night,red cup")
    other = VocabularyPack.build(pack.names, pack.rows[:5], "f" * 64)
    other.save(path)
    with pytest.raises(InputError) as caught:
        call(world, data, "--vocabulary", path)
    assert caught.value.reason == "wrong_encoder"


def test_labels_name_the_folders(world, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"night": "night", "red_cup": "red cup", "sand": "beach"}
    for number, name in enumerate(words):
        shutil.copytree(world.data / name, tmp_path / f"n0{number}")
    labels = ",".join(f"n0{k}={word}" for k, word in enumerate(words.values())) + ",snow"
    found = result(world, tmp_path, capsys, "--word-bank", world.bank, "--labels", labels)
    assert found["folders"] == {"n00": "night", "n01": "red cup", "n02": "beach"}
    assert found["distractors"] == 1
    with pytest.raises(InputError, match=r"'n00'.*--labels"):
        call(world, tmp_path, "--word-bank", world.bank)


def test_few_shot_from_the_data_and_from_elsewhere(
    world, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--word-bank", world.bank, "--shots", "1,4", "--shot-seeds", 3]
    own = result(world, world.data, capsys, *options)["few_shot"]
    assert [row["shots"] for row in own] == [0, 1, 4]
    assert [row["images"] for row in own] == [20.0] * 3
    assert len(own[1]["top_1_seeds"]) == 3
    found = result(world, world.data, capsys, *options, "--shots-from", world.more)
    rows = found["few_shot"]
    assert [row["images"] for row in rows] == [40.0] * 3
    assert rows[0]["top_1"] == pytest.approx(found["top_1"])
    assert rows[2]["top_1"] >= 0.8
    with pytest.raises(InputError, match="8 examples") as caught:
        call(world, world.data, *options, "--shots", "8", "--shots-from", world.more)
    assert caught.value.reason == "too_few_examples"
    with pytest.raises(InputError, match="needs --shots"):
        call(world, world.data, "--word-bank", world.bank, "--shots-from", world.more)


def test_report_and_text(world, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    options = ["--word-bank", world.bank, "--shots", "1,2", "--shot-seeds", 2, "--report", folder]
    options += ["--json", tmp_path / "result.json", "--labels", "night,red cup,snow,couch,sand"]
    data = tmp_path / "data"
    shutil.copytree(world.data / "night", data / "night")
    shutil.copytree(world.data / "red_cup", data / "red_cup")
    shutil.copytree(world.data / "green-leaf", data / "sand")  # wrong on purpose
    assert call(world, data, *options) == 0
    text = capsys.readouterr().out
    for words in ("top-1", "report.html", "2 examples", "AUROC", "estimated energy"):
        assert words in text
    found = json.loads((tmp_path / "result.json").read_text())
    assert found == json.loads((folder / "report.json").read_text())
    assert found["bundle"] in (folder / "config.json").read_text()
    page = (folder / "report.html").read_text()
    for words in ("is sand", "max_softmax (in use)", found["vocabulary"]):
        assert words in page
    worst = found["wrong_answers"]
    assert worst[0]["is"] == "sand"
    assert worst[0]["image"].startswith("sand/")
    assert worst[0]["said"] != "sand"
    assert [each["probability"] for each in worst] == sorted(
        (each["probability"] for each in worst), reverse=True
    )
    assert worst[0]["image"] in page
    assert {each.name for each in folder.glob("*.png")} == {
        "reliability.png",
        "rejection.png",
        "latency.png",
        "few_shot.png",
        "classes.png",
        "confusion.png",
        "wrong_answers.png",
    }


def test_other_words_and_silence_share_a_column() -> None:
    pack = VocabularyPack.build(["a", "b", "c", "d"], np.eye(4), "e" * 64)
    features = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]]
    features[1] = 0
    truth = np.array([2, 0])  # the data's folders are classes 2 and 0
    labels = np.array([0, 0, 2, 2])
    found = naming.evaluate_features(Head(pack), features, labels)
    matrix, rows, columns = confusion_with_others(found, pack, truth)
    assert (rows, columns) == (["c", "a"], ["c", "a", "another word"])
    assert matrix.tolist() == [[1, 0, 1], [0, 1, 1]]
    assert found.figures["silent"] == 1
    assert found.figures["top_1"] == 0.5
    assert found.figures["per_class"]["c"]["most_often_instead"] == "d"
    few, _, columns = confusion_with_others(
        naming.evaluate_features(Head(pack), features[[0, 2]], labels[[0, 2]]), pack, truth
    )
    assert columns == ["c", "a"]
    assert few.tolist() == [[1, 0], [0, 1]]


def test_one_class_has_no_unknown(
    world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world.data / "sand", tmp_path / "data" / "sand")
    options = ["--word-bank", world.bank, "--report", tmp_path / "run"]
    found = result(world, tmp_path / "data", capsys, *options)
    assert found["top_1"] == 1.0
    assert found["auroc_unknown"] is None
    assert found["fpr95_unknown"] is None


def test_what_is_held_out() -> None:
    names = [f"word {k}" for k in range(10)]
    pack = VocabularyPack.build(names, np.eye(10), "e" * 64)
    classes = np.arange(9)  # the last one has no images

    def splits(hold_out: str) -> tuple[tuple[int, ...], ...]:
        return choose_splits(pack, classes, NamingConfig(hold_out=hold_out))

    assert [len(each) for each in splits("")] == [2] * 5
    assert [len(each) for each in splits("8")] == [8] * 5
    assert splits("0") == ()
    assert splits("word_3, WORD 1") == ((1, 3),)
    assert choose_splits(pack, classes[:1], NamingConfig()) == ()
    for wrong in ("9", "word 9", "word 99", ",".join(names[:9])):
        with pytest.raises(InputError):
            splits(wrong)


def test_refusals(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (
        ["--word-bank", tmp_path / "none"],
        ["--word-bank", world.bank, "--limit", "-1"],
        ["--word-bank", world.bank, "--splits", "0"],
        ["--word-bank", world.bank, "--shots", "x"],
        ["--word-bank", world.bank, "--shots", "1", "--shots-from", world.data],
        ["--word-bank", world.bank, "--hold-out", "5"],
    ):
        with pytest.raises(InputError):
            call(world, world.data, *wrong)
    monkeypatch.setattr(naming_command, "share_folder", lambda: tmp_path)
    with pytest.raises(InputError, match="--word-bank BANK or --vocabulary PACK"):
        call(world, world.data)
    (tmp_path / "models").mkdir()
    shutil.copy(world.bank, tmp_path / "models" / "word_bank.safetensors")
    assert call(world, world.data, "--limit", "10", "--hold-out", "0") == 0
