# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import time

import numpy as np
import pytest
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String

from spike_perception.cli import main
from spike_perception.nodes.live import LivePublisher

SECOND = 10**9


@pytest.fixture
def live(domain):
    with LivePublisher("robot") as publisher:
        yield publisher
    assert not rclpy.ok()


def spin_until(node, condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        rclpy.spin_once(node, timeout_sec=0.1)


def test_messages_are_published_at_their_time_with_the_clock(live):
    points = np.ones((5, 3), np.float32)
    listener = rclpy.create_node("listener")
    clouds, clocks = [], []
    listener.create_subscription(PointCloud2, "/points", clouds.append, 10)
    listener.create_subscription(Clock, "/clock", clocks.append, 100)
    live.point_cloud("/points", SECOND, "lidar", points)
    spin_until(listener, lambda: listener.count_publishers("/points"))
    time.sleep(1.0)
    began = time.monotonic()
    # What was lost while waiting is not caught up.
    live.point_cloud("/points", SECOND + 1, "lidar", points)
    live.point_cloud("/points", SECOND + 400_000_001, "lidar", points)
    took = time.monotonic() - began
    spin_until(
        listener,
        lambda: len(clocks) > 5 and clouds and clouds[-1].header.stamp.nanosec == 400_000_001,
    )
    listener.destroy_node()
    assert 0.39 < took < 10
    assert (clouds[-1].width, clouds[-1].point_step) == (5, 12)
    ticks = [c.clock.sec * SECOND + c.clock.nanosec for c in clocks]
    assert ticks == sorted(ticks)
    assert [c.header.stamp.nanosec for c in clouds][-2:] == [1, 400_000_001]
    assert live.counts == {"/points": 3}


def test_static_transforms_reach_those_who_come_late(live):
    # The topic makes it latched, whatever the type: tf2_msgs is not installed everywhere.
    live.text("/tf_static", SECOND, "for all time")
    listener, heard = rclpy.create_node("listener"), []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    listener.create_subscription(String, "/tf_static", heard.append, latched)
    spin_until(listener, lambda: heard)
    assert heard[0].data == "for all time"
    listener.destroy_node()


def test_types_that_are_not_installed_are_left_out(live):
    live.serialized("/other", SECOND, "nowhere_msgs/msg/A", b"")
    assert live.skipped == {"/other": "nowhere_msgs/msg/A"}
    assert live.counts == {}


def test_simulate_publishes_live(domain, capsys):
    words = ["simulate", "loop", "--drive", "two_laps", "--live", "--sensors", "lidar"]
    words += ["--maximum_seconds", "0.5", "--lidar.rings", "4", "--json", "-"]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bag"] is None
    assert result["seconds"] > 0.5
    assert result["messages"]["/lidar/points"] == 6
    assert result["messages"]["/odom"] == 11
