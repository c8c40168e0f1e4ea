# SPDX-License-Identifier: Apache-2.0
"""The demo as it ships, on a short route: simulator, nodes, recorder and replay as processes."""

from __future__ import annotations

import json

import pytest

from spike_perception.cli import main

ROUTE = {
    "corners": [[12, -7], [12, -3], [8, -3], [8, -7]],
    "corner_radius": 1.0,
    "laps": [{"daylight": "noon", "lateral_offset": 0.0, "speed": 4.0}],
}


@pytest.fixture
def demo(tmp_path):
    pytest.importorskip("rclpy")
    route = tmp_path / "route.json"
    route.write_text(json.dumps(ROUTE))

    def run(*words: object) -> dict:
        out = tmp_path / "out"
        arguments = ["demo", "--out", out, "--drive", route, "--json", tmp_path / "result.json"]
        assert main([str(each) for each in (*arguments, *words)]) == 0
        return json.loads((tmp_path / "result.json").read_text())

    return run


@pytest.mark.slow
def test_two_nodes_answer_every_image_and_are_judged(demo, tmp_path, camera_files, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    result = demo("--bundle", camera_files.bundle, "--bank", camera_files.bank)
    assert result["images"] >= 10
    assert result["unanswered"] == 0
    assert result["class_answered"] == result["images"]
    assert result["class_region"] == "centre"
    # What is in view and in the tiny bank, by the word or by an alias of it.
    assert set(result["class_words"]) <= {"chair", "couch", "person", "table"}
    assert "building" in result["class_words_missing"]
    assert 0 <= result["class_in_view"] <= 1
    assert result["places"] > 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "names what it sees" in page
    assert f"of {result['class_frames']:,} frames" in page


@pytest.mark.slow
def test_without_weights_it_says_so_and_recognises_places(demo, capfd):
    result = demo("--bundle", "no_such_model")
    assert result["class_frames"] is None
    assert result["unanswered"] == 0
    told = capfd.readouterr()
    assert "objects are not named" in told.err
    assert "no_such_model" in told.err
    assert "recall@1" in told.out
