# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.bags.point_files import decode_points
from spike_perception.config import from_flat
from spike_perception.sensing.clusters import (
    ClusterConfig,
    find_and_count,
    find_clusters,
    upright_box,
)

from .lidar_scene import scan

CAR = (10.0, 4.0, 0.4, 4.5, 1.8, 1.9)  # roofs above the sensor: level ones below it are too sparse
PERSON = (6.0, -3.0, 0.0, 0.5, 0.5, 1.8)
FAR_CAR = (-30.0, -6.0, 1.2, 4.5, 1.8, 1.9)
BEHIND = (-12.0, 0.0, 0.0, 2.0, 1.0, 2.2)  # across the seam of the turn
HOUSE = (0.0, 25.0, 0.0, 40.0, 8.0, 6.0)


def blob(x: float, y: float, *, size: float = 0.6, count: int = 200) -> np.ndarray:
    middle = np.array([x, y, 0])
    return (np.random.default_rng(0).uniform(-size / 2, size / 2, (count, 3)) + middle).astype(
        np.float32
    )


def flat(**values: float | str) -> ClusterConfig:
    """Settings with every point an object's."""
    return from_flat(ClusterConfig, {"ground.method": "none", "min_height": 0.0, **values})


def test_every_object_is_one_cluster() -> None:
    boxes = [CAR, PERSON, FAR_CAR, BEHIND, HOUSE]
    xyz, met = scan(boxes)
    clusters = find_clusters(xyz)
    assert len(clusters) == 4  # the house is too long
    for number, box in enumerate(boxes[:4]):
        (cluster,) = [c for c in clusters if np.mean(met[c.rows] == number) > 0.5]
        assert np.mean(met[cluster.rows] == number) > 0.98
        high = (met == number) & (xyz[:, 2] > -1.4)
        assert high[cluster.rows].sum() / high.sum() > 0.98
        assert np.all(np.diff(cluster.rows) > 0)
        np.testing.assert_array_equal(cluster.minimum, xyz[cluster.rows].min(axis=0))
        np.testing.assert_array_equal(cluster.maximum, xyz[cluster.rows].max(axis=0))
        centre, size, yaw = cluster.box
        assert overlap(centre, size, yaw, np.array(box[:2]), np.array(box[3:]), box[2]) > 0.95
    ranges = [np.hypot(*(c.minimum + c.maximum)[:2]) for c in clusters]
    assert ranges == sorted(ranges)


def test_the_nearest_are_kept() -> None:
    xyz, _ = scan([CAR, PERSON, FAR_CAR])
    every = find_clusters(xyz)
    fewer = find_clusters(xyz, from_flat(ClusterConfig, {"max_objects": 2}))
    assert [list(c.rows) for c in fewer] == [list(c.rows) for c in every[:2]]


@pytest.mark.parametrize("range_", [3.0, 12.0, 50.0])
@pytest.mark.parametrize("turn", [0.0, 1.0, np.pi, -np.pi / 2])
@pytest.mark.parametrize(("growth", "weight"), [(0.0, 1.0), (0.015, 3.0)])
def test_gaps_along_and_across(range_: float, turn: float, growth: float, weight: float) -> None:
    gap = 0.4 + growth * range_
    along = np.array([np.cos(turn), np.sin(turn), 0]) * gap
    across = np.array([-np.sin(turn), np.cos(turn), 0]) * gap / weight
    config = flat(
        distance=0.4, distance_growth=growth, lateral_weight=weight, min_points=1, min_length=0.0
    )
    start = np.array([np.cos(turn), np.sin(turn), 0]) * range_
    for step in (along, across):
        for share, together in ((0.85, True), (1.2, False)):
            points = np.stack([start, start + share * step]).astype(np.float32)
            assert len(find_clusters(points, config)) == (1 if together else 2)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, 1),
        ({"min_points": 201}, 0),
        ({"max_points": 199}, 0),
        ({"min_length": 1.0}, 0),
        ({"max_length": 0.4}, 0),
        ({"max_width": 0.4}, 0),
        ({"min_height": 0.8}, 0),
        ({"max_height": 0.4}, 0),
        ({"min_range": 7.0}, 0),
        ({"max_range": 4.0}, 0),
    ],
)
def test_gates(settings: dict[str, float], kept: int) -> None:
    assert len(find_clusters(blob(5, 0), flat(**settings))) == kept


