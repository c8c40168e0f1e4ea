# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from spike_perception.bags.writer import BagWriter
from spike_perception.errors import InputError
from spike_perception.evaluation.class_answers import ClassAnswers
from spike_perception.evaluation.lidar_truth import inside, judge_scan, read_lidar_truth

NONE = np.full(7, np.nan)


def solid(centre, size, yaw, count, rng) -> np.ndarray:
    """Points within a turned box."""
    own = (rng.random((count, 3)) - 0.5) * size
    cos, sin = np.cos(yaw), np.sin(yaw)
    x, y = cos * own[:, 0] - sin * own[:, 1], sin * own[:, 0] + cos * own[:, 1]
    return (np.stack([x, y, own[:, 2]], axis=1) + centre).astype(np.float32)


def met(label, centre, size, yaw, points) -> dict:
    return {
        "label": label,
        "points": points,
        "seen_centre": centre,
        "seen_size": size,
        "yaw": yaw,
    }


CAR = ((8.0, 2.0, 0.0), (4.0, 1.8, 1.4), 0.5)
WALL = ((5.0, -3.0, 0.5), (8.0, 0.2, 2.0), 0.0)
DOOR = ((5.0, -3.0, 0.2), (1.0, 0.2, 1.8), 0.0)  # in the wall
PICTURE = ((0.0, 6.0, 1.0), (1.0, 0.1, 0.6), 0.0)  # no word
CHAIR = ((0.0, 3.0, 0.0), (0.5, 0.5, 0.9), 0.0)  # few points


@pytest.fixture
def scan():
    rng = np.random.default_rng(0)
    things = (("car", CAR, 200), ("wall", WALL, 300), ("door", DOOR, 80), ("picture", PICTURE, 60))
    things += (("chair", CHAIR, 20),)
    points = [solid(*place, count, rng) for _, place, count in things]
    ground = rng.uniform(-20, 20, (500, 3)) * (1, 1, 0) - (0, 0, 1.5)
    objects = [met(label, *place, count) for label, place, count in things]
    return np.concatenate([*points, ground.astype(np.float32)]), objects


def box(place, scale=1.0, turn=0.0) -> np.ndarray:
    centre, size, yaw = place
    return np.array([*centre, *(scale * np.array(size)), yaw + turn])


def test_points_are_told_inside_a_turned_box():
    xyz = np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 1.0, 0.6]])
    turned = (0.0, 0.0, 0.0, 4.0, 0.2, 1.0, np.pi / 4)
    assert inside(xyz, turned).tolist() == [True, False, False]
    assert not inside(xyz, NONE).any()


def test_a_box_is_of_the_class_that_most_of_its_points_are_of(scan):
    points, objects = scan
    boxes = np.array(
        [
            box(CAR, turn=np.pi),  # front and back are not told apart
            box(WALL),  # has the door in it
            box(PICTURE),
            (7.0, 0.0, 0.3, 9.0, 8.0, 2.4, 0.0),  # car, wall and door at once
            box(CHAIR),
            NONE,
            (-9.0, -9.0, -1.5, 4.0, 4.0, 0.4, 0.0),  # ground
        ]
    )
    words, found = judge_scan(points, objects, boxes)
    assert words == ["car", "wall", "", "", "chair", "", ""]
    assert [(each.word, each.points) for each in found] == [
        ("car", 200),
        ("wall", 300),
        ("building", 80),
    ]


def test_an_object_is_found_by_boxes_of_its_own_class_only(scan):
    points, objects = scan

    def found(*boxes) -> dict[str, bool]:
        return {each.word: each.found for each in judge_scan(points, objects, np.array(boxes))[1]}

    assert found(box(CAR), box(WALL)) == {"car": True, "wall": True, "building": False}
    assert found(box(CAR, 0.5)) == {"car": False, "wall": False, "building": False}
    assert found(box(DOOR)) == {"car": False, "wall": False, "building": True}
    # Two clusters of one object find it together.
    left, right = box(WALL), box(WALL)
    left[[0, 3]], right[[0, 3]] = (2.7, 3.4), (7.3, 3.4)
    assert not found(left)["wall"]
    assert found(left, right)["wall"]


def answers(stamps, boxes) -> ClassAnswers:
    count = len(stamps)
    zeros = np.zeros(count)
    stamps = np.array(stamps, np.int64)
    return ClassAnswers(
        stamps, (("car",),) * count, zeros.astype(bool), zeros, zeros, stamps, np.array(boxes)
    )


def test_answers_are_matched_with_their_own_scan(tmp_path, scan):
    points, objects = scan
    with BagWriter(tmp_path / "drive") as bag:
        for stamp in (1_000, 2_000, 3_000):
            # In the second scan all is 30 m further ahead; in the third nothing was found.
            moved = 30.0 * (stamp == 2_000)
            shift = np.array([moved, 0, 0], np.float32)
            bag.point_cloud("/lidar/points", stamp, "lidar", points + shift)
            there = [
                {**each, "seen_centre": [each["seen_centre"][0] + moved, *each["seen_centre"][1:]]}
                for each in objects
            ]
            text = json.dumps({"stamp_ns": stamp, "objects": there})
            bag.text("/ground_truth/lidar_objects", stamp, text)
    said = answers([1_000, 1_000, 2_000, 9_000], [box(WALL), box(CAR), box(CAR), box(CAR)])
    truth = read_lidar_truth(tmp_path / "drive", "/lidar/points", said)
    assert truth.words == ("wall", "car", "", "")
    figures = truth.figures(("Car", "tree"))
    assert figures["car"] == {"seen": 3, "found": pytest.approx(1 / 3), "in_vocabulary": True}
    assert figures["building"]["in_vocabulary"] is False


def test_a_bag_that_does_not_say_what_it_met_is_refused(tmp_path, scan):
    with BagWriter(tmp_path / "bag") as bag:
        bag.point_cloud("/lidar/points", 1_000, "lidar", scan[0])
    with pytest.raises(InputError) as refused:
        read_lidar_truth(tmp_path / "bag", "/lidar/points", answers([1_000], [box(CAR)]))
    assert refused.value.reason == "no_ground_truth"
