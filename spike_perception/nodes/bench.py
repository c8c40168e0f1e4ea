# SPDX-License-Identifier: Apache-2.0
"""Load a running place_recognizer with camera images and measure it from outside."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from array import array
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
from spike_perception_msgs.msg import PlaceMatch

# Different images, so that no answer comes from a warm cache of one picture.
PICTURES = 30
# Answers that arrive this long after the last image still count [s].
PATIENCE_S = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to send images")
    parser.add_argument("--rate", type=float, default=30.0, help="images per second")
    parser.add_argument("--width", type=int, default=640, help="pixels")
    parser.add_argument("--height", type=int, default=480, help="pixels")
    parser.add_argument("--descriptor", default="", help="name; without: the node's default")
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


class Camera:
    """Publishes pictures at a steady rate and hears the answers."""

    def __init__(self, node: Node, arguments: argparse.Namespace) -> None:
        self._node = node
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
        node.create_subscription(PlaceMatch, "/place_match", self._hear, 100)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnose, 10)
        self.latencies_ms: list[float] = []
        self.drops: dict[str, int] = {}
        self.sent = 0

    @staticmethod
    def _message(image: np.ndarray[Any, np.dtype[np.uint8]]) -> Image:
        height, width, _ = image.shape
        message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
        message.header.frame_id = "camera"
        message.data = array("B", image.tobytes())
        return message

    def _hear(self, answer: PlaceMatch) -> None:
        self.latencies_ms.append((time.time_ns() - stamp_ns(answer.header.stamp)) / 1e6)

    def _diagnose(self, message: DiagnosticArray) -> None:
        for status in message.status:
            for each in status.values:
                if each.key.startswith("dropped "):
                    self.drops[each.key.removeprefix("dropped ")] = int(each.value)

    def warm_up(self) -> None:
        """Send a few images until answers come.

        Raises:
            InputError: ``no_answer`` after 30 s.
        """
        deadline = time.monotonic() + 30.0
        while len(self.latencies_ms) < 5:
            if time.monotonic() > deadline:
                raise InputError("no_answer", "the node answered no image within 30 s")
            self._send()
            self._spin(0.2)
        self._spin(1.0)
        self.latencies_ms.clear()
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


def _start_node(arguments: argparse.Namespace, folder: Path) -> subprocess.Popen[bytes]:
    parameters = {
        "autostart": "true",
        "map.path": str(folder / "bench.db"),
        "image.reliability": arguments.reliability,
    }
    if arguments.descriptor:
        parameters["descriptor.name"] = arguments.descriptor
    command = [sys.executable, "-m", "spike_perception.nodes.place_recognizer", "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={value}"]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(arguments: argparse.Namespace) -> int:
    """Measure; the node runs in a process of its own."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if not arguments.default_transport:
        os.environ.update(fast_dds_environment())
    with tempfile.TemporaryDirectory() as folder:
        process = _start_node(arguments, Path(folder))
        rclpy.init(args=[])
        node = rclpy.create_node("bench_camera")
        try:
            camera = Camera(node, arguments)
            camera.warm_up()
            before, watched = dict(camera.drops), psutil.Process(process.pid)
            cpu = watched.cpu_times()
            camera.run(arguments.seconds)
            used = watched.cpu_times()
            memory = watched.memory_info().rss
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
            process.send_signal(signal.SIGINT)
            process.wait(10)
    drops = {r: n - before.get(r, 0) for r, n in camera.drops.items() if n > before.get(r, 0)}
    busy = used.user + used.system - cpu.user - cpu.system
    p50, p95, p99 = (
        (float(each) for each in np.percentile(camera.latencies_ms, (50, 95, 99)))
        if camera.latencies_ms
        else (None, None, None)
    )
    result = {
        "sent": camera.sent,
        "answered": len(camera.latencies_ms),
        "drops": drops,
        "latency_p50_ms": p50,
        "latency_p95_ms": p95,
        "latency_p99_ms": p99,
        "node_cpu_cores": busy / (arguments.seconds + PATIENCE_S),
        "node_memory_mb": memory / 1e6,
        "rate_hz": arguments.rate,
        "size": [arguments.width, arguments.height],
        "reliability": arguments.reliability,
    }
    latency = "none" if p50 is None else f"{p50:.1f} / {p95:.1f} / {p99:.1f} ms"
    emit(
        arguments,
        result,
        f"sent {camera.sent}, answered {len(camera.latencies_ms)}, dropped by the node "
        f"{drops or 'none'}\nimage stamp to answer, p50 / p95 / p99: {latency}\n"
        f"node: {result['node_cpu_cores']:.2f} cores, {result['node_memory_mb']:.0f} MB",
    )
    return 0
