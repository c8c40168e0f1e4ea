# SPDX-License-Identifier: Apache-2.0
"""The demo as it ships, on a short route: simulator, nodes, recorder and replay as processes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spike_perception.cli import main
from spike_perception.deploy.bundle import Bundle
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.folding import fold

ROUTE = {
    "corners": [[12, -7], [12, -3], [8, -3], [8, -7]],
    "corner_radius": 1.0,
    "laps": [{"daylight": "noon", "lateral_offset": 0.0, "speed": 4.0}],
}
WORDS = ("building", "car", "tree", "wall")


@pytest.fixture
def demo(tmp_path, monkeypatch):
    pytest.importorskip("rclpy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    route = tmp_path / "route.json"
    route.write_text(json.dumps(ROUTE))

    def run(*words: object) -> dict:
        out = tmp_path / "out"
        arguments = ["demo", "--out", out, "--drive", route, "--json", tmp_path / "result.json"]
        assert main([str(each) for each in (*arguments, *words)]) == 0
        return json.loads((tmp_path / "result.json").read_text())

    return run


@pytest.fixture
def points_bank(tmp_path, lidar_files):
    """Random words of the world for the tiny encoder of points."""
    encoder = Bundle.load(lidar_files.bundle)
    rows = np.random.default_rng(0).standard_normal((len(WORDS), encoder.embedding_dim))
    bank = WordBank.of(WORDS, fold(rows, feature_mean=0 * rows[0]), encoder.encoder_id, {})
    bank.save(tmp_path / "points_bank.safetensors")
    return tmp_path / "points_bank.safetensors"


@pytest.mark.slow
def test_four_nodes_answer_and_are_judged(
    demo, tmp_path, camera_files, lidar_files, event_files, points_bank
):
    result = demo(
        *("--bundle", camera_files.bundle, "--bank", camera_files.bank),
        *("--points-bundle", lidar_files.bundle, "--points-bank", points_bank),
        *("--events-bundle", event_files.bundle, "--events-pack", event_files.pack),
    )
    assert result["left_out"] == {}
    assert result["images"] >= 10
    assert result["unanswered"] == 0
    assert result["class_answered"] == result["images"]
    assert result["class_region"] == "centre"
    # What is in view and in the tiny bank, by the word or by an alias of it.
    assert set(result["class_words"]) <= {"chair", "couch", "person", "table"}
    assert "building" in result["class_words_missing"]
    assert 0 <= result["class_in_view"] <= 1
    assert result["places"] > 0
    lidar, events = result["lidar"], result["events"]
    assert lidar["images"] > 0
    assert set(lidar["per_class"]) <= set(WORDS) & set(lidar["objects"])
    assert "bench" in lidar["missing_words"]
    assert 0 <= lidar["top_1"] <= 1
    seen = result["seen"]["building"]
    assert seen["lidar_objects"] == lidar["objects"]["building"]["seen"] > 0
    assert seen["camera_frames"] > 0
    assert events["images"] == 0
    assert sum(events["named"].values()) > 10
    page = (tmp_path / "out" / "report.html").read_text()
    for told in ("names what it senses", "Objects of the LiDAR", "Classes of the world"):
        assert told in page
    assert "the vocabulary has no word for anything in this world" in page
    assert f"of {result['class_frames']:,} frames" in page


@pytest.mark.slow
def test_without_weights_it_says_so_and_recognises_places(demo, tmp_path, capfd):
    missing = [
        part
        for name in ("bundle", "points-bundle", "events-bundle")
        for part in (f"--{name}", f"no_{name}")
    ]
    result = demo(*missing)
    assert result["class_frames"] is None
    assert (result["lidar"], result["events"]) == (None, None)
    assert result["unanswered"] == 0
    told = capfd.readouterr()
    assert "/ 0 of 21" in told.out
    for node, name in (
        ("camera_classifier", "bundle"),
        ("lidar_classifier", "points-bundle"),
        ("dvs_classifier", "events-bundle"),
    ):
        assert f"{node} is left out: 'no_{name}'" in told.err
        assert f"no_{name}" in result["left_out"][node]
    assert "recall@1" in told.out
    assert "Nodes left out" in (tmp_path / "out" / "report.html").read_text()
