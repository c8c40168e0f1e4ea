# SPDX-License-Identifier: Apache-2.0
"""``evaluate bag`` with real nodes, recorder and replay as processes over real DDS."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.bags.from_images import write_bag
from spike_perception.bags.images import ImageSequence
from spike_perception.bags.writer import BagWriter
from spike_perception.cli import main
from spike_perception.evaluation import bag_run
from spike_perception.evaluation.report import shown
from spike_perception.sensing.event_packets import EventPacker

from ..conftest import blocks

PLACES = 12
START_NS = 1_000_000_000


def write_images(folder: Path, noise: float, seed: int) -> Path:
    """The same places, each time in other noise; two of them look like each other."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for k in range(PLACES):
        scene = blocks(3 if k == 9 else k).astype(np.float64)
        pixels = scene + rng.normal(0, noise, scene.shape)
        cv2.imwrite(str(folder / f"{k:02d}.png"), np.clip(pixels, 0, 255).astype(np.uint8))
    return folder


@pytest.fixture
def drives(tmp_path) -> tuple[Path, Path]:
    """Folders of images, each with a bag of the same name and ``_bag`` beside it."""
    pytest.importorskip("rclpy")
    folders = write_images(tmp_path / "summer", 20, 1), write_images(tmp_path / "winter", 110, 2)
    for folder in folders:
        with ImageSequence(folder) as images:
            write_bag(images, f"{folder}_bag", rate_hz=2.0)
    return folders


def evaluate(tmp_path: Path, *words: object) -> dict:
    file = tmp_path / "result.json"
    assert main([*map(str, ("evaluate", *words)), "--json", str(file)]) == 0
    return json.loads(file.read_text())


@pytest.mark.slow
def test_places_as_evaluate_places_finds_them_and_the_same_again(drives, tmp_path, capsys):
    summer, winter = drives
    pure = evaluate(tmp_path, "places", summer, winter, "--descriptor", "patch_norm")
    played = evaluate(
        tmp_path,
        *("bag", f"{winter}_bag", "--launch", "vpr", "--reference", f"{summer}_bag"),
        *("--descriptor", "patch_norm", "--report", tmp_path / "report"),
        *("--compare", "strict", "decision.threshold=999.0"),
    )
    assert set(pure) <= set(played)
    timed = ("latency", "queries_per_second", "map_seconds")
    told = ("config", "reference", "query", "command_line", "versions", "machine")
    same = {key for key in pure if not key.startswith(timed) and key not in told}
    assert {key: played[key] for key in same} == {key: pure[key] for key in same}
    assert pure["recall_at_1"] < 1.0  # or equality would say little
    assert played["unanswered"] == 0
    assert played["places"] == PLACES
    assert played["accepted"] == played["statuses"]["matched"]
    assert 0 < played["latency_p50_ms"] <= played["end_to_end_p50_ms"] < 60_000
    assert played["memory_mb"] > 20
    assert played["cpu_ms_per_answer"] > 0

    runs = played["runs"]
    assert runs["strict"]["answers_id"] != runs["base"]["answers_id"]
    assert runs["strict"]["accepted"] == 0
    assert runs["strict"]["recall_at_1"] == pure["recall_at_1"]  # the threshold rejects, no more

    report = tmp_path / "report"
    page = (report / "report.html").read_text()
    for heading in ("Runs of place_recognizer", "Similarity matrix", "Dropped messages", "Nodes"):
        assert heading in page
    assert "default-src 'none'; img-src data:" in page  # nothing is loaded from outside
    assert json.loads((report / "report.json").read_text())["recall_at_1"] == pure["recall_at_1"]
    for name in ("precision_recall", "similarity", "latency"):
        assert (report / f"{name}.png").stat().st_size > 1000
    assert (report / "base" / "answers" / "metadata.yaml").is_file()

    # The map of that run serves as the reference as well; a second run of one bag answers alike.
    again = evaluate(
        tmp_path,
        *("bag", f"{winter}_bag", "--launch", "vpr"),
        *("--reference", report / "base" / "reference" / "map.db"),
    )
    assert again["descriptor"] == "patch_norm"
    assert again["answers_id"] == played["answers_id"]
    assert "R@1" in capsys.readouterr().out


