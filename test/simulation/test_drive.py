# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from spike_perception.bags.events import EventBag
from spike_perception.config import from_flat
from spike_perception.errors import InputError
from spike_perception.sensing.event_stream import EventStream
from spike_perception.simulation import command
from spike_perception.simulation.drive import (
    DriveConfig,
    OdometryConfig,
    dead_reckoning,
    drive,
    plan,
)
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.route import load_route
from spike_perception.simulation.sdf import load_world

SHORT = {
    "maximum_seconds": 1.5,
    "camera.width": 64,
    "camera.height": 48,
    "camera.rate": 2.0,
    "odometry.rate": 10.0,
}


@pytest.fixture(scope="module")
def world():
    return load_world(command.WORLDS / "loop.sdf")


@pytest.fixture(scope="module")
def route():
    return load_route(command.WORLDS / "routes" / "two_laps.json")


def read(path):
    with AnyReader([path]) as reader:
        return [(c.topic, t, reader.deserialize(d, c.msgtype)) for c, t, d in reader.messages()]


def raw(path):
    with AnyReader([path]) as reader:
        return [(c.topic, t, bytes(d)) for c, t, d in reader.messages()]


def pose_of(translation, rotation):
    t, r = translation, rotation
    return Pose((t.x, t.y, t.z), (r.x, r.y, r.z, r.w))


def test_the_seed_decides_every_byte(tmp_path, world, route):
    bags = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        drive(world, route, tmp_path / name, from_flat(DriveConfig, SHORT | {"seed": seed}))
        bags[name] = raw(tmp_path / name)
    assert bags["a"] == bags["b"]
    for topic in ("/camera/image_raw", "/odom"):
        one, other = ([m for m in bags[k] if m[0] == topic] for k in ("a", "c"))
        assert len(one) == len(other)
        assert one != other


def test_tf_chain_and_odometry_agree(tmp_path, world, route):
    config = from_flat(DriveConfig, SHORT)
    done = drive(world, route, tmp_path / "bag", config)
    messages = read(tmp_path / "bag")
    assert done.messages["/camera/image_raw"] == 4
    assert done.messages["/odom"] == 16
    assert [t for _, t, _ in messages] == sorted(t for _, t, _ in messages)
    (static,) = [m.transforms[0] for topic, _, m in messages if topic == "/tf_static"]
    assert (static.header.frame_id, static.child_frame_id) == ("base_link", "camera_optical_frame")
    mount = pose_of(static.transform.translation, static.transform.rotation)
    assert mount.matrix @ (0, 0, 1) == pytest.approx([1, 0, 0])  # looks forward
    tf = {t: m.transforms[0] for topic, t, m in messages if topic == "/tf"}
    odometry = {t: m for topic, t, m in messages if topic == "/odom"}
    assert tf.keys() == odometry.keys()
    for stamp, each in tf.items():
        assert (each.header.frame_id, each.child_frame_id) == ("odom", "base_link")
        pose = odometry[stamp].pose.pose
        assert pose_of(pose.position, pose.orientation) == pose_of(
            each.transform.translation, each.transform.rotation
        )
    images = [(t, m) for topic, t, m in messages if topic == "/camera/image_raw"]
    for stamp, image in images:
        assert stamp in tf
        assert stamp == image.header.stamp.sec * 10**9 + image.header.stamp.nanosec
        assert (image.width, image.height, image.encoding) == (64, 48, "rgb8")
        assert image.data.std() > 10


def test_the_second_lap_is_beside_the_first_and_in_other_light(tmp_path, world, route):
    truth = plan(route, 0.05)
    first, second = truth.lap == 0, truth.lap == 1
    # Away from where the offset sets in, the laps are 0.2 m apart everywhere.
    steady = np.flatnonzero(second & (truth.distance > 5))[::20]
    gaps = np.linalg.norm(truth.position[steady, None] - truth.position[first], axis=2).min(axis=1)
    assert gaps == pytest.approx(0.2, abs=0.01)
    assert not np.isclose(truth.seconds[first][-1], np.ptp(truth.seconds[second]), rtol=0.05)
    config = from_flat(DriveConfig, SHORT | {"maximum_seconds": 100.0, "camera.rate": 0.1})
    done = drive(world, route, tmp_path / "bag", config)
    assert [lap.daylight for lap in done.laps] == ["noon", "evening"]
    pictures = [(t, m.data.mean()) for topic, t, m in read(tmp_path / "bag") if "image" in topic]
    day = [mean for t, mean in pictures if t <= done.laps[0].end_ns]
    evening = [mean for t, mean in pictures if t >= done.laps[1].start_ns]
    assert np.mean(evening) < 0.95 * np.mean(day)


def test_twist_is_the_derivative_of_the_pose(route):
    truth = plan(route, 0.05)
    forward, leftward, turning = truth.twist().T
    speeds = [lap.speed for lap in route.laps]
    assert forward[truth.lap == 0].mean() == pytest.approx(speeds[0], rel=0.03)
    assert np.abs(np.diff(truth.seconds) - 0.05).max() < 1e-9
    assert np.abs(leftward[5:-5]).max() < 0.1  # it moves the way it faces
    turned = np.sum((turning[1:] + turning[:-1]) / 2 * 0.05)
    assert turned == pytest.approx(truth.yaw[-1] - truth.yaw[0], abs=0.02)
    assert turned == pytest.approx(4 * math.pi, abs=0.02)


