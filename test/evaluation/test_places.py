# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.evaluation import places
from spike_perception.evaluation.metrics import matches_from_scores
from spike_perception.evaluation.places import Scored, evaluate_places, wrong_matches

COUNT = 24


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drives past the same textured walls, the second darker, noisy and a little shifted."""
    folder = tmp_path_factory.mktemp("drives")
    rng = np.random.default_rng(3)
    for name in ("day", "night", "short"):
        (folder / name).mkdir()
    for k in range(COUNT):
        wall = cv2.resize(rng.integers(0, 256, (12, 24, 3), np.uint8), (104, 48))
        dark = np.roll(wall, 2, axis=1) * 0.4 + rng.normal(20, 6, wall.shape)
        cv2.imwrite(str(folder / "day" / f"{k}.png"), wall)
        cv2.imwrite(str(folder / "night" / f"{k}.png"), np.clip(dark, 0, 255))
        if k < 5:
            cv2.imwrite(str(folder / "short" / f"{k}.png"), wall)
    return folder


def call(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    places.configure(parser)
    return places.run(parser.parse_args([str(each) for each in arguments]))


@pytest.mark.parametrize("descriptor", ["patch_norm", "patch_norm_bits"])
def test_a_drive_is_recognised(
    drives: Path, descriptor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--descriptor", descriptor, "--tolerance", "0", "--json", "-"]
    assert call(drives / "day", drives / "night", *options) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["recall_at_1"] >= 0.9
    assert result["queries"] == result["references"] == COUNT
    assert result["descriptor"] == descriptor
    assert result["descriptor_bytes"] == (8192 if descriptor == "patch_norm" else 256)
    assert result["config"]["descriptor.name"] == descriptor
    assert result["config"]["sequence.length"] == result["sequence"] == 1
    assert result["config"]["tolerance"] == 0
    assert len(result["weights_id"]) == 64
    assert result["queries_per_second"] > 0
    assert result["latency_p95_ms"] >= result["latency_p50_ms"] > 0
    assert result["versions"]["numpy"] == np.__version__
    for key in (
        "recall_at_5",
        "recall_at_10",
        "recall_at_1_matchable",
        "average_precision",
        "recall_at_100_precision",
        "command_line",
    ):
        assert key in result


def test_report_and_text(drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = np.arange(COUNT)
    truth[[3, 7]] = -1  # queries without a place: always wrong matches
    np.save(tmp_path / "truth.npy", truth)
    options = ["--sequence", "3", "--ground-truth", tmp_path / "truth.npy"]
    options += ["--report", tmp_path / "run", "--json", tmp_path / "result.json"]
    assert call(drives / "day", drives / "night", *options) == 0
    assert "report.html" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == json.loads((tmp_path / "run" / "report.json").read_text())
    assert result["queries_matchable"] == COUNT - 2
    assert result["recall_at_1"] == pytest.approx(
        result["recall_at_1_matchable"] * (COUNT - 2) / COUNT
    )
    assert result["single_frame"]["recall_at_1"] >= 0.8
    assert result["weights_id"] in (tmp_path / "run" / "config.json").read_text()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "no true place in the reference" in page
    assert result["weights_id"] in page
    assert {each.name for each in (tmp_path / "run").glob("*.png")} == {
        "precision_recall.png",
        "recall_at_k.png",
        "scores.png",
        "similarity.png",
        "wrong_matches.png",
    }


def test_settings(drives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sequence", "3", "--set", "sequence.max_velocity=2", "--json", "-"]
    call(drives / "day", drives / "night", *options)
    assert json.loads(capsys.readouterr().out)["config"]["sequence.max_velocity"] == 2.0
    for wrong in (
        ["--set", "nothing"],
        ["--set", "none=1"],
        ["--sequence", "0"],
        ["--tolerance", "-1"],
        ["--descriptor", "none"],
        ["--ground-truth", "none.npy"],
    ):
        with pytest.raises(InputError):
            call(drives / "day", drives / "night", *wrong)


def test_counts_that_differ_need_a_ground_truth(
    drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"5 query and 24 reference.*--ground-truth"):
        call(drives / "day", drives / "short")
    np.save(tmp_path / "truth.npy", np.eye(5, COUNT, dtype=bool))
    options = ["--ground-truth", tmp_path / "truth.npy", "--json", "-"]
    assert call(drives / "day", drives / "short", *options) == 0
    assert json.loads(capsys.readouterr().out)["recall_at_1"] == 1.0
    with pytest.raises(InputError, match="transposed"):
        call(drives / "short", drives / "day", "--ground-truth", tmp_path / "truth.npy")


def test_nothing_to_find_is_null_not_a_crash(
    drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "truth.npy", np.full(COUNT, -1))
    options = ["--ground-truth", tmp_path / "truth.npy", "--report", tmp_path / "run"]
    assert call(drives / "day", drives / "night", *options, "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["queries_matchable"] == 0
    for key in ("recall_at_1", "recall_at_20", "recall_at_1_matchable", "average_precision"):
        assert result[key] is None
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.count("no query has a true place") >= 2  # recall@1 and recall@5
    assert call(drives / "day", drives / "night", *options[:2]) == 0
    told = capsys.readouterr().out
    assert "queries with a match  no query has a true place" in told and "R@1" not in told


def test_figures_are_a_pure_function_of_scores_and_truth() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((6, 6)).astype(np.float32)
    scored = Scored(scores, scores + np.eye(6, dtype=np.float32), np.full(6, 0.5), 1.0)
    found = evaluate_places(scored, np.eye(6, dtype=bool))
    assert found.figures["recall_at_1"] == 1.0
    assert found.figures["queries_per_second"] == 2.0
    assert found.figures["latency_p50_ms"] == 500.0
    assert found.figures == evaluate_places(scored, np.eye(6, dtype=bool)).figures


def test_wrong_matches_are_the_most_confident_and_apart() -> None:
    scores = np.zeros((6, 2))
    scores[:, 1] = [0.9, 0.8, 0.1, 0.7, 0.2, 0.6]
    truth = np.zeros((6, 2), bool)
    truth[5, 1] = True
    matches = matches_from_scores(scores, truth)
    assert wrong_matches(matches, count=9, apart=1) == [0, 1, 3, 4, 2]
    assert wrong_matches(matches, count=9, apart=2) == [0, 3]
    assert wrong_matches(matches, count=1, apart=1) == [0]


@pytest.mark.parametrize(("length", "least"), [(1, 0.13), (21, 0.70)])
def test_nordland(
    data: Path, length: int, least: float, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = data / "nordland_64x32.zip"
    if not archive.is_file():
        pytest.skip(f"{archive} is absent")
    options = ["--sequence", length, "--tolerance", 1, "--json", "-"]
    assert call(archive / "summer", archive / "winter", *options) == 0
    assert json.loads(capsys.readouterr().out)["recall_at_1"] >= least
