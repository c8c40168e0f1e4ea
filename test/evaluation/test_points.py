# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spike_perception.bags.labelled_points import open_point_set
from spike_perception.errors import InputError
from spike_perception.evaluation import points
from spike_perception.evaluation.points import draw_object


def call(world: Any, data: object, *options: object) -> int:
    parser = argparse.ArgumentParser()
    points.configure(parser)
    given = [data, "--bundle", world.bundle, "--engine", "torch", "--threads", 1, *options]
    return points.run(parser.parse_args([str(each) for each in given]))


def result(
    world: Any, data: object, capsys: pytest.CaptureFixture[str], *options: object
) -> dict[str, Any]:
    assert call(world, data, "--word-bank", world.bank, *options, "--json", "-") == 0
    return json.loads(capsys.readouterr().out)


def test_class_names_are_the_words(point_world, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(point_world, point_world.data, capsys)
    assert found["classes"] == ["flat board", "rod", "two-balls"]
    assert found["folders"]["flat_board"] == "flat board"
    assert found["top_1"] >= 0.8  # chance is a third
    assert found["top_5"] == 1.0
    assert found["images"] == found["objects"] == 18
    assert found["ms_per_object"] == found["ms_per_image"] > 0
    assert found["skipped"] == {}
    assert 0 <= found["expected_calibration_error"] <= 1
    assert found["auroc_unknown"] > 0.5
    assert found["energy"]["ratio_to_ann_twin"] > 0
    assert found["energy"]["samples"] == 18


def test_a_folder_of_files_is_judged_as_the_archive(
    point_world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = result(point_world, point_world.data, capsys)
    shapes = open_point_set(point_world.data)
    for k in range(len(shapes)):
        path = tmp_path / "test" / shapes.classes[shapes.labels[k]] / f"{k}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, shapes.points(k))
    (tmp_path / "test" / "rod" / "bad.ply").write_bytes(b"ply\n")
    other = result(point_world, tmp_path, capsys, "--split", "test")
    assert list(other["skipped"]) == ["rod/bad.ply"]
    for key in ("top_1", "expected_calibration_error", "auroc_unknown", "per_class"):
        assert other[key] == found[key]


def test_a_part_of_the_data(point_world, capsys: pytest.CaptureFixture[str]) -> None:
    npz = point_world.data.parent
    found = result(point_world, npz, capsys, "--split", "test", "--only", "rod,flat_board")
    assert found["classes"] == ["flat board", "rod"]
    assert found["images"] == 12
    words = ["--labels", "flat board,rod,two balls,snow"]
    found = result(point_world, point_world.data, capsys, "--only", "rod", *words)
    assert (found["images"], found["distractors"]) == (6, 3)
    last = result(point_world, point_world.data, capsys, "--last", 7)
    assert {name: each["images"] for name, each in last["per_class"].items()} == {
        "rod": 1,
        "two-balls": 6,
    }
    first = result(point_world, point_world.data, capsys, "--first", 8, "--limit", 4)
    assert first["images"] == 4
    for wrong in (["--first", 1, "--last", 1], ["--only", "chair"], ["--split", "dev"]):
        with pytest.raises(InputError):
            call(point_world, npz if wrong[0] == "--split" else point_world.data, *wrong)


def test_up_axis_changes_what_is_seen(point_world, capsys: pytest.CaptureFixture[str]) -> None:
    found = [result(point_world, point_world.data, capsys, "--up", up) for up in ("z", "y")]
    assert found[0]["mean_confidence"] != found[1]["mean_confidence"]


def test_few_shot_and_report(
    point_world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--word-bank", point_world.bank, "--shots", "1,4", "--shot-seeds", 2]
    options += ["--shots-from", point_world.more, "--report", tmp_path / "run"]
    options += ["--labels", "two_balls=rod,rod=two balls"]  # wrong on purpose
    options[-1] = "two-balls=rod,rod=two balls,flat_board=flat board"
    assert call(point_world, point_world.data, *options) == 0
    text = capsys.readouterr().out
    for words in ("18 objects of 3 classes", "4 examples", "ms per object", "estimated energy"):
        assert words in text
    found = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [row["shots"] for row in found["few_shot"]] == [0, 1, 4]
    assert found["top_1"] < 0.5
    assert found["wrong_answers"][0]["image"].startswith("points_test[")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Skipped images" not in page
    assert (tmp_path / "run" / "wrong_answers.png").is_file()


def test_examples_are_not_drawn_from_the_split_that_is_judged(point_world) -> None:
    options = ["--word-bank", point_world.bank, "--split", "test", "--shots", "1"]
    with pytest.raises(InputError, match="--shots-from is DATA itself"):
        call(point_world, point_world.data.parent, *options, "--shots-from", point_world.data)


def test_refusals(point_world, world, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        call(world, point_world.data, "--word-bank", point_world.bank)
    assert caught.value.reason == "wrong_kind"
    np.savez(tmp_path / "bare.npz", points=np.ones((2, 5, 3)))
    with pytest.raises(InputError) as caught:
        call(point_world, tmp_path / "bare.npz", "--word-bank", point_world.bank)
    assert caught.value.reason == "no_labels"


def test_an_object_is_drawn_upright() -> None:
    rod = np.zeros((50, 3), np.float32)
    rod[:, 2] = np.linspace(-1, 1, 50)
    picture = draw_object(rod)
    rows, columns = np.nonzero((picture < 255).all(axis=2))
    assert np.ptp(rows) > 100
    assert np.ptp(columns) <= 2
    assert (draw_object(rod[:1]) < 255).any()
