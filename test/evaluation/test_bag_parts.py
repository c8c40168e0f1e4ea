# SPDX-License-Identifier: Apache-2.0
"""Parts of ``evaluate bag`` without any process."""

from __future__ import annotations

import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from spike_perception.bags.event_replay import open_recording
from spike_perception.bags.reader import StampedPose
from spike_perception.bags.writer import BagWriter
from spike_perception.errors import InputError
from spike_perception.evaluation import ground_truth
from spike_perception.evaluation.answers import Answers, judge, poses_at
from spike_perception.evaluation.bag import _text
from spike_perception.evaluation.bag_classes import Words, confusion, judge_names, read_labels
from spike_perception.evaluation.bag_places import (
    Poses,
    Reference,
    is_topic,
    judge_places,
    make_truth,
    read_poses,
)
from spike_perception.evaluation.bag_run import NodeResult
from spike_perception.evaluation.class_answers import ClassAnswers
from spike_perception.evaluation.drive_report import tell_drive
from spike_perception.evaluation.heard import (
    Times,
    answers_id,
    drops,
    end_to_end_s,
    latest,
    positions,
)
from spike_perception.evaluation.launchable import CAMERA, LAUNCHES, PLACES
from spike_perception.evaluation.node_parameters import read_parameter_file, resolve
from spike_perception.evaluation.replayed import hearing, replay_arguments
from spike_perception.evaluation.report import NullReport
from spike_perception.evaluation.usage import UsageSampler
from spike_perception.places.types import Status
from spike_perception.share import share_folder

from ..conftest import blocks


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_answers_find_their_message_by_stamp():
    stamps = ints(30, 10, 20, 10)
    assert positions(stamps, ints(10, 20, 25, 30)).tolist() == [1, 2, -1, 0]
    assert positions(ints(), ints(10)).tolist() == [-1]
    assert latest(ints(10, 20, 30), ints(9, 10, 29, 99)).tolist() == [-1, 0, 1, 2]


def test_end_to_end_begins_at_the_tick_before_the_message():
    sent = Times(ints(1_000, 2_000, 3_000_000_000), ints(11, 12, 13))
    clock = Times(ints(500_000_000, 600_000_000), ints(1_000, 2_000))
    seconds = end_to_end_s(
        sent, clock, ints(0, 1, -1, 2), ints(510_000_000, 630_000_000, 640_000_000, 650_000_000)
    )
    assert seconds[:2].tolist() == pytest.approx([0.01, 0.03])
    assert np.isnan(seconds[2:]).all()  # to no message; and a message whose tick was not heard


def test_messages_of_one_time_begin_at_their_own_ticks():
    # A replay in lockstep: image, its answer, then the scan of the same time and its two answers.
    sent = Times(ints(1_000, 2_000), ints(1, 2))
    clock = Times(ints(100, 400, 900) * 1_000_000, ints(1_000, 1_000, 2_000))
    image = end_to_end_s(sent, clock, ints(0), ints(350_000_000))
    scan = end_to_end_s(sent, clock, ints(0, 0), ints(500, 950) * 1_000_000)
    assert image.tolist() == pytest.approx([0.25])
    assert scan.tolist() == pytest.approx([0.1, 0.55])


def test_the_same_answers_have_the_same_id():
    first = answers_id((ints(1, 2), (("a",), ("b",))))
    assert first == answers_id((ints(1, 2), (("a",), ("b",))))
    assert first != answers_id((ints(1, 3), (("a",), ("b",))))
    assert first != answers_id((ints(1, 2), (("a", "b"),)))


def test_drops_are_read_off_the_diagnostics():
    said = {"input": {"received": "9", "dropped overload": "3", "dropped zero_stamp": "1"}}
    assert drops(said) == {"overload": 3, "zero_stamp": 1}
    assert drops({}) == {}


def place_answers() -> Answers:
    """Answers to stamps 1, 2 and 4 of the queries 1 to 4."""
    none = np.float32(-np.inf)
    return Answers(
        ints(1, 2, 4),
        ints(Status.MATCHED, Status.BELOW_THRESHOLD, Status.MATCHED),
        ints(7, -1, 9),
        np.array([5.0, 2.0, 6.0]),
        np.array([[7, 8], [9, 8], [9, -1]], np.int64),
        np.array([[5.0, 4.0], [2.0, 1.0], [6.0, none]], np.float32),
        np.array([3.0, 3.0, 3.0]),
        ints(100, 200, 300),
    )


