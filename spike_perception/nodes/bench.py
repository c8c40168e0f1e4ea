# SPDX-License-Identifier: Apache-2.0
"""Load running nodes with images or LiDAR scans and measure them from outside."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from tqdm import tqdm

from spike_perception.bags.point_files import read_points
from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.nodes.clouds import cloud_message
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception.share import fast_dds_environment
from spike_perception_msgs.msg import ObjectClass, PlaceMatch


class Subject(NamedTuple):
    """A node that can be measured.

    Attributes:
        sensor: what it hears, which is also the section of its input's parameters.
        answer: type of its answers.
        topic: topic of its answers.
        source: of its answers, where several nodes share the topic.
    """

    sensor: str
    answer: type
    topic: str
    source: str = ""


NODES = {
    "place_recognizer": Subject("image", PlaceMatch, "/place_match"),
    "camera_classifier": Subject("image", ObjectClass, "/object_class", "camera"),
    "lidar_classifier": Subject("points", ObjectClass, "/object_class", "lidar"),
}
# Different images and scans, so that no answer comes from a warm cache of one.
PICTURES = 30
SCANS = 4
# Objects of a made-up scan, which stand in a ring around the sensor.
BOXES = 24
# Answers that arrive this long after the last message still count [s].
PATIENCE_S = 2.0
# A node that has not answered after so long will not: it may have to export its network [s].
START_S = 120.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--node",
        nargs="+",
        choices=sorted(NODES),
        default=["place_recognizer"],
        help="one node, or several that run at once",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to send")
    parser.add_argument("--rate", type=float, default=30.0, help="images per second")
    parser.add_argument("--scan-rate", type=float, default=10.0, help="LiDAR scans per second")
    parser.add_argument("--points", type=int, default=120_000, help="points of a made-up scan")
    parser.add_argument(
        "--scans", nargs="+", default=[], help="scans to send instead: .bin, .npy, .pcd, .ply"
    )
    parser.add_argument("--width", type=int, default=640, help="pixels")
    parser.add_argument("--height", type=int, default=480, help="pixels")
    parser.add_argument("--descriptor", default="", help="name; without: the node's default")
    parser.add_argument(
        "--bundle", default="", help="of a classifier: file or name; without: the node's default"
    )
    parser.add_argument("--vocabulary", default="", help="as --bundle")
    parser.add_argument(
        "--reliability",
        choices=("best_effort", "reliable"),
        default="best_effort",
        help="of publisher and node",
    )
    parser.add_argument(
        "--default-transport",
        action="store_true",
        help="leave out config/fastdds.xml, to see what it is for",
    )
    add_json(parser)


@dataclass
class Watched:
    """A node under load, as seen from outside."""

    name: str
    child: subprocess.Popen[bytes]
    latencies_ms: list[float] = field(default_factory=list)
    drops: dict[str, int] = field(default_factory=dict)

    def hear(self, answer: Any) -> None:
        """Count an answer; of several about one frame, the last."""
        if NODES[self.name].source and answer.source != NODES[self.name].source:
            return
        if getattr(answer, "object_index", 0) + 1 < getattr(answer, "object_count", 1):
            return
        self.latencies_ms.append((time.time_ns() - stamp_ns(answer.header.stamp)) / 1e6)

    def diagnose(self, message: DiagnosticArray) -> None:
        """Read the drops off a message of /diagnostics."""
        for status in message.status:
            if status.name != f"{self.name}: input":
                continue
            for each in status.values:
                if each.key.startswith("dropped "):
                    self.drops[each.key.removeprefix("dropped ")] = int(each.value)

    def cpu_s(self) -> float:
        """Processor time so far [s]."""
        times = psutil.Process(self.child.pid).cpu_times()
        return float(times.user + times.system)


@dataclass
class Sensor:
    """Publishes messages in turn, each with the present time as its stamp."""

    publisher: Any
    messages: Sequence[Any]
    rate_hz: float
    sent: int = 0

    def send(self) -> None:
        """Publish the next message."""
        message = self.messages[self.sent % len(self.messages)]
        message.header.stamp = to_stamp(time.time_ns())
        self.publisher.publish(message)
        self.sent += 1


def _images(arguments: argparse.Namespace) -> list[Image]:
    height, width = arguments.height // 16 * 16, arguments.width // 16 * 16
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (PICTURES, height // 16, width // 16, 3), dtype=np.uint8)
    messages = []
    for image in small.repeat(16, 1).repeat(16, 2):
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        message.header.frame_id = "camera"
        message.data = array("B", image.tobytes())
        messages.append(message)
    return messages


def _scans(arguments: argparse.Namespace) -> list[PointCloud2]:
    if arguments.scans:
        return [cloud_message(read_points(each).xyz) for each in arguments.scans]
    return [cloud_message(_scan(seed, arguments.points)) for seed in range(SCANS)]


def _scan(seed: int, points: int) -> NDArray[np.float32]:
    """Flat ground around the sensor, denser nearby, and upright boxes on it [m]."""
    rng = np.random.default_rng(seed)
    turn = rng.uniform(-np.pi, np.pi, points)
    distance = rng.uniform(2.0, 60.0, points)
    xyz = np.stack([distance * np.cos(turn), distance * np.sin(turn), np.full(points, -1.7)], 1)
    each = points // (4 * BOXES)
    for number, part in enumerate(xyz[: BOXES * each].reshape(BOXES, each, 3)):
        place = 2 * np.pi * number / BOXES
        size = rng.uniform((0.5, 0.5, 1.0), (2.0, 1.5, 2.0))
        part[:] = rng.uniform(-0.5, 0.5, (each, 3)) * size
        part += (15 * np.cos(place), 15 * np.sin(place), -1.3 + size[2] / 2)
    return xyz.astype(np.float32)


class Rig:
    """Sensors that publish at steady rates; the nodes' answers are heard meanwhile."""

    def __init__(
        self, node: Node, watched: Sequence[Watched], arguments: argparse.Namespace
    ) -> None:
        self._node = node
        self._watched = watched
        reliable = arguments.reliability == "reliable"
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        profile = QoSProfile(depth=5, reliability=policy)
        self.sensors: dict[str, Sensor] = {}
        wanted = {NODES[each.name].sensor for each in watched}
        if "image" in wanted:
            publisher = node.create_publisher(Image, "/camera/image_raw", profile)
            self.sensors["image"] = Sensor(publisher, _images(arguments), arguments.rate)
        if "points" in wanted:
            publisher = node.create_publisher(PointCloud2, "/lidar/points", profile)
            self.sensors["points"] = Sensor(publisher, _scans(arguments), arguments.scan_rate)
        for each in watched:
            subject = NODES[each.name]
            node.create_subscription(subject.answer, subject.topic, each.hear, 100)
            node.create_subscription(DiagnosticArray, "/diagnostics", each.diagnose, 10)

    def warm_up(self) -> None:
        """Send a little until answers come from every node.

        Raises:
            InputError: ``no_answer`` after :data:`START_S`, or from a node that has ended.
        """
        deadline = time.monotonic() + START_S
        while silent := [each for each in self._watched if len(each.latencies_ms) < 5]:
            first = silent[0]
            if time.monotonic() > deadline or first.child.poll() is not None:
                raise InputError(
                    "no_answer",
                    f"{first.name} gave no answer within {START_S:.0f} s; what it said, if "
                    "anything, stands above",
                )
            for sensor in self.sensors.values():
                sensor.send()
            self._spin(0.2)
        self._spin(1.0)
        for each in self._watched:
            each.latencies_ms.clear()
        for sensor in self.sensors.values():
            sensor.sent = 0

    def run(self, seconds: float) -> None:
        """Send for ``seconds`` at the rates, then wait for the last answers."""
        due = sorted(
            (number / sensor.rate_hz, name)
            for name, sensor in self.sensors.items()
            for number in range(round(seconds * sensor.rate_hz))
        )
        start = time.monotonic()
        for after, name in tqdm(due, unit="message", disable=None):
            self._spin(max(0.0, start + after - time.monotonic()))
            self.sensors[name].send()
        self._spin(PATIENCE_S)

    def _spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            rclpy.spin_once(self._node, timeout_sec=left)