def test_odometry_without_errors_is_the_truth_in_its_own_frame(route):
    truth = plan(route, 0.05)
    rng = np.random.default_rng(0)
    exact = dead_reckoning(truth, OdometryConfig(scale_error=0.0, heading_noise=0.0), rng)
    start = truth.pose(0)
    for i in (0, 500, len(truth.seconds) - 1):
        there = start @ exact.pose(i)
        assert there.translation == pytest.approx(truth.pose(i).translation, abs=1e-9)
    drifting = dead_reckoning(truth, OdometryConfig(), rng)
    error = np.linalg.norm(drifting.position - exact.position, axis=1)
    assert 0 < error.max() < 1.0


def test_all_sensors_write_what_our_readers_read(tmp_path, world, route):
    settings = SHORT | {"maximum_seconds": 1.0, "sensors": "camera,lidar, events"}
    settings |= {"lidar.rate": 5.0, "lidar.rings": 8, "lidar.steps": 90}
    settings |= {"events.rate": 20.0, "events.width": 64, "events.height": 48}
    done = drive(world, route, tmp_path / "bag", from_flat(DriveConfig, settings))
    assert done.messages["/odom"] == 11
    assert done.messages["/lidar/points"] == done.messages["/ground_truth/lidar_objects"] == 6
    messages = read(tmp_path / "bag")
    assert [t for _, t, _ in messages] == sorted(t for _, t, _ in messages)
    (static,) = [m for topic, _, m in messages if topic == "/tf_static"]
    frames = {each.child_frame_id: each for each in static.transforms}
    assert frames.keys() == {"camera_optical_frame", "lidar", "event_camera_optical_frame"}
    assert frames["lidar"].transform.translation.z == pytest.approx(0.95)
    assert frames["lidar"].transform.rotation.w == 1.0
    stream = EventStream()
    stamps = {t: m for topic, t, m in messages if topic == "/event_camera/events"}
    with EventBag(tmp_path / "bag") as bag:
        clouds = list(bag.points())
        packets = list(bag.packets())
    assert min(len(cloud.points.xyz) for cloud in clouds) > 200
    assert len(packets) == len(stamps) >= 19
    for (logged, _), packet in zip(stamps.items(), packets, strict=True):
        decoded = stream.decode(packet.packet)
        assert (decoded.events.t_ns[0], packet.frame_id) == (
            packet.stamp_ns,
            "event_camera_optical_frame",
        )
        assert logged - 50_000_000 < decoded.events.t_ns[0] <= decoded.events.t_ns[-1] <= logged
    assert stream.counts["packets"] == len(packets)
    assert not stream.counts["lost_packets"] + stream.counts["stepped_back"]
    assert (stream.width, stream.height) == (64, 48)


def test_no_sensor_changes_what_another_one_senses(tmp_path, world, route):
    small = SHORT | {"maximum_seconds": 0.5, "lidar.rings": 4, "lidar.steps": 60}
    bags = {}
    for sensors in ("camera", "lidar", "camera,lidar"):
        config = from_flat(DriveConfig, small | {"sensors": sensors})
        drive(world, route, tmp_path / sensors, config)
        bags[sensors] = raw(tmp_path / sensors)
    for topic in ("/camera/image_raw", "/lidar/points", "/odom"):
        alone = "lidar" if "lidar" in topic else "camera"
        one, other = ([m for m in bags[k] if m[0] == topic] for k in (alone, "camera,lidar"))
        assert one == other
        assert one


def test_the_odometry_drifts_the_same_at_any_rate_of_the_sensors(tmp_path, world, route):
    for name, rate in (("a", 2.0), ("b", 40.0)):
        settings = SHORT | {"maximum_seconds": 0.4, "camera.rate": rate}
        drive(world, route, tmp_path / name, from_flat(DriveConfig, settings))
    a, b = (
        [
            (t, m.pose.pose.position.x, m.pose.pose.position.y, m.pose.pose.orientation.z)
            for topic, t, m in read(tmp_path / name)
            if topic == "/odom"
        ]
        for name in "ab"
    )
    assert len(a) == 5
    assert np.array(a) == pytest.approx(np.array(b), rel=1e-9, abs=1e-9)


def test_refusals_leave_no_bag(tmp_path, world, route):
    with pytest.raises(InputError, match="whole number"):
        drive(world, route, tmp_path / "bag", from_flat(DriveConfig, {"camera.rate": 3.0}))
    with pytest.raises(InputError, match="no camera 'eye'"):
        drive(world, route, tmp_path / "bag", from_flat(DriveConfig, {"camera.name": "eye"}))
    with pytest.raises(InputError, match="'radar' is none of camera, lidar, events"):
        drive(world, route, tmp_path / "bag", from_flat(DriveConfig, {"sensors": "camera,radar"}))
    with pytest.raises(InputError, match=r"maximum_seconds is 0\.04"):
        drive(world, route, tmp_path / "bag", from_flat(DriveConfig, {"maximum_seconds": 0.04}))
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_bag_and_tells_what_is_in_it(tmp_path, capsys):
    from spike_perception.cli import main

    words = ["simulate", "loop", "--drive", "two_laps", "-o", str(tmp_path / "bag"), "--json", "-"]
    words += [word for key, value in SHORT.items() for word in (f"--{key}", str(value))]
    assert main([*words, "--storage", "sqlite3"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["messages"]["/camera/image_raw"] == 4
    assert result["laps"][0]["daylight"] == "noon"
    assert result["config"]["storage"] == "sqlite3"
    assert len(read(tmp_path / "bag")) == sum(result["messages"].values())


@pytest.mark.parametrize("world_name", ["nowhere", "../loop"])
def test_unknown_names_list_the_known(tmp_path, capsys, world_name):
    from spike_perception.cli import main

    assert main(["simulate", world_name, "--drive", "two_laps", "-o", str(tmp_path / "b")]) == 2
    assert "loop" in capsys.readouterr().err
