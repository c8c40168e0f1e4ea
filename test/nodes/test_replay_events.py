# SPDX-License-Identifier: Apache-2.0
"""Recordings of events through replay and real DDS into the node: nothing is lost on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spike_perception.bags.events import ARRAY_TYPES, DEFINITIONS, PACKET_TYPES
from spike_perception.nodes.replay import AHEAD_NS, Answers
from spike_perception.nodes.stamps import stamp_ns
from spike_perception.sensing.event_packets import EventPacker
from spike_perception_msgs.msg import EventPacket, ObjectClass

from .conftest import scene
from .test_dvs_classifier import MS, OK, configured, counts

TOPIC = "/event_camera/events"
START_NS = 1_600_000_000_000_000_000
BURSTS = 40  # of 600 events, 10 ms each


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def bursts(files):
    """One after the other, with host times in whole µs."""
    for k in range(BURSTS):
        yield files.burst(k, start_ns=START_NS + k * 10 * MS, span_ns=9_000_000)


def store(release: Stores = Stores.ROS2_JAZZY):
    types = get_typestore(release)
    for name, text in DEFINITIONS.items():
        types.register(get_types_from_msg(text, name))
    return types


def header(types, stamp_ns: int):
    time = types.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    kind = types.types["std_msgs/msg/Header"]
    return kind(0, time, "dvs") if "seq" in kind.__annotations__ else kind(time, "dvs")


def driver_bag(path: Path, files) -> Path:
    """As an event camera's ROS 2 driver records it."""
    name, types = PACKET_TYPES[0], store()
    packer = EventPacker(*files.size)
    with Writer2(path, version=9) as bag:
        connection = bag.add_connection(TOPIC, name, typestore=types)
        for events in bursts(files):
            p, stamp = packer(events), int(events.t_ns[0])
            message = types.types[name](
                header(types, stamp), p.height, p.width, p.seq, p.time_base, "mono", False, p.events
            )
            bag.write(connection, stamp, types.serialize_cdr(message, name))
    return path


def array_bag(path: Path, files) -> Path:
    """As ROS 1 drivers recorded it."""
    name, types = ARRAY_TYPES[0], store(Stores.ROS1_NOETIC)
    time, event = types.types["builtin_interfaces/msg/Time"], types.types["dvs_msgs/msg/Event"]
    path = path.with_suffix(".bag")
    with Writer1(path) as bag:
        connection = bag.add_connection("/dvs/events", name, typestore=types)
        for events in bursts(files):
            columns = (events.x, events.y, events.t_ns, events.polarity)
            rows = zip(*(c.tolist() for c in columns), strict=True)
            listed = [event(x, y, time(*divmod(t, 10**9)), p) for x, y, t, p in rows]
            stamp = int(events.t_ns[0])
            message = types.types[name](header(types, stamp), *files.size[::-1], listed)
            bag.write(connection, stamp, types.serialize_ros1(message, name))
    return path


def aedat4_file(path: Path, files) -> Path:
    dv = pytest.importorskip("dv_processing")
    path = path.with_suffix(".aedat4")
    config = dv.io.MonoCameraWriter.EventOnlyConfig("DVXplorer_1", files.size)
    writer = dv.io.MonoCameraWriter(str(path), config)
    for events in bursts(files):
        batch = dv.EventStore()
        for row in zip(
            (events.t_ns // 1000).tolist(),
            events.x.tolist(),
            events.y.tolist(),
            events.polarity.tolist(),
            strict=True,
        ):
            batch.push_back(*row)
        writer.writeEvents(batch)
    del writer
    return path


def replay(world, *arguments: object) -> dict:
    """Replay in a process of its own while the nodes of this one go on."""
    words = [sys.executable, "-m", "spike_perception.cli", "replay", *map(str, arguments)]
    process = subprocess.Popen([*words, "--json", "-"], stdout=subprocess.PIPE)
    assert world.spin_until(lambda: process.poll() is not None, 60)
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out)


