# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import numpy as np
import pytest

from spike_perception.bags.reader import BagReader
from spike_perception.bags.writer import BagWriter
from spike_perception.config import from_flat
from spike_perception.errors import InputError
from spike_perception.simulation.classes import WORDS
from spike_perception.simulation.command import WORLDS
from spike_perception.simulation.lidar import Lidar, LidarConfig, beams
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import load_world, parse_world

# A wall 4 m ahead of a LiDAR that stands 1 m above the ground, within a robot that surrounds it.
WORLD = """<sdf version="1.9"><world name="one_wall">
<model name="ground_1"><static>true</static><link name="link"><visual name="part">
<geometry><plane><size>200 200</size></plane></geometry></visual></link></model>
<model name="wall_1"><static>true</static><pose>4.5 1 1.5 0 0 0</pose><link name="link">
<visual name="part"><geometry><box><size>1 4 3</size></box></geometry></visual></link></model>
<model name="robot"><link name="link"><visual name="part">
<geometry><sphere><radius>1.4</radius></sphere></geometry></visual>
<sensor name="lidar" type="gpu_lidar"><pose>0 0 1 0 0 0</pose><lidar>
<scan><horizontal><samples>360</samples><resolution>1</resolution>
<min_angle>-3.141593</min_angle><max_angle>3.12414</max_angle></horizontal>
<vertical><samples>5</samples><min_angle>-0.4</min_angle><max_angle>0.4</max_angle></vertical></scan>
<range><min>0.2</min><max>30</max></range><noise><type>gaussian</type><stddev>0</stddev></noise>
</lidar></sensor></link></model>
</world></sdf>"""


def scene_of(folder, text=WORLD):
    return Scene(parse_world(text.encode(), folder / "w.sdf"))


def scan(scene, seed=0, **changes):
    config = from_flat(LidarConfig, {"drop_out": 0.0} | changes)
    return Lidar(scene, config).observe(scene, np.random.default_rng(seed))


def test_points_lie_where_the_rays_meet_surfaces(tmp_path):
    found = scan(scene_of(tmp_path))
    x, y, z = found.points.astype(float).T
    low = np.isclose(z, -1, atol=1e-4)
    # The ground all round at -0.4 and -0.2 rad, but where the wall stands before it.
    assert np.hypot(x, y)[low] == pytest.approx(
        np.where(np.hypot(x, y)[low] < 3, 1 / math.tan(0.4), 1 / math.tan(0.2)), rel=1e-4
    )
    wall = ~low
    assert x[wall].min() == pytest.approx(4, abs=1e-5)
    faces = np.isclose(x, 4, atol=1e-4) | np.isclose(y, -1, atol=1e-4)
    assert faces[wall].all()
    assert (y[wall].max(), y[wall].min()) == pytest.approx((3, -1), abs=0.12)
    # What is above the horizon and not on the wall meets nothing.
    assert ((z <= 0.5) | (x >= 3.99)).all()


def test_the_truth_says_where_each_object_is_and_how_much_of_it_was_met(tmp_path):
    scene = scene_of(tmp_path)
    scene.place_robot(Pose.planar(1.0, 1.0, math.pi / 2))
    found = scan(scene)
    (wall,) = found.objects
    assert (wall.name, wall.label) == ("wall_1", "wall")
    # 3.5 m to the right of a robot that faces y, and half a metre above the LiDAR.
    assert wall.centre == pytest.approx((0, -3.5, 0.5), abs=1e-3)
    assert wall.size == pytest.approx((1, 4, 3), abs=1e-3)
    assert wall.yaw == pytest.approx(-math.pi / 2, abs=1e-3)
    # Its face, in its own axes: at its edges, rings at -0.2 and 0.4 rad meet it 2.25 m apart.
    assert wall.seen_size == pytest.approx((0, 3.95, 2.25), abs=0.1)
    assert wall.seen_centre[1] == pytest.approx(-3, abs=1e-3)
    on_it = np.isclose(found.points[:, 1], -3, atol=1e-3)
    assert wall.points == on_it.sum() > 100