def test_points_out_of_this_world_change_nothing() -> None:
    largest = np.finfo(np.float32).max
    far = np.array([[largest, largest, 0], [5, 0, largest], [5, 1, -largest]], np.float32)
    config = flat()
    alone, among = (find_clusters(x, config) for x in (blob(5, 0), np.r_[blob(5, 0), far]))
    assert [list(c.rows) for c in alone] == [list(c.rows) for c in among] == [list(range(200))]


def test_what_touches_the_sensor_is_clustered_where_no_range_is_left_out() -> None:
    xyz = np.random.default_rng(0).normal(0, 0.05, (200, 3)).astype(np.float32)
    values = {"ground.method": "none", "min_height": 0.0, "min_length": 0.0, "min_range": 0.0}
    found = find_clusters(xyz, from_flat(ClusterConfig, values))
    assert [len(each.rows) for each in found] == [200]


def test_nothing_to_find() -> None:
    assert find_clusters(np.empty((0, 3), np.float32)) == []
    assert find_clusters(np.zeros((5, 3), np.float32)) == []
    assert find_clusters(np.full((1, 3), 5, np.float32), flat()) == []
    xyz, _ = scan([])
    assert find_clusters(xyz) == []


@pytest.mark.parametrize("yaw", [-1.5, -0.6, 0.0, 0.7, 1.5])
def test_upright_box_of_two_seen_sides(yaw: float) -> None:
    along = np.linspace(-2, 2, 80)
    across = np.linspace(-1, 1, 40)
    sides = [*((x, -1) for x in along), *((-2, y) for y in across)]
    plan = np.array([(*side, z) for side in sides for z in (0, 1.5)])
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    box = upright_box((plan @ turn.T + [100, 5, -1]).astype(np.float32))
    assert abs(np.sin(box.yaw - yaw)) < np.deg2rad(1.1)  # half a step; front and back are one
    assert -np.pi / 2 <= box.yaw <= np.pi / 2
    np.testing.assert_allclose(box.centre, [100, 5, -0.25], atol=0.06)
    np.testing.assert_allclose(box.size, [4, 2, 1.5], atol=0.1)


def test_one_point_has_a_box() -> None:
    box = upright_box(np.array([[1, 2, 3]], np.float32))
    np.testing.assert_allclose(box.centre, [1, 2, 3])
    np.testing.assert_allclose(box.size, 0, atol=1e-6)


# --- KITTI --------------------------------------------------------------------------------------


def labelled(
    archive: zipfile.ZipFile, frame: int
) -> list[tuple[str, np.ndarray, np.ndarray, float]]:
    """Name, centre, size (length, width, height) and yaw of the labels, in the LiDAR's frame."""
    matrices = {
        key: np.array(words.split(), float)
        for key, _, words in (
            line.partition(":")
            for line in archive.read(f"calib/{frame:06d}.txt").decode().splitlines()
        )
        if words
    }
    to_camera, rectify = np.eye(4), np.eye(4)
    to_camera[:3] = matrices["Tr_velo_to_cam"].reshape(3, 4)
    rectify[:3, :3] = matrices["R0_rect"].reshape(3, 3)
    back = np.linalg.inv(rectify @ to_camera)
    found = []
    for line in archive.read(f"label_2/{frame:06d}.txt").decode().splitlines():
        name, *numbers = line.split()
        if name == "DontCare":
            continue
        height, width, length, x, y, z, turn = (float(number) for number in numbers[7:14])
        heading = back[:3, :3] @ [np.cos(turn), 0, -np.sin(turn)]
        centre = (back @ [x, y - height / 2, z, 1])[:3]
        size = np.array([length, width, height])
        found.append((name, centre, size, float(np.arctan2(heading[1], heading[0]))))
    return found


