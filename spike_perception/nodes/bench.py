# SPDX-License-Identifier: Apache-2.0
"""Load running camera nodes with images and measure them from outside."""

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
from typing import Any

import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from tqdm import tqdm

from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception.share import fast_dds_environment
from spike_perception_msgs.msg import ObjectClass, PlaceMatch

# Node -> its answers: message type and topic.
NODES: dict[str, tuple[type, str]] = {
    "place_recognizer": (PlaceMatch, "/place_match"),
    "camera_classifier": (ObjectClass, "/object_class"),
}
# Different images, so that no answer comes from a warm cache of one picture.
PICTURES = 30
# Answers that arrive this long after the last image still count [s].
PATIENCE_S = 2.0
# A node that has not answered after so long will not: it may have to export its network [s].
START_S = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--node",
        nargs="+",
        choices=sorted(NODES),
        default=["place_recognizer"],
        help="one node, or several that hear the same camera",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to send images")
    parser.add_argument("--rate", type=float, default=30.0, help="images per second")
    parser.add_argument("--width", type=int, default=640, help="pixels")
    parser.add_argument("--height", type=int, default=480, help="pixels")
    parser.add_argument("--descriptor", default="", help="name; without: the node's default")
    parser.add_argument("--bundle", default="", help="file or name; without: the node's default")
    parser.add_argument(
        "--vocabulary", default="", help="file or name; without: the node's default"
    )
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
        """Count an answer."""
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


class Camera:
    """Publishes pictures at a steady rate; the nodes' answers are heard meanwhile."""

    def __init__(
        self, node: Node, watched: Sequence[Watched], arguments: argparse.Namespace
    ) -> None:
        self._node = node
        self._watched = watched
        self._rate: float = arguments.rate
        rng = np.random.default_rng(0)
        shape = (arguments.height // 16, arguments.width // 16, 3)
        small = rng.integers(0, 255, (PICTURES, *shape), dtype=np.uint8)
        self._messages = [self._message(each.repeat(16, 0).repeat(16, 1)) for each in small]
        reliable = arguments.reliability == "reliable"
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        self._publisher = node.create_publisher(
            Image, "/camera/image_raw", QoSProfile(depth=5, reliability=policy)
        )
        for each in watched:
            node.create_subscription(*NODES[each.name], each.hear, 100)
            node.create_subscription(DiagnosticArray, "/diagnostics", each.diagnose, 10)
        self.sent = 0

    @staticmethod
    def _message(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Image:
        height, width, _ = image.shape
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        message.header.frame_id = "camera"
        message.data = array("B", image.tobytes())
        return message

    def warm_up(self) -> None:
        """Send a few images until answers come from every node.

        Raises:
            InputError: ``no_answer`` after a minute, or from a node that has ended.
        """
        deadline = time.monotonic() + START_S
        while silent := [each for each in self._watched if len(each.latencies_ms) < 5]:
            first = silent[0]
            if time.monotonic() > deadline or first.child.poll() is not None:
                raise InputError(
                    "no_answer",
                    f"{first.name} answered no image within {START_S:.0f} s; what it said, if "
                    "anything, stands above",
                )
            self._send()
            self._spin(0.2)
        self._spin(1.0)
        for each in self._watched:
            each.latencies_ms.clear()
        self.sent = 0

    def run(self, seconds: float) -> None:
        """Send for ``seconds`` at the rate, then wait for the last answers."""
        start = time.monotonic()
        count = round(seconds * self._rate)
        for number in tqdm(range(count), unit="image", disable=None):
            self._spin(max(0.0, start + number / self._rate - time.monotonic()))
            self._send()
        self._spin(PATIENCE_S)

    def _send(self) -> None:
        message = self._messages[self.sent % PICTURES]
        message.header.stamp = to_stamp(time.time_ns())
        self._publisher.publish(message)
        self.sent += 1

    def _spin(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            rclpy.spin_once(self._node, timeout_sec=left)


def _start_node(name: str, arguments: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    parameters = {"autostart": "true", "image.reliability": arguments.reliability}
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
        f"  image stamp to answer, p50 / p95 / p99: {latency}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure; every node runs in a process of its own."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if not arguments.default_transport:
        os.environ.update(fast_dds_environment())
    names = list(dict.fromkeys(arguments.node))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        watched = []
        for name in names:
            child = _start_node(name, arguments, Path(folder))
            stack.callback(_stop, child)
            watched.append(Watched(name, child))
        rclpy.init(args=[])
        stack.callback(rclpy.try_shutdown)
        node = rclpy.create_node("bench_camera")
        stack.callback(node.destroy_node)
        camera = Camera(node, watched, arguments)
        camera.warm_up()
        before = [(dict(each.drops), each.cpu_s()) for each in watched]
        camera.run(arguments.seconds)
        spent_s = arguments.seconds + PATIENCE_S
        figures = {
            each.name: _figures(each, drops, (each.cpu_s() - cpu_s) / spent_s)
            for each, (drops, cpu_s) in zip(watched, before, strict=True)
        }
    result = {
        "sent": camera.sent,
        "rate_hz": arguments.rate,
        "size": [arguments.width, arguments.height],
        "reliability": arguments.reliability,
        "nodes": figures,
    }
    lines = [f"sent {camera.sent} images", *(_text(*each) for each in figures.items())]
    emit(arguments, result, "\n".join(lines))
    return 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