def _start_node(name: str, arguments: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    reliability = f"{NODES[name].sensor}.reliability"
    parameters = {"autostart": "true", reliability: arguments.reliability}
    if name == "place_recognizer":
        parameters["map.path"] = str(folder / "bench.db")
        parameters["descriptor.name"] = arguments.descriptor
    else:
        parameters["model.bundle"] = arguments.bundle
        parameters["vocabulary.pack"] = arguments.vocabulary
    command = [sys.executable, "-m", f"spike_perception.nodes.{name}", "--ros-args"]
    command += ["--log-level", "error"]  # why it cannot be configured, for example
    for parameter, value in parameters.items():
        if value:
            command += ["-p", f"{parameter}:={value}"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL)


def _figures(watched: Watched, drops_before: dict[str, int], cores: float) -> dict[str, Any]:
    latencies = watched.latencies_ms
    p50, p95, p99 = np.percentile(latencies, (50, 95, 99)).tolist() if latencies else [None] * 3
    return {
        "answered": len(latencies),
        "drops": {
            reason: count - drops_before.get(reason, 0)
            for reason, count in watched.drops.items()
            if count > drops_before.get(reason, 0)
        },
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "latency_p99_ms": p99,
        "cpu_cores": cores,
        "memory_mb": psutil.Process(watched.child.pid).memory_info().rss / 1e6,
    }


def _text(name: str, figures: dict[str, Any]) -> str:
    percentiles = [figures[f"latency_p{rank}_ms"] for rank in (50, 95, 99)]
    latency = (
        "none"
        if percentiles[0] is None
        else " / ".join(f"{each:.1f}" for each in percentiles) + " ms"
    )
    return (
        f"{name}: answered {figures['answered']}, dropped {figures['drops'] or 'none'}, "
        f"{figures['cpu_cores']:.2f} cores, {figures['memory_mb']:.0f} MB\n"
        f"  stamp to answer, p50 / p95 / p99: {latency}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure; every node runs in a process of its own."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if not arguments.default_transport:
        os.environ.update(fast_dds_environment())
    names = list(dict.fromkeys(arguments.node))
    if (arguments.bundle or arguments.vocabulary) and sum(
        "classifier" in each for each in names
    ) > 1:
        raise InputError(
            "bad_arguments",
            "--bundle and --vocabulary are of one classifier; measure the others by themselves, or "
            "with their defaults",
        )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        watched = []
        for name in names:
            child = _start_node(name, arguments, Path(folder))
            stack.callback(_stop, child)
            watched.append(Watched(name, child))
        rclpy.init(args=[])
        stack.callback(rclpy.try_shutdown)
        node = rclpy.create_node("bench_sensors")
        stack.callback(node.destroy_node)
        rig = Rig(node, watched, arguments)
        rig.warm_up()
        before = [(dict(each.drops), each.cpu_s()) for each in watched]
        rig.run(arguments.seconds)
        spent_s = arguments.seconds + PATIENCE_S
        figures = {
            each.name: _figures(each, drops, (each.cpu_s() - cpu_s) / spent_s)
            for each, (drops, cpu_s) in zip(watched, before, strict=True)
        }
    sent = {name: sensor.sent for name, sensor in rig.sensors.items()}
    result = {
        "sent": sent,
        "rate_hz": {name: sensor.rate_hz for name, sensor in rig.sensors.items()},
        "size": [arguments.width, arguments.height],
        "points": arguments.points,
        "reliability": arguments.reliability,
        "nodes": figures,
    }
    told = ", ".join(f"{count} messages of {name}" for name, count in sent.items())
    lines = [f"sent {told}", *(_text(*each) for each in figures.items())]
    emit(arguments, result, "\n".join(lines))
    return 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