def test_places_are_judged_by_the_reference_images_that_they_were_made_of():
    # Image 1 of the reference never became a place.
    reference = Reference(ints(7, 8, 9), ints(0, 2, 3), 4, None, None)
    query = Times(ints(1, 2, 3, 4), ints(1, 2, 3, 4))
    truth, _ = make_truth("", reference, 4, None, 0, 5.0)
    found = judge_places(place_answers(), query, reference, truth, None, 1)
    assert found.result.final.place.tolist() == [0, 3, -1, 3]
    assert found.result.final.correct.tolist() == [True, False, False, True]
    assert found.result.figures["recall_at_1"] == 0.5
    assert found.result.figures["queries_answered"] == 3
    assert found.result.figures["accepted_right"] == 2
    assert found.scores[1].tolist() == [-np.inf, -np.inf, 1.0, 2.0]
    with pytest.raises(InputError, match="counts agree"):
        make_truth("", reference, 5, None, 0, 5.0)


def test_where_no_query_has_a_true_place_the_bag_is_told_so():
    reference = Reference(ints(7, 8, 9), ints(0, 2, 3), 4, None, None)
    query = Times(ints(1, 2, 3, 4), ints(1, 2, 3, 4))
    nowhere = np.zeros((4, 4), bool)
    judged = judge_places(place_answers(), query, reference, nowhere, None, 1).result.figures
    assert judged["recall_at_1"] is None and judged["recall"] is None
    costs = dict.fromkeys(("end_to_end_p50_ms", "end_to_end_p95_ms", "end_to_end_p99_ms"), 9.0)
    costs |= dict.fromkeys(("energy", "energy_mj", "cpu_percent", "memory_mb", "unanswered"))
    costs["without_objects"] = None
    figures = {**judged, **costs, "messages": 4, "answers": 3, "drops": {}}

    def told(figures):
        return _text({"base": {"place_recognizer": NodeResult(figures, ints(), None, print)}}, [])

    # What the node accepted all the same was wrong.
    assert "\n  no query has a true place   precision 0\n" in told(figures)
    unjudged = {key: figures[key] for key in figures.keys() - judged.keys()}
    latencies = {key: value for key, value in judged.items() if key.startswith("latency")}
    assert "\n  without ground truth\n" in told({**unjudged, **latencies})


def pose(stamp_ns: int, x: float, yaw: float = 0.0) -> StampedPose:
    turn = np.array([0, 0, np.sin(yaw / 2), np.cos(yaw / 2)])
    return StampedPose(stamp_ns, "map", np.array([x, 0, 0]), turn)


def test_poses_say_nothing_of_times_that_they_do_not_reach():
    second = 1_000_000_000
    drive = [pose(12 * second, 4.0), pose(10 * second, 0.0), pose(14 * second, 8.0)]
    stamps = ints(8, 10, 13, 15, 1_700_000_000) * second
    position, heading = poses_at(stamps, drive)
    assert position[1:4, 0].tolist() == pytest.approx([0.0, 6.0, 8.0])
    assert np.isnan(position[[0, 4]]).all()
    assert np.isnan(heading).tolist() == [True, False, False, False, True]
    # Or a drive with poses of another clock would stand still, and every answer be right.
    truth = ground_truth.from_poses(position, position, 1.0)
    assert truth.sum() == 3


def test_poses_of_another_clock_are_refused(tmp_path):
    with BagWriter(tmp_path / "drive") as bag:
        for k in (1, 2):
            stamp = k * 1_000_000_000
            bag.odometry("/odom", stamp, "map", "base_link", (k, 0, 0), (0, 0, 0, 1))
    found = read_poses(tmp_path / "drive", "/odom", ints(1, 2) * 1_000_000_000)
    assert found is not None
    assert found.position[:, 0].tolist() == [1.0, 2.0]
    with pytest.raises(InputError, match="of one clock"):
        read_poses(tmp_path / "drive", "/odom", ints(1_700_000_000_000_000_000))


