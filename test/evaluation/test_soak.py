# SPDX-License-Identifier: Apache-2.0
"""The soak test itself: a minute of it, and what is made of what was seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spike_perception.bags.reader import BagReader
from spike_perception.bags.writer import BagWriter
from spike_perception.cli import main
from spike_perception.errors import InputError
from spike_perception.evaluation import soak
from spike_perception.evaluation.session import LOGS, RosSession
from spike_perception.evaluation.soak import _figures, growth
from spike_perception.nodes import fault_player

DRIVE = (
    "simulate", "loop", "--drive", "two_laps", "--maximum_seconds", "1.5", "--sensors",
    "camera,lidar,events", "--odometry.rate", "60", "--events.rate", "60", "--camera.rate", "30",
)  # fmt: skip


def test_growth_compares_late_rounds_of_faults_with_those_after_the_first():
    times = np.arange(0.0, 100.0)
    memory = np.where(times < 20, 150.0, 200.0)  # the first round warms up
    memory[times >= 80] = 220.0
    seen = np.stack([times, memory], axis=1)
    rounds = np.arange(10.0, 110.0, 10.0)
    grown = {"rounds": 9, "memory_mb": 220.0, "memory_growth_percent": pytest.approx(10.0)}
    assert growth(seen, rounds) == grown
    seen[25, 1] = seen[85, 1] = 1000.0  # a moment counts for nothing
    assert growth(seen, rounds) == grown
    memory[times < 80] = 200.0
    assert growth(seen, rounds[:4])["memory_growth_percent"] == 0.0
    for few in (rounds[:3], rounds[:1], []):
        assert growth(seen, few) == {
            "rounds": max(0, len(few) - 1), "memory_mb": None, "memory_growth_percent": None,
        }  # fmt: skip
    assert growth(seen[:40], rounds)["memory_growth_percent"] is None  # it has died


def test_faults_are_counted_by_kind_and_node_and_unanswered_ones_are_named():
    met = [
        {"fault": "burst", "node": "a", "messages": 10, "answered_by": "overload", "seconds": 1.0},
        {"fault": "burst", "node": "a", "messages": 20, "answered_by": None, "seconds": 6.0},
        {"fault": "stale", "node": "a", "messages": 0, "answered_by": "stale", "seconds": 2.0},
    ]
    played = {
        "faults": met, "rounds_s": {"a": [-1.0, 0.0, 1.0, 2.0]}, "sent": {"/x": 30},
        "answers": {"a": 5}, "counters": {},
    }  # fmt: skip
    memory = {"a": np.array([[0.0, 100.0], [1.0, 100.0]])}
    result = _figures(played, memory, {"a": -9})
    assert (result["injected"], result["answered"]) == (3, 2)
    assert result["unanswered"] == ["burst of a"]
    assert result["faults"][0] == {
        "fault": "burst", "node": "a", "times": 2, "messages": 30, "answered": 1,
        "answered_by": ["overload"],
    }  # fmt: skip
    assert result["died"] == {"a": -9}
    assert result["nodes"]["a"]["answers"] == 5
    assert result["nodes"]["a"]["memory_mb"] == 100.0


@pytest.mark.parametrize("minutes", ["nan", "inf", "-1"])
def test_a_time_that_never_ends_is_refused(minutes, tmp_path, capsys):
    assert main(["soak", "--minutes", minutes, "--out", str(tmp_path / "out")]) != 0
    assert "--minutes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_drive_of_other_settings_is_made_anew(tmp_path, monkeypatch):
    small = {"maximum_seconds": 0.2, "camera.width": 32, "camera.height": 24}
    monkeypatch.setattr(soak, "DRIVE", small)

    def drive():
        soak.clear_for_drive(tmp_path)
        with RosSession(tmp_path / LOGS) as session:
            return soak.simulated(session, tmp_path)

    bag = drive()
    with BagReader(bag) as opened:
        first = len(list(opened.images("/camera/image_raw")))
    (bag / "kept").touch()
    (tmp_path / "map.db").touch()
    assert drive() == bag and (bag / "kept").exists() and not (tmp_path / "map.db").exists()
    monkeypatch.setitem(small, "camera.rate", 20.0)
    assert drive() == bag and not (bag / "kept").exists()
    with BagReader(bag) as opened:
        assert len(list(opened.images("/camera/image_raw"))) > first
    (bag / soak.MADE_WITH).unlink()  # of whom is it? not of these settings, for all that is known
    (bag / "kept").touch()
    soak.clear_for_drive(tmp_path)
    assert not bag.exists()


def test_a_folder_that_no_soak_made_is_not_deleted(tmp_path):
    (tmp_path / "drive").mkdir()
    with pytest.raises(InputError, match="not of an earlier run"):
        soak.clear_for_drive(tmp_path)
    assert (tmp_path / "drive").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_minute_of_faults_kills_no_node_and_every_fault_is_answered(
    camera_files, lidar_files, event_files, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main([*DRIVE, "-o", str(tmp_path / "drive")]) == 0
    settings = [
        f"{node}/{name}={value}"
        for node, files in (
            ("camera_classifier", camera_files),
            ("lidar_classifier", lidar_files),
            ("dvs_classifier", event_files),
        )
        for name, value in (("model.bundle", files.bundle), ("vocabulary.pack", files.pack))
    ]
    arguments = ["soak", "--minutes", "1", "--bag", str(tmp_path / "drive"), "--set", *settings]
    status = main([*arguments, "--out", str(tmp_path / "soak"), "--json", str(tmp_path / "x.json")])
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["died"] == {}
    assert result["unanswered"] == []
    assert status == 0
    injected = {(each["fault"], each["node"]) for each in result["faults"]}
    for fault, node in (
        ("truncated_data", "camera_classifier"),
        ("zero_stamp", "place_recognizer"),
        ("nan_cloud", "lidar_classifier"),
        ("seq_gap", "dvs_classifier"),
        ("weights_corrupt", "lidar_classifier"),
        ("map_corrupt", "place_recognizer"),
        ("deactivate_at_work", "dvs_classifier"),
    ):
        assert (fault, node) in injected
    assert all(each["answers"] and each["rounds"] for each in result["nodes"].values())
    assert (tmp_path / "soak" / "report.html").is_file()


def test_a_bag_without_a_nodes_sensor_is_refused(tmp_path, monkeypatch, capsys):
    with BagWriter(tmp_path / "bag") as bag:
        bag.image("/camera/image_raw", 1, "camera", np.zeros((8, 8, 3), np.uint8))
    arguments = ["fault_player", str(tmp_path / "bag"), "--nodes", "lidar_classifier"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as ended:
        fault_player.main()
    assert ended.value.code == 2
    assert "PointCloud2" in capsys.readouterr().err