def camera_bag(path: Path) -> Path:
    """An image without a stamp, five that the tiny bundle knows, and two that it does not."""
    with BagWriter(path) as bag:
        for k in range(8):
            stamp = 0 if k == 0 else START_NS + k * 500_000_000
            bag.image("/front/image", stamp, "camera", blocks(k if k < 6 else 90 + k))
    return path


@pytest.mark.slow
def test_names_are_judged_and_drops_have_reasons(tmp_path, camera_files, monkeypatch, world):
    pytest.importorskip("rclpy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bag = camera_bag(tmp_path / "bag")
    truth = tmp_path / "truth.txt"
    words = [*camera_files.words[:5], "zebra", "", camera_files.words[0]]
    truth.write_text("\n".join(words))
    found = evaluate(
        tmp_path,
        *("bag", bag, "--launch", "camera", "--ground-truth", truth),
        *("--set", f"model.bundle={camera_files.bundle}"),
        *("--set", f"vocabulary.pack={camera_files.pack}"),
        *("--compare", "others", f"vocabulary.pack={camera_files.other_pack}"),
        *("--report", tmp_path / "report"),
    )
    pure = evaluate(
        tmp_path,
        *("images", world.data, "--bundle", world.bundle, "--word-bank", world.bank),
    )
    assert set(pure) <= set(found)
    assert found["messages"] == 8
    assert found["unanswered"] == 1
    assert found["drops"] == {"zero_stamp": 1}
    assert found["unexplained"] == 0
    assert found["missing_words"] == ["zebra"]
    # Of eight images the first was dropped; one's word is none of the vocabulary's, one has none.
    assert found["images"] == 5
    assert found["top_1"] == pytest.approx(4 / 5)
    assert found["per_class"]["chair"] == {
        "images": 1,
        "top_1": 0.0,
        "top_5": found["per_class"]["chair"]["top_5"],
        "most_often_instead": "table",
    }
    assert found["config"]["image.topic"] == "/front/image"
    assert found["energy_mj"] > 0
    assert found["weights_id"] == found["runs"]["others"]["weights_id"]
    assert found["vocabulary"] != found["runs"]["others"]["vocabulary"]
    assert found["runs"]["others"]["images"] == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Names over time" in page
    assert "zero_stamp" in page


def sensors_bag(path: Path, event_files, scan_of) -> Path:
    """Three scans of two objects, one and none, and packets that close eight windows."""
    pack = EventPacker(*event_files.size)
    with BagWriter(path) as bag:
        for k, numbers in enumerate(((0, 1), (1,), ())):
            bag.point_cloud("/lidar/points", START_NS + k, "lidar", scan_of(*numbers))
        for k in range(9):
            stamp = START_NS + 10 + k * 50_000_000
            packet = pack(event_files.burst(k, start_ns=stamp, span_ns=40_000_000))
            bag.event_packet("/event_camera/events", stamp, stamp, "event_camera", packet)
    return path


@pytest.mark.slow
def test_every_node_says_what_its_energy_is_of(
    tmp_path, lidar_files, event_files, scan_of, monkeypatch, capsys
):
    pytest.importorskip("rclpy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bag = sensors_bag(tmp_path / "bag", event_files, scan_of)
    nodes = {"lidar_classifier": lidar_files, "dvs_classifier": event_files}
    settings = [
        word
        for node, files in nodes.items()
        for key, value in (
            ("model.bundle", files.bundle),
            ("vocabulary.pack", files.pack),
            ("vocabulary.bank", files.bank),
        )
        for word in ("--set", f"{node}/{key}={value}")
    ]
    found = evaluate(
        tmp_path,
        *("bag", bag, "--launch", "perception", "--report", tmp_path / "report", *settings),
        *("--set", "events.window.overlap=0.0"),
    )
    lidar, events = (found[node] for node in nodes)
    assert lidar["energy"]["of"] == "frame"
    assert lidar["energy"]["objects"] == 1.0 == lidar["answers"] / lidar["messages"]
    assert lidar["energy_mj"] == pytest.approx(lidar["energy"]["object_mj"])
    assert (lidar["unanswered"], lidar["without_objects"], lidar["unexplained"]) == (0, 1, 0)
    assert events["unanswered"] is None and events["without_objects"] is None
    assert events["energy"]["of"] == "window"
    assert events["energy_mj"] == events["energy"]["student_mj"] > 0
    for each in (lidar, events):
        assert each["energy"]["head_mj"] > 0  # of the words that the node says it has
    told = capsys.readouterr().out
    assert f"energy a frame, estimated {shown(lidar['energy_mj'])} mJ" in told
    assert "3 messages, 3 answers, 0 unanswered, 1 without objects" in told
    assert f"energy a window, estimated {shown(events['energy_mj'])} mJ" in told
    page = (tmp_path / "report" / "report.html").read_text()
    assert "a frame of 1.0 objects, lidar_classifier" in page
    assert "a window, dvs_classifier" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--set", "sequence.lenght=3"), "none of place_recognizer has a parameter"),
        (("--set", "sequence.length=0"), "allowed is at least 1"),
        (("--compare", "base", "sequence.length=2"), "the label is taken"),
        (("--compare", "alone"), "then parameters"),
    ],
)
def test_wrong_settings_are_refused_before_anything_starts(tmp_path, capsys, words, told):
    pytest.importorskip("rclpy")
    bag = camera_bag(tmp_path / "bag")
    assert main(["evaluate", "bag", str(bag), "--launch", "vpr", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_ground_truth_of_places_needs_a_reference(tmp_path, capsys):
    pytest.importorskip("rclpy")
    bag = camera_bag(tmp_path / "bag")
    words = ["evaluate", "bag", str(bag), "--launch", "vpr", "--ground-truth", "truth.npy"]
    assert main(words) == 2
    assert "--reference" in capsys.readouterr().err


def test_words_that_do_not_fit_are_refused_before_the_bag_is_played(tmp_path, capsys, monkeypatch):
    pytest.importorskip("rclpy")
    monkeypatch.setattr(bag_run, "play", lambda *_: pytest.fail("it was played"))
    bag, words = camera_bag(tmp_path / "bag"), tmp_path / "words.txt"
    words.write_text("car\n")
    given = ["evaluate", "bag", str(bag), "--launch", "camera", "--ground-truth", str(words)]
    assert main(given) == 2
    assert "one line a message" in capsys.readouterr().err


def test_a_bag_without_the_sensor_is_refused(tmp_path, capsys):
    pytest.importorskip("rclpy")
    bag = camera_bag(tmp_path / "bag")
    assert main(["evaluate", "bag", str(bag), "--launch", "lidar"]) == 2
    assert "PointCloud2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_node_that_refuses_its_files_says_so_at_once(tmp_path, capsys):
    pytest.importorskip("rclpy")
    bag = camera_bag(tmp_path / "bag")
    words = ["evaluate", "bag", str(bag), "--launch", "camera", "--set", "model.bundle=no_such"]
    assert main(words) == 2
    assert "camera_classifier cannot be configured" in capsys.readouterr().err


@pytest.mark.slow
def test_where_counts_differ_a_file_alone_tells_the_true_places(drives, tmp_path):
    summer, _ = drives
    with BagWriter(tmp_path / "few") as bag:
        for k in (1, 4, 7):
            bag.image("/camera/image_raw", (1 + k) * START_NS, "camera", blocks(k))
    asked = ("bag", tmp_path / "few", "--launch", "vpr", "--report", tmp_path / "report")
    found = evaluate(tmp_path, *asked, "--reference", f"{summer}_bag", "--descriptor", "patch_norm")
    assert found["ground_truth"].startswith("none: 3 images, 12 places")
    assert found["answers"] == 3
    assert "recall_at_1" not in found

    np.save(tmp_path / "truth.npy", np.array([1, 4, 7]))
    asked += ("--reference", tmp_path / "report" / "base" / "reference" / "map.db")
    found = evaluate(tmp_path, *asked, "--ground-truth", tmp_path / "truth.npy")
    assert found["ground_truth"] == str(tmp_path / "truth.npy")
    assert found["recall_at_1"] == 1.0
