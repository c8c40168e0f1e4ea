# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import numpy as np
import pytest

from spike_perception.bags.reader import BagReader
from spike_perception.bags.writer import BagWriter
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import load_world
from spike_perception.simulation.sensors import Camera, ObjectTruth

# A wall straight ahead of a camera at the origin, as wide as half of its picture, on no ground.
DISTANCE, HALF = 4.0, 4.0 * math.tan(0.5) / 2
WORLD = f"""<?xml version="1.0"?>
<sdf version="1.9"><world name="one_wall">
<model name="wall_1"><static>true</static><link name="link"><visual name="part">
<pose>{DISTANCE + 0.05} 0 0 0 0 0</pose>
<geometry><box><size>0.1 {2 * HALF} 60</size></box></geometry></visual></link></model>
<model name="robot"><link name="link"><sensor name="camera" type="camera"><camera>
<horizontal_fov>1.0</horizontal_fov><image><width>64</width><height>32</height></image>
<clip><near>0.05</near><far>50</far></clip></camera></sensor></link></model>
</world></sdf>
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "one_wall.sdf"
    path.write_text(WORLD)
    return Scene(load_world(path), size=(64, 32))


def test_shares_are_those_of_the_picture_and_of_its_centre(scene):
    scene.place_robot(Pose())
    camera = Camera(scene)
    truth = ObjectTruth(camera)
    seen = truth.observe(scene, np.random.default_rng(0))
    camera.close()
    # The wall fills the middle half of the columns: the centred square is just that half.
    assert seen["whole"] == pytest.approx({"wall": 0.5}, abs=0.04)
    assert seen["centre"] == pytest.approx({"wall": 1.0}, abs=0.07)


def test_looking_away_it_sees_nothing(scene):
    scene.place_robot(Pose.planar(0, 0, math.pi))
    camera = Camera(scene)
    assert ObjectTruth(camera).observe(scene, np.random.default_rng(0)) == {
        "whole": {},
        "centre": {},
    }
    camera.close()


def test_the_picture_is_the_same_after_the_truth_was_asked_for(scene):
    scene.place_robot(Pose())
    camera = Camera(scene)
    before = camera.observe(scene, np.random.default_rng(0))
    ObjectTruth(camera).observe(scene, np.random.default_rng(0))
    after = camera.observe(scene, np.random.default_rng(0))
    camera.close()
    assert np.array_equal(before, after)


def test_the_truth_is_written_as_text_with_the_stamp_of_its_picture(scene, tmp_path):
    camera = Camera(scene)
    truth = ObjectTruth(camera)
    with BagWriter(tmp_path / "bag") as bag:
        truth.write(bag, 5_000_000_007, {"whole": {"wall": 0.123456}, "centre": {}})
    with BagReader(tmp_path / "bag") as bag:
        (text,) = bag.texts(truth.topic)
    assert json.loads(text) == {"stamp_ns": 5_000_000_007, "whole": {"wall": 0.1235}, "centre": {}}