def test_in_lockstep_the_stream_waits_for_answers_that_lie_behind(world, event_files, tmp_path):
    bag, step_ns, count = tmp_path / "run", 250 * MS, 24
    name, types, packer = PACKET_TYPES[1], store(), EventPacker(*event_files.size)
    with Writer2(bag, version=9) as writer:
        connection = writer.add_connection(TOPIC, name, typestore=types)
        for k in range(count):
            stamp = START_NS + k * step_ns
            p = packer(event_files.burst(k, start_ns=stamp, span_ns=9_000_000))
            message = types.types[name](
                header(types, stamp), p.height, p.width, p.seq, p.time_base, "mono", False, p.events
            )
            writer.write(connection, stamp, types.serialize_cdr(message, name))
    node = world.add(rclpy.create_node("slow"))
    publisher = node.create_publisher(ObjectClass, "/object_class", 10)
    waiting, most = [], []

    def hear(packet: EventPacket) -> None:
        waiting.append(packet.header)
        first, last = (stamp_ns(each.stamp) for each in (waiting[0], waiting[-1]))
        most.append(last - first)

    def answer() -> None:
        if waiting:
            publisher.publish(ObjectClass(header=waiting.pop(0), source="events"))

    node.create_subscription(EventPacket, TOPIC, hear, 100)
    node.create_timer(0.05, answer)
    replay(world, bag, "--rate", "0", "--wait", "30", "--lockstep", "/object_class")
    assert world.spin_until(lambda: len(most) == count, 10)
    assert max(most) <= AHEAD_NS + step_ns


def test_a_stream_that_nobody_answers_goes_on_after_the_timeout(world):
    player = world.add(rclpy.create_node("player"))
    answers = Answers(player, "/object_class", 0.3, 0)
    began = time.monotonic()
    for second in range(7):
        answers.keep_up(b"dvs", START_NS + second * 1_000_000_000)
    assert 0.9 <= time.monotonic() - began < 3.0  # given up three times
    answers.keep_up(b"dvs", START_NS)  # a bag that begins again is not waited for
    assert time.monotonic() - began < 3.0


@pytest.mark.parametrize("make", [driver_bag, array_bag, aedat4_file])
def test_every_recording_arrives_whole(world, event_files, tmp_path, make):
    node = configured(world, event_files)
    assert node.trigger_activate() == OK
    path = make(tmp_path / "run", event_files)
    topic = "/dvs/events" if make is array_bag else TOPIC
    remap = ["--remap", f"{topic}:={TOPIC}"]
    result = replay(world, path, "--rate", "0", "--wait", "30", *remap)
    assert result["skipped"] == {}
    assert sum(result["published"].values()) >= 1
    seen = counts(world, sum(result["published"].values()))
    on = sum(int(events.polarity.sum()) for events in bursts(event_files))
    assert (seen["on"], seen["off"]) == (on, 600 * BURSTS - on)
    assert "lost packets" not in seen
    assert node.health.drops() == {}


def test_the_real_recording_arrives_to_the_last_event(world, event_files, data):
    path = data / "event_bag"
    if not path.exists():
        pytest.skip(f"no {path}")
    answers = world.collect(ObjectClass, "/object_class", 1000)
    settings = {"events__window__duration_ms": 50.0, "events__noise__filter": "numpy"}
    node = configured(world, event_files, **settings)
    assert node.trigger_activate() == OK
    assert replay(world, path, "--wait", "30")["published"] == {TOPIC: 517}
    seen = counts(world, 517)
    assert (seen["on"], seen["off"], seen["packets"]) == (125_183, 218_291, 517)
    assert node.health.drops() == {}
    assert seen["windows"] > 30
    assert world.spin_until(lambda: len(answers) == seen["windows"])


def test_lockstep_waits_for_those_that_a_node_answers_only(world, camera_files, tmp_path):
    """Images that one node answers, clouds and packets that nobody does."""
    from spike_perception.bags.writer import BagWriter
    from spike_perception.nodes.camera_classifier import CameraClassifierNode

    with BagWriter(tmp_path / "drive") as bag:
        packer = EventPacker(8, 8)
        for k in range(10):
            stamp = 1_000_000_000 + k * 100_000_000
            bag.image("/camera/image_raw", stamp, "camera", scene(k % 6))
            bag.point_cloud("/lidar/points", stamp + 1, "lidar", np.zeros((4, 3), np.float32))
            events = packer(_one_event(stamp))
            bag.event_packet(TOPIC, stamp + 2, stamp + 2, "dvs", events)
    answers = world.collect(ObjectClass, "/object_class")
    files = {"model__bundle": str(camera_files.bundle), "vocabulary__pack": str(camera_files.pack)}
    node = world.start(CameraClassifierNode, image__reliability="reliable", **files)
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    arguments = [tmp_path / "drive", "--rate", "0", "--wait", "30", "--lockstep", "/object_class"]
    result = replay(world, *arguments, "--answer-timeout", "20")
    assert result["unanswered"] == 0
    assert set(result["published"].values()) == {10}
    assert world.spin_until(lambda: len(answers) == 10)


def _one_event(t_ns: int):
    from spike_perception.sensing.events import Events

    pixel = np.zeros(1, np.uint16)
    return Events(pixel, pixel, np.ones(1, np.bool_), np.array([t_ns], np.int64))