def test_noise_and_drop_out_are_as_large_as_they_are_said_to_be(tmp_path):
    clean = scan(scene_of(tmp_path))
    noisy = scan(scene_of(tmp_path, WORLD.replace("<stddev>0<", "<stddev>0.05<")))
    assert len(noisy.points) == len(clean.points)
    error = np.linalg.norm(noisy.points, axis=1) - np.linalg.norm(clean.points, axis=1)
    assert error.std() == pytest.approx(0.05, rel=0.1)
    assert error.mean() == pytest.approx(0, abs=0.006)
    thinned = scan(scene_of(tmp_path), drop_out=0.25)
    assert len(thinned.points) / len(clean.points) == pytest.approx(0.75, abs=0.04)


def test_settings_stand_in_for_the_sdf(tmp_path):
    scene = scene_of(tmp_path)
    lidar = Lidar(scene, from_flat(LidarConfig, {"rings": 3, "steps": 90, "maximum_range": 3.0}))
    assert (lidar.sensor.rings, lidar.sensor.steps, lidar.sensor.near) == (3, 90, 0.2)
    found = lidar.observe(scene, np.random.default_rng(0))
    assert 0 < len(found.points) <= 90
    assert np.linalg.norm(found.points, axis=1).max() <= 3.0
    assert found.objects == ()
    with pytest.raises(InputError, match="no LiDAR 'radar'"):
        Lidar(scene, LidarConfig(name="radar"))


def test_rays_cast_part_by_part_meet_what_they_meet_one_by_one():
    import mujoco

    scene = Scene(load_world(WORLDS / "loop.sdf"))
    scene.place_robot(Pose.planar(-3, -7, 0.3))
    lidar = Lidar(scene)
    directions = beams(lidar.sensor)[::7]
    place = scene.robot_pose @ lidar.mount
    before = scene.model.geom_group.copy()
    geoms, ranges = scene.cast(place, directions, 40.0)
    assert np.array_equal(scene.model.geom_group, before)
    robot = scene.model.body("robot").id
    for k in range(0, len(directions), 13):
        geom = np.zeros(1, np.int32)
        away = mujoco.mj_ray(
            scene.model,
            scene.data,
            np.array(place.translation),
            place.matrix @ directions[k],
            None,
            1,
            robot,
            geom,
        )
        if 0 <= away < 40:
            assert (geoms[k], ranges[k]) == (geom[0], pytest.approx(away))
        else:
            assert geoms[k] == -1


def test_cloud_and_truth_are_written_with_one_stamp(tmp_path):
    scene = scene_of(tmp_path)
    lidar = Lidar(scene)
    found = lidar.observe(scene, np.random.default_rng(0))
    with BagWriter(tmp_path / "bag") as bag:
        lidar.write(bag, 5_000_000_007, found)
    with BagReader(tmp_path / "bag") as bag:
        (cloud,) = bag.points("/lidar/points")
        (text,) = bag.texts(lidar.truth_topic)
    assert (cloud.stamp_ns, cloud.frame_id) == (5_000_000_007, "lidar")
    assert np.array_equal(cloud.points.xyz, found.points)
    truth = json.loads(text)
    assert truth["stamp_ns"] == 5_000_000_007
    (wall,) = truth["objects"]
    assert (wall["label"], wall["points"]) == ("wall", found.objects[0].points)
    assert wall["size"] == [1.0, 4.0, 3.0]


def test_every_class_of_the_world_is_met_somewhere_on_the_way():
    scene = Scene(load_world(WORLDS / "loop.sdf"))
    lidar = Lidar(scene)
    met: dict[str, int] = {}
    for x, y, yaw in (
        *((x, -7, 0) for x in (-9, -1, 7)),
        *((12, y, math.pi / 2) for y in (-3, 2)),
        *((x, 7, math.pi) for x in (10, 4, -3)),
        *((-12, y, -math.pi / 2) for y in (6, -3)),
    ):
        scene.place_robot(Pose.planar(x, y, yaw))
        for each in lidar.observe(scene, np.random.default_rng(0)).objects:
            met[each.label] = max(met.get(each.label, 0), each.points)
            assert np.array(each.seen_size) == pytest.approx(
                np.minimum(each.seen_size, np.array(each.size) + 0.2)
            )
    assert {label for label, points in met.items() if points >= 50} >= set(WORDS)