def test_one_drive_is_judged_by_earlier_places_that_look_the_same_way():
    second = 1_000_000_000
    stamps = ints(0, 10, 30, 40, 50) * second
    answers = Answers(
        stamps,
        ints(Status.NEW_PLACE, Status.NEW_PLACE, Status.MATCHED, Status.MATCHED, Status.MATCHED),
        ints(7, 8, 7, 8, 7),
        np.array([np.nan, 1.0, 9.0, 8.0, 7.0]),
        ints(-1, 7, 7, 8, 7)[:, None],
        np.array([[-np.inf], [1], [9], [8], [7]], np.float32),
        np.ones(5),
        stamps,
    )
    truth = [pose(0, 0), pose(10 * second, 9), pose(30 * second, 0.5), pose(40 * second, 0.5),
             pose(50 * second, 0, np.pi)]  # fmt: skip
    judged = judge(answers, truth, within_m=1.0, exclusion_s=20.0)
    assert judged.matches.matchable.tolist() == [False, False, True, True, False]
    assert judged.right.tolist() == [False, False, True, False, False]
    assert judged.figures["recall"] == 0.5
    assert judged.figures["precision"] == pytest.approx(1 / 3)


class Strips(NullReport):
    """Looks at the rows of images alone."""

    def strips(self, title, name, strips, *, note=""):
        self.rows = list(strips)


def test_a_drive_is_told_though_one_of_its_images_is_damaged(tmp_path):
    stamps = ints(1, 2, 60) * 1_000_000_000
    with BagWriter(tmp_path / "drive") as bag:
        for k, stamp in enumerate(stamps.tolist()):
            data = b"damaged" if k == 1 else cv2.imencode(".png", blocks(k))[1].tobytes()
            bag.compressed_image("/image", stamp, "camera", data, "png")
    answers = Answers(
        stamps[[0, 2]],
        ints(Status.NEW_PLACE, Status.MATCHED),
        ints(3, 3),
        np.array([np.nan, 9.0]),
        ints(-1, 3)[:, None],
        np.array([[-np.inf], [9]], np.float32),
        np.ones(2),
        stamps[[0, 2]],
    )
    judged = judge(answers, [pose(0, 0.0), pose(60_000_000_000, 0.3)], 1.0, 20.0)
    report = Strips()
    tell_drive(report, judged.figures, judged, tmp_path / "drive", "/image", answers.stamp_ns)
    (row,) = report.rows
    assert [np.array_equal(f.image, blocks(k)) for f, k in zip(row.frames, (2, 0), strict=True)]


def test_a_ground_truth_file_may_be_given_by_its_whole_path(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("car\n")
    assert is_topic("/odom")
    for file in ("truth.npy", words, tmp_path / "none.npy"):
        assert not is_topic(str(file))
    np.save(tmp_path / "truth.npy", ints(0, -1))
    reference = Reference(ints(1, 2), ints(0, 1), 2, None, None)  # type: ignore[arg-type]
    truth, told = make_truth(str(tmp_path / "truth.npy"), reference, 2, None, 0, 1.0)
    assert truth.tolist() == [[True, False], [False, False]]
    assert told == str(tmp_path / "truth.npy")


@pytest.mark.parametrize(
    ("topic", "heard"),
    [("/front/jpeg", "/front/jpeg"), ("/front/image/compressed", "/front/image")],
)
def test_compressed_images_reach_the_node_whatever_their_topic(tmp_path, topic, heard):
    with BagWriter(tmp_path / "drive") as bag:
        bag.compressed_image(topic, 1_000_000_000, "camera", b"", "jpeg")
    with open_recording(tmp_path / "drive") as opened:
        node = hearing(opened, CAMERA, resolve(CAMERA, [], {}))
    assert node is not None
    assert node.parameters["image.topic"] == heard
    assert node.parameters["image.transport"] == "compressed"
    words = replay_arguments(tmp_path / "drive", [node], [], ["/object_class"], realtime=False)
    renamed = f"{topic}:={heard}/compressed"
    assert (renamed in words) == (topic != f"{heard}/compressed")


def test_poses_are_a_ground_truth_too():
    line = Poses(np.array([[0.0, 0, 0], [10, 0, 0]]), np.zeros(2))
    turned = Poses(line.position, np.array([0.0, np.pi]))
    reference = Reference(ints(1, 2), ints(0, 1), 2, None, line)
    truth, told = make_truth("/odom", reference, 2, turned, 1, 3.0)
    assert truth.tolist() == [[True, False], [False, False]]  # there, but looking back
    assert "/odom" in told
    with pytest.raises(InputError, match="no poses"):
        make_truth("/odom", reference, 2, None, 1, 3.0)


def test_names_are_judged_where_the_truth_is_a_word_of_the_vocabulary():
    words = Words(("Car", "tree"), "v", "pack", "w", "")
    answers = ClassAnswers(
        ints(1, 2, 3, 4),
        (("tree", "Car"), ("Car", "tree"), (), ("tree",)),
        np.array([False, True, True, False]),
        np.array([0.9, 0.6, 0.0, 0.8]),
        np.ones(4),
        ints(1, 2, 3, 4),
    )
    found = judge_names(answers, ints(0, 1, 2, 3), ["car", "car", "tree", "bus"], words)
    assert found.figures["images"] == 3
    assert found.figures["top_1"] == pytest.approx(1 / 3)
    assert found.figures["top_5"] == pytest.approx(2 / 3)
    assert found.figures["missing_words"] == ["bus"]
    assert found.figures["known_called_unknown"] == pytest.approx(2 / 3)
    assert found.figures["recall_known"] == 0.0  # the right one was called unknown
    assert found.figures["precision_known"] == 0.0
    assert found.figures["named"] == {"Car": 1, "tree": 2}
    assert found.judged is not None
    matrix, rows, columns = confusion(found.judged, words.names)
    assert rows == ["Car", "tree"]
    assert columns == ["Car", "tree", "nothing"]
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 1]]
    nothing = judge_names(answers, ints(0, 1, 2, 3), [""] * 4, words)
    assert nothing.judged is None
    assert nothing.figures["top_1"] is None


