# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from spike_perception.evaluation.class_answers import VISIBLE_SHARE
from spike_perception.simulation.classes import CLASSES, word_shares
from spike_perception.simulation.command import WORLDS
from spike_perception.simulation.drive import DriveConfig
from spike_perception.simulation.loop_world import build, write_world
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.route import load_route
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import load_world
from spike_perception.simulation.sensors import Camera, ObjectTruth


def test_the_shipped_files_are_what_the_code_writes(tmp_path):
    write_world(tmp_path)
    written = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert len(written) > 20
    assert sum(map(len, written.values())) < 300_000
    for path, content in written.items():
        assert (WORLDS / path).read_bytes() == content, f"{path}: run loop_world again"


def test_sdformat_finds_the_world_valid():
    try:
        sdformat = ctypes.CDLL("libsdformat12.so.12")
    except OSError:
        pytest.skip("libsdformat12 is absent: apt-get install libsdformat12-12 sdformat-sdf")
    assert sdformat.cmdCheck(str(WORLDS / "loop.sdf").encode()) == 0


def test_sdformat_would_find_a_fault(tmp_path):
    try:
        sdformat = ctypes.CDLL("libsdformat12.so.12")
    except OSError:
        pytest.skip("libsdformat12 is absent: apt-get install libsdformat12-12 sdformat-sdf")
    text = (WORLDS / "loop.sdf").read_text().replace('name="table_1"', 'name="chair_1"')
    (tmp_path / "bad.sdf").write_text(text)
    assert sdformat.cmdCheck(str(tmp_path / "bad.sdf").encode()) != 0


def test_the_robot_bears_the_sensors_that_gazebo_and_the_drive_name():
    (link,) = load_world(WORLDS / "loop.sdf").model("robot").links
    assert [each.name for each in link.cameras] == ["camera", "event_camera"]
    (lidar,) = link.lidars
    assert (lidar.name, lidar.rings, lidar.steps, lidar.noise) == ("lidar", 32, 512, 0.01)
    assert lidar.azimuth[1] - lidar.azimuth[0] == pytest.approx(2 * math.pi * 511 / 512, abs=1e-4)
    config = DriveConfig()
    assert (config.events.width, config.events.height) == (link.cameras[1].width, 180)
    # Gazebo stamps images with this frame, and without it with one that tf does not know.
    for each in link.cameras:
        assert f"<optical_frame_id>{each.name}_optical_frame</optical_frame_id>" in build()
    # Gazebo adds /points to the topic of a LiDAR.
    assert f"<topic>{config.lidar.topic.removesuffix('/points')}</topic>" in build()


def test_a_car_and_a_person_move_in_circles_clear_of_the_way():
    world = load_world(WORLDS / "loop.sdf")
    movers = {each.label: each for each in world.models if any(each.velocity)}
    assert movers.keys() == {"car", "person"}
    route = load_route(WORLDS / "routes" / "two_laps.json").centreline()[:, 1:3]
    for label, half_width in (("car", 2.2), ("person", 0.4)):
        path = np.array([movers[label].pose_at(k / 4).translation[:2] for k in range(80)])
        speed = np.linalg.norm(np.diff(path, axis=0), axis=1) * 4
        assert speed == pytest.approx(math.hypot(*movers[label].velocity[:2]), rel=0.05)
        gaps = np.linalg.norm(path[:, None] - route[None], axis=2)
        assert gaps.min() > half_width + 0.4
        assert gaps.min() < 12  # in sight


def test_every_object_is_named_after_its_class():
    world = load_world(WORLDS / "loop.sdf")
    labels = {model.label for model in world.models}
    assert {"chair", "table", "car", "person", "tree", "bench", "box", "traffic cone"} <= labels
    scene = Scene(world)
    assert set(scene.labels.values()) == labels
    assert scene.model.ngeom == sum(
        len(link.visuals) for model in world.models for link in model.links
    )


def test_the_camera_meets_every_class_of_the_world_on_its_way():
    scene = Scene(load_world(WORLDS / "loop.sdf"))
    truth = ObjectTruth(Camera(scene, width=160, height=120, quick=True))
    way = load_route(WORLDS / "routes" / "two_laps.json").centreline(0.2)
    largest = dict.fromkeys(CLASSES, 0.0)
    for _, x, y, heading in way:
        scene.place_robot(Pose.planar(x, y, heading))
        shares = truth.observe(scene, np.random.default_rng(0))["whole"]
        for word, share in word_shares(shares).items():
            largest[word] = max(largest[word], share)
    truth.close()
    assert {word: share for word, share in largest.items() if share < VISIBLE_SHARE} == {}