def inside(xyz: np.ndarray, centre: np.ndarray, size: np.ndarray, yaw: float) -> np.ndarray:
    apart = xyz - centre
    turned = np.stack(
        [
            apart[:, 0] * np.cos(yaw) + apart[:, 1] * np.sin(yaw),
            apart[:, 1] * np.cos(yaw) - apart[:, 0] * np.sin(yaw),
            apart[:, 2],
        ],
        axis=1,
    )
    return np.all(np.abs(turned) <= size / 2 + 0.05, axis=1)


def test_labelled_cars_and_people_of_kitti_are_each_one_cluster(data: Path) -> None:
    """At least 95 % of its points 0.3 m above the ground, and at least 90 % nothing else."""
    seen = 0
    with zipfile.ZipFile(data / "kitti_3frames.zip") as archive:
        for frame in range(3):
            xyz = decode_points(archive.read(f"velodyne/{frame:06d}.bin"), ".bin").xyz
            clusters = find_clusters(xyz)
            for name, centre, size, yaw in labelled(archive, frame):
                own = inside(xyz, centre, size, yaw)
                if own.sum() < 50 or name not in ("Car", "Pedestrian"):
                    continue
                seen += 1
                above = own & (xyz[:, 2] > centre[2] - size[2] / 2 + 0.3)
                best = max(clusters, key=lambda cluster: int(own[cluster.rows].sum()))
                assert above[best.rows].sum() / above.sum() >= 0.95, (frame, name)
                assert own[best.rows].mean() >= 0.9, (frame, name)
                assert (
                    overlap(best.box.centre, best.box.size, best.box.yaw, centre, size, yaw) > 0.9
                )
    assert seen == 2


def overlap(*boxes: np.ndarray | float) -> float:
    """Share of the first box's ground area that the second, a tenth larger, covers."""
    one, two = (
        ((float(c[0]), float(c[1])), (float(s[0]), float(s[1])), float(np.degrees(yaw)))
        for c, s, yaw in (boxes[:3], boxes[3:])
    )
    two = (two[0], (two[1][0] + 0.3, two[1][1] + 0.3), two[2])
    _, corners = cv2.rotatedRectangleIntersection(one, two)
    return 0.0 if corners is None else cv2.contourArea(corners) / (one[1][0] * one[1][1])


def test_a_whole_scan_in_time(data: Path) -> None:
    """Processor time, so that other work on the machine does not decide."""
    with np.load(io.BytesIO((data / "lidar_drive_4frames.npz").read_bytes())) as frames:
        scans = [np.ascontiguousarray(frames[name][:, :3]) for name in frames]
    spent = []
    for xyz in scans:
        start = time.process_time()
        assert len(find_clusters(xyz)) > 20
        spent.append(time.process_time() - start)
    assert np.median(spent) < 0.1


def test_what_is_beyond_the_most_objects_is_counted() -> None:
    xyz = np.concatenate([blob(x, 0) for x in (4, 8, 12, 16)] + [blob(20, 0, count=5)])
    assert find_and_count(xyz, flat())[1] == 0
    found, beyond = find_and_count(xyz, flat(max_objects=1))
    assert (len(found), beyond) == (1, 3)


def test_gaps_right_beside_the_sensor_are_measured_as_elsewhere() -> None:
    # Columns of points 4 cm apart at a range of 20 cm: weighted 12 cm, where 13 cm are allowed.
    turn, height = np.meshgrid(0.2 * np.arange(12), np.linspace(0.0, 0.5, 11))
    arc = np.stack([0.2 * np.cos(turn), 0.2 * np.sin(turn), height], axis=-1)
    near = {"min_range": 0.1, "distance": 0.13, "ground.method": "none"}
    found = find_clusters(arc.reshape(-1, 3).astype(np.float32), from_flat(ClusterConfig, near))
    assert [len(each.rows) for each in found] == [132]