def test_labels_have_a_line_for_each_message(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("car\n\ntree\n", encoding="utf-8-sig")  # as editors on Windows write it
    times = Times(ints(1, 2, 3), ints(1, 2, 3))
    assert read_labels(str(file), tmp_path, times, simulated=False)[0] == ("car", "", "tree")
    with pytest.raises(InputError, match="3 lines, but the bag 2"):
        read_labels(str(file), tmp_path, Times(ints(1, 2), ints(1, 2)), simulated=False)
    with pytest.raises(InputError, match="no ground truth file"):
        read_labels(str(tmp_path / "none"), tmp_path, times, simulated=False)


def test_parameters_come_from_defaults_file_and_command_line(tmp_path):
    pytest.importorskip("rclpy")
    file = tmp_path / "mine.yaml"
    file.write_text(
        "/**:\n  place_recognizer:\n    ros__parameters:\n      autostart: true\n"
        "      sequence: {length: 7}\n      decision: {margin: 2}\n"
        "camera_classifier:\n  ros__parameters: {head: {hypotheses: 3}}\n"
    )
    assert read_parameter_file(file, "camera_classifier") == {"head.hypotheses": 3}
    given = [str(file), "decision.margin=3", "camera_classifier/sequence.length=9"]
    found = resolve(PLACES, given, {"sequence.length": 1, "map.mode": "mapping"})
    assert found["sequence.length"] == 7
    assert found["decision.margin"] == 3.0
    assert found["map.mode"] == "mapping"
    assert found["map.path"] == "places.db"  # of config/vpr.yaml
    file.write_text("place_recognizer:\n  ros__parameters: {strange: {one: 1}}\n")
    with pytest.raises(InputError, match=r"has no parameter strange\.one"):
        resolve(PLACES, [str(file)], {})
    file.write_text("a: [")
    with pytest.raises(InputError, match="no YAML file"):
        read_parameter_file(file, "camera_classifier")


def test_every_launch_has_a_file_and_every_node_its_parameters():
    pytest.importorskip("rclpy")
    for launch, nodes in LAUNCHES.items():
        assert (share_folder() / "launch" / f"{launch}.launch.py").is_file()
        for each in nodes:
            assert resolve(each, [], {})[f"{each.sensor}.topic"]
            assert f"{each.sensor}.reliability" in resolve(each, [], {})


def test_usage_is_seen_from_outside():
    busy = "x = bytearray(b'x') * 50_000_000\nprint(flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        with UsageSampler({"busy": process.pid}, 0.05) as usage:
            start = time.time_ns()
            time.sleep(0.6)
            end = time.time_ns()
    finally:
        process.kill()
        process.wait()
    found = usage.figures("busy", start, end, 10)
    assert found["memory_mb"] > 50
    assert found["cpu_percent"] > 2
    assert found["cpu_ms_per_answer"] == pytest.approx(
        found["cpu_percent"] / 100 * (end - start) / 1e6 / 10
    )
    assert usage.recent_percent("busy", 0.3) > 2
