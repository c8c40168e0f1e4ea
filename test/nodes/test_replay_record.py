# SPDX-License-Identifier: Apache-2.0
"""Bags through real DDS and back, between processes as on a robot."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker, MarkerArray

from spike_perception.bags.raw import RawBag
from spike_perception.bags.reader import BagReader
from spike_perception.bags.writer import BagWriter
from spike_perception.cli import main
from spike_perception.errors import InputError
from spike_perception.nodes import bench
from spike_perception.nodes.lidar_classifier import LidarClassifierNode
from spike_perception.nodes.record import Recorder
from spike_perception.nodes.replay import Answers, header_frame_id, header_stamp_ns
from spike_perception_msgs.msg import ObjectClass, PlaceMatch

from .conftest import image_message, scene

pytestmark = pytest.mark.usefixtures("domain")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "spike_perception.cli", *map(str, words)]


@pytest.fixture
def start():
    """Starts a process that is stopped, and must have ended well, when the test ends."""
    started = []

    def launch(*arguments: object) -> subprocess.Popen:
        started.append(subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE))
        return started[-1]

    yield launch
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0


def make_bag(path: Path, storage: str, frames: int = 12) -> Path:
    with BagWriter(path, storage) as writer:
        for number in range(frames):
            stamp = 1_000_000_000 + number * 50_000_000
            writer.image("/camera/image_raw", stamp, "camera", scene(number))
    return path


def make_scans(path: Path, scans: list[np.ndarray]) -> None:
    with BagWriter(path) as writer:
        for number, points in enumerate(scans):
            writer.point_cloud("/lidar/points", 10**9 + number * 10**8, "lidar", points)


def make_ros1_bag(path: Path, frames: int = 12) -> Path:
    types = get_typestore(Stores.ROS1_NOETIC)
    image_type, header_type = (
        types.types["sensor_msgs/msg/Image"],
        types.types["std_msgs/msg/Header"],
    )
    stamp_type = types.types["builtin_interfaces/msg/Time"]
    with Writer1(path) as writer:
        connection = writer.add_connection(
            "/camera/image_raw", "sensor_msgs/msg/Image", typestore=types
        )
        for number in range(frames):
            stamp = 1_000_000_000 + number * 50_000_000
            header = header_type(number, stamp_type(*divmod(stamp, 1_000_000_000)), "camera")
            picture = scene(number)
            message = image_type(header, 120, 160, "rgb8", 0, 480, picture.reshape(-1))
            data = types.serialize_ros1(message, "sensor_msgs/msg/Image")
            writer.write(connection, stamp, data)
    return path


def images(path: Path) -> list[tuple[int, bytes]]:
    with BagReader(path) as bag:
        return [(each.stamp_ns, each.image.tobytes()) for each in bag.images()]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "ros1"])
def test_what_is_replayed_arrives_byte_for_byte_with_the_clock(tmp_path, start, storage):
    if storage == "ros1":
        bag = make_ros1_bag(tmp_path / "drive.bag")
    else:
        bag = make_bag(tmp_path / "drive", storage)
    topics = ("/camera/image_raw", "/clock")
    recorder = start(*command("record", "-o", tmp_path / "heard", "--topics", *topics))
    time.sleep(1.5)
    assert main(["replay", str(bag), "--rate", "2", "--wait", "15"]) == 0
    time.sleep(0.5)
    recorder.send_signal(signal.SIGINT)
    assert recorder.wait(15) == 0
    assert images(tmp_path / "heard") == images(bag)
    with RawBag(tmp_path / "heard") as heard:
        seconds = [struct.unpack_from("<iI", m.data, 4) for m in heard.raw(["/clock"])]
    clock = [s + n / 1e9 for s, n in seconds]
    assert clock == sorted(clock)
    assert clock[0] >= 1.0
    assert clock[-1] == pytest.approx(1.55, abs=0.01)


def test_it_plays_at_the_rate_that_is_asked_for(tmp_path):
    bag = make_bag(tmp_path / "drive", "mcap", frames=21)  # one second
    durations = {}
    for rate in (1.0, 4.0):
        started = time.monotonic()
        assert main(["replay", str(bag), "--rate", str(rate)]) == 0
        durations[rate] = time.monotonic() - started
    assert 0.5 < durations[1.0] - durations[4.0] < 1.2


def test_a_topic_that_others_wait_for_is_recorded_once_it_is_published(tmp_path, world, start):
    """A subscriber alone makes the topic known, but not what its publisher will offer."""
    world.collect(PlaceMatch, "/place_match")
    recorder = start(*command("record", "-o", tmp_path / "heard", "--topics", "/place_match"))
    world.spin(2.5)
    publisher = world.client.create_publisher(PlaceMatch, "/place_match", 10)
    assert world.spin_until(lambda: publisher.get_subscription_count() == 2)
    publisher.publish(PlaceMatch(place_id=7))
    world.spin(0.5)
    recorder.send_signal(signal.SIGINT)
    assert recorder.wait(15) == 0
    with BagReader(tmp_path / "heard") as bag:
        assert [message.place_id for _, message in bag.messages("/place_match")] == [7]


def test_times_are_of_the_arrival_not_of_when_the_recorder_gets_to_it(tmp_path, world):
    publisher = world.client.create_publisher(PlaceMatch, "/place_match", 10)
    node = world.add(rclpy.create_node("recorder"))
    with BagWriter(tmp_path / "heard") as writer:
        recorder = Recorder(node, writer, ["/place_match"])
        assert world.spin_until(lambda: list(node.subscriptions))
        world.connect(publisher)
        sent = time.time_ns()
        publisher.publish(PlaceMatch(place_id=7))
        time.sleep(1.0)  # a busy recorder
        assert world.spin_until(lambda: writer.counts.get("/place_match"))
        # A middleware that does not tell: the time of now.
        write = recorder._write_to("/place_match", "spike_perception_msgs/msg/PlaceMatch")
        write(serialize_message(PlaceMatch(place_id=8)), {"received_timestamp": 0})
    with RawBag(tmp_path / "heard") as bag:
        after = [(each.time_ns - sent) / 1e9 for each in bag.raw(["/place_match"])]
    assert 0 <= after[0] < 0.9
    assert after[1] >= 1.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_loop_goes_on_until_it_is_told_to_stop(tmp_path, number):
    bag = make_bag(tmp_path / "drive", "mcap", frames=4)
    process = subprocess.Popen(command("replay", bag, "--loop", "--rate", "2"))
    heard = 0

    def hear(_: Image) -> None:
        nonlocal heard
        heard += 1

    rclpy.init(args=[])
    node = rclpy.create_node("listener")
    try:
        node.create_subscription(Image, "/camera/image_raw", hear, 10)
        deadline = time.monotonic() + 60.0
        while heard < 10 and time.monotonic() < deadline:  # the bag holds 4
            rclpy.spin_once(node, timeout_sec=0.1)
        assert heard >= 10
        assert process.poll() is None
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
        process.send_signal(number)
        status = process.wait(30)
    assert status == 130


def test_told_to_stop_before_there_is_a_node_it_ends_as_it_does_later(tmp_path, monkeypatch):
    bag = make_bag(tmp_path / "drive", "mcap", frames=2)
    create = rclpy.create_node

    def late(name: str) -> Node:
        rclpy.shutdown()  # what rclpy does of SIGTERM
        return create(name)

    monkeypatch.setattr(rclpy, "create_node", late)
    assert main(["replay", str(bag)]) == 130


def test_bad_arguments_are_refused_with_what_is_there(tmp_path, capsys):
    bag = make_bag(tmp_path / "drive", "mcap", frames=2)
    assert main(["replay", str(bag), "--topics", "/lidar"]) == 2
    assert "/camera/image_raw" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "none")]) == 2
    for rate in ("-1", "inf", "nan"):
        assert main(["replay", str(bag), "--rate", rate]) == 2
    assert main(["replay", str(bag), "--remap", "nonsense"]) == 2
    assert main(["record", "-o", str(bag), "--topics", "/x"]) == 2
    assert "exists" in capsys.readouterr().err


def test_the_stamp_is_read_in_both_byte_orders():
    assert header_stamp_ns(b"\x00\x01\x00\x00" + struct.pack("<iI", 3, 5)) == 3_000_000_005
    assert header_stamp_ns(b"\x00\x00\x00\x00" + struct.pack(">iI", 3, 5)) == 3_000_000_005


def test_a_message_without_header_is_told_in_one_sentence():
    with pytest.raises(InputError, match="no header"):
        header_stamp_ns(b"\x00\x01\x00\x00\x01")


@pytest.mark.parametrize("name", [b"camera", b"", b"ca\xe9ra", b"cam\x00ra"])
def test_an_answer_has_the_frame_of_its_message_whatever_its_bytes(name):
    placeholder = "x" * len(name)
    sent = serialize_message(Image(header=Header(frame_id=placeholder)))
    sent = sent.replace(placeholder.encode(), name, 1)
    heard = deserialize_message(sent, Image)  # as a node does
    answer = serialize_message(ObjectClass(header=heard.header))
    assert header_frame_id(sent) == header_frame_id(answer)


def test_a_bag_of_types_that_are_not_installed_plays_as_nothing(tmp_path, capsys):
    types = get_typestore(Stores.ROS2_JAZZY)
    types.register(get_types_from_msg("uint8 a", "nowhere_msgs/msg/A"))
    with Writer2(tmp_path / "bag", version=9) as writer:
        connection = writer.add_connection("/a", "nowhere_msgs/msg/A", typestore=types)
        message = types.types["nowhere_msgs/msg/A"](1)
        writer.write(connection, 1, types.serialize_cdr(message, "nowhere_msgs/msg/A"))
    assert main(["replay", str(tmp_path / "bag"), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == {"/a": "nowhere_msgs/msg/A"}


def test_a_bag_without_messages_plays_to_its_end_even_in_a_loop(tmp_path):
    with BagWriter(tmp_path / "bag"):
        pass
    done = subprocess.run(command("replay", tmp_path / "bag", "--loop"), timeout=20, check=False)
    assert done.returncode == 0


def test_waiting_ends_when_it_is_told_to_stop(tmp_path, world):
    bag = make_bag(tmp_path / "drive", "mcap", frames=2)
    process = subprocess.Popen(command("replay", bag, "--wait", "60"), stderr=subprocess.PIPE)
    assert world.spin_until(lambda: world.client.count_publishers("/camera/image_raw"), 60)
    world.spin(0.5)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=10)
    assert (process.returncode, told) == (130, b"")


def test_lockstep_hears_answers_without_having_waited_for_them(tmp_path):
    rclpy.init(args=[])
    try:
        player, answerer = rclpy.create_node("player"), rclpy.create_node("answerer")
        publisher = answerer.create_publisher(Image, "/answers", 10)
        answers = Answers(player, "/answers", 5.0, 0)
        deadline = time.monotonic() + 10
        while not player.count_publishers("/answers") and time.monotonic() < deadline:
            time.sleep(0.05)
        answerer.create_timer(0.05, lambda: publisher.publish(image_message(scene(1), 7)))
        executor = SingleThreadedExecutor()
        executor.add_node(answerer)
        thread = threading.Thread(target=executor.spin)
        thread.start()
        unanswered = []
        # The answer to an image is none to the scan of its time.
        for frame, answers._timeout_s in ((b"camera", 5.0), (b"lidar", 0.5)):
            answers.wait_for(7, frame)
            unanswered.append(answers.unanswered)
        executor.shutdown()
        thread.join(5)
        assert unanswered == [0, 1]
    finally:
        rclpy.try_shutdown()


def test_in_lockstep_it_does_not_start_without_those_who_answer(tmp_path, capsys):
    bag = make_bag(tmp_path / "drive", "mcap", frames=2)
    words = ["replay", str(bag), "--wait", "1", "--lockstep", "/object_class", "/place_match"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "answer on /object_class, /place_match" in told
    assert "nobody hears /camera/image_raw" in told


def test_in_lockstep_it_waits_for_every_node_that_answers_on_a_topic(tmp_path, world):
    """Two nodes answer on one topic, one of them later than the other."""
    with BagWriter(tmp_path / "drive") as writer:
        for number in range(4):
            stamp = 1_000_000_000 + number * 50_000_000
            writer.image("/camera/image_raw", stamp, "camera", scene(number))
            writer.point_cloud("/lidar/points", stamp, "lidar", np.ones((5, 3), np.float32))
    heard: dict[str, int] = dict.fromkeys(("camera", "lidar"), 0)

    def answer(name: str, kind: type, topic: str) -> None:
        node = world.add(rclpy.create_node(name))
        publisher = node.create_publisher(ObjectClass, "/object_class", 10)

        def say(message) -> None:
            heard[name] += 1
            publisher.publish(ObjectClass(header=message.header, source=name))

        node.create_subscription(kind, topic, say, 10)

    answer("lidar", PointCloud2, "/lidar/points")
    replay = subprocess.Popen(
        command(
            *("replay", tmp_path / "drive", "--rate", "0", "--wait", "60", "--json", "-"),
            *("--lockstep", "/object_class", "/object_class"),
        ),
        stdout=subprocess.PIPE,
    )
    assert world.spin_until(lambda: world.client.count_publishers("/lidar/points"), 60)
    world.spin(1.5)
    assert heard["lidar"] == 0
    answer("camera", Image, "/camera/image_raw")
    assert world.spin_until(lambda: replay.poll() is not None, 60)
    assert heard == {"camera": 4, "lidar": 4}
    assert json.loads(replay.communicate()[0])["unanswered"] == 0


def test_in_lockstep_the_boxes_end_a_scan_whatever_its_answers(tmp_path, world):
    """Boxes in another frame come a while after the answers; an empty scan has boxes alone."""
    make_scans(tmp_path / "drive", [np.ones((5, 3), np.float32)] * 5)
    empty, refused, order = 2, 3, []
    node = world.add(rclpy.create_node("lidar_node"))
    answers = node.create_publisher(ObjectClass, "/object_class", 10)
    boxes = node.create_publisher(MarkerArray, "~/markers", 10)
    due = []

    def hear(scan: PointCloud2) -> None:
        number = order.count("scan")
        order.append("scan")
        if number == refused:
            return
        header = Header(stamp=scan.header.stamp, frame_id="map")
        if number != empty:
            answers.publish(ObjectClass(header=header, source="lidar"))
        due.append((time.monotonic() + 0.3, header))

    def draw() -> None:
        if due and time.monotonic() > due[0][0]:
            order.append("boxes")
            boxes.publish(MarkerArray(markers=[Marker(header=due.pop(0)[1])]))

    node.create_subscription(PointCloud2, "/lidar/points", hear, 10)
    node.create_timer(0.02, draw)
    arguments = ("--rate", "0", "--wait", "60", "--answer-timeout", "3", "--json", "-")
    replay = subprocess.Popen(
        command("replay", tmp_path / "drive", *arguments, "--lockstep", "/object_class"),
        stdout=subprocess.PIPE,
    )
    assert world.spin_until(lambda: replay.poll() is not None, 60)
    assert json.loads(replay.communicate()[0])["unanswered"] == 1  # the refused one
    assert order == [*["scan", "boxes"] * 3, "scan", *["scan", "boxes"]]


def test_in_lockstep_an_empty_field_does_not_hold_up_the_replay(
    tmp_path, world, lidar_files, scan_of, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    objects = [(0, 1), (), (), (0,), ()]
    make_scans(tmp_path / "drive", [scan_of(*each) for each in objects])
    answers = world.collect(ObjectClass, "/object_class")
    node = world.start(
        LidarClassifierNode,
        model__bundle=str(lidar_files.bundle),
        vocabulary__pack=str(lidar_files.pack),
        points__reliability="reliable",
    )
    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    arguments = ("--rate", "0", "--wait", "60", "--answer-timeout", "20", "--json", "-")
    replay = subprocess.Popen(
        command("replay", tmp_path / "drive", *arguments, "--lockstep", "/object_class"),
        stdout=subprocess.PIPE,
    )
    assert world.spin_until(lambda: replay.poll() is not None, 60)
    assert json.loads(replay.communicate()[0])["unanswered"] == 0
    assert node.health.drops() == {}
    assert node._seen["scans"] == len(objects)
    assert world.spin_until(lambda: len(answers) == 3)


def test_in_lockstep_with_a_node_in_its_own_process_nothing_is_lost(tmp_path, start):
    """The whole wiring of the demo, on scenes instead of a simulation."""
    bag = tmp_path / "drive"
    numbers = [*range(30), *range(30)]
    with BagWriter(bag) as writer:
        for k, number in enumerate(numbers):
            stamp = 1_000_000_000 * (k + 1)
            writer.image("/camera/image_raw", stamp, "camera", scene(number))
    settings = {
        "autostart": "true",
        "use_sim_time": "true",
        "map.path": tmp_path / "map.db",
        "descriptor.name": "patch_norm",
        "image.reliability": "reliable",
        "sequence.length": 3,
        "decision.exclusion_s": 20.0,
    }
    overrides = [part for k, v in settings.items() for part in ("-p", f"{k}:={v}")]
    node = "spike_perception.nodes.place_recognizer"
    start(sys.executable, "-m", node, "--ros-args", *overrides)
    recorder = start(*command("record", "-o", tmp_path / "answers", "--topics", "/place_match"))
    arguments = ["replay", bag, "--rate", "0", "--wait", "30"]
    arguments += ["--lockstep", "/place_match", "--listeners", "1"]
    replay = subprocess.run(
        command(*arguments, "--json", "-"), stdout=subprocess.PIPE, check=True, timeout=120
    )
    assert json.loads(replay.stdout)["unanswered"] == 0
    time.sleep(0.3)
    recorder.send_signal(signal.SIGINT)
    assert recorder.wait(15) == 0
    with BagReader(tmp_path / "answers") as answers:
        found = list(answers.messages("/place_match"))
    assert [stamp for stamp, _ in found] == [1_000_000_000 * (k + 1) for k in range(len(numbers))]
    second = [message for _, message in found[30:]]
    right = [m.status == 1 and m.place_id == k + 1 for k, m in enumerate(second)]
    assert np.mean(right) >= 0.8
    assert all(m.status != 1 or m.place_id == k + 1 for k, m in enumerate(second))


def test_best_effort_images_cross_processes_with_the_shipped_profile(tmp_path, camera_files):
    files = ["--bundle", camera_files.bundle, "--vocabulary", camera_files.pack]
    nodes = ("place_recognizer", "camera_classifier")
    done = subprocess.run(
        command("bench", "node", "--node", *nodes, *files, "--seconds", "4", "--json", "-"),
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        timeout=240,
    )
    result = json.loads(done.stdout)
    assert result["sent"] == {"image": 120}
    assert set(result["nodes"]) == set(nodes)
    for figures in result["nodes"].values():
        # What a busy node dropped has crossed, too; the default transport loses most on the way.
        assert figures["answered"] + sum(figures["drops"].values()) >= 100
        assert 0 < figures["latency_p50_ms"] < 1000


def test_a_bench_sends_scans_to_the_lidar_classifier(tmp_path, lidar_files):
    files = ["--bundle", lidar_files.bundle, "--vocabulary", lidar_files.pack]
    size = ["--points", "20000", "--scan-rate", "5", "--seconds", "4"]
    done = subprocess.run(
        command("bench", "node", "--node", "lidar_classifier", *files, *size, "--json", "-"),
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        timeout=240,
    )
    result = json.loads(done.stdout)
    assert result["sent"] == {"points": 20}
    figures = result["nodes"]["lidar_classifier"]
    # One a scan, however many objects it has.
    assert 15 <= figures["answered"] + sum(figures["drops"].values()) <= 20
    assert figures["latency_p50_ms"] > 0


def test_a_node_that_does_not_answer_ends_the_bench_with_its_own_words(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(bench, "START_S", 15.0)  # a busy machine takes long to load a node
    missing = str(tmp_path / "none.safetensors")
    arguments = ["bench", "node", "--node", "camera_classifier", "--bundle", missing]
    assert main([*arguments, "--seconds", "1"]) == 2
    told = capfd.readouterr().err
    assert "camera_classifier gave no answer" in told
    assert missing in told
