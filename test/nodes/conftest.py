# SPDX-License-Identifier: Apache-2.0
"""Real rclpy over real DDS, each test in a domain of its own."""

from __future__ import annotations

import itertools
import os
import time
from array import array
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from spike_perception.evaluation.session import is_free
from spike_perception.nodes.stamps import to_stamp

# Sessions of the commands under test take domains 1 to 100 and see only those in use at the moment.
# From 215 on the ports lie above the ephemeral ones.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
SHARE = max(1, 18 // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
FIRST = 215 + WORKER * SHARE % 18
DOMAINS = itertools.cycle(range(FIRST, FIRST + SHARE))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch, repository) -> int:
    """A DDS domain that no test running beside this one uses, also for child processes."""
    number = next((each for each in itertools.islice(DOMAINS, SHARE) if is_free(each)), FIRST)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    profile = str(repository / "config" / "fastdds.xml")
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", profile)
    return number


class World:
    """One executor with the nodes of a test in it."""

    def __init__(self) -> None:
        self.executor = SingleThreadedExecutor()
        self.client: Node = rclpy.create_node("client")
        self._nodes: list[Node] = []
        self.add(self.client)

    def add(self, node: Node) -> Node:
        self.executor.add_node(node)
        self._nodes.append(node)
        return node

    def start(self, node_type: type, **parameters: object) -> Node:
        """Create a perception node with parameters given as ``map__path="x"``."""
        overrides = [Parameter(k.replace("__", "."), value=v) for k, v in parameters.items()]
        return self.add(node_type(parameter_overrides=overrides))

    def spin_until(self, condition: Callable[[], object], seconds: float = 10.0) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return True
            self.executor.spin_once(timeout_sec=0.02)
        return bool(condition())

    def spin(self, seconds: float) -> None:
        self.spin_until(lambda: False, seconds)

    def collect(self, message_type: type, topic: str, profile: QoSProfile | int = 50) -> list:
        heard: list = []
        self.client.create_subscription(message_type, topic, heard.append, profile)
        return heard

    def camera(self, node: Node, topic: str = "/camera/image_raw") -> Camera:
        publisher = self.client.create_publisher(
            Image, topic, QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        )
        self.connect(publisher)
        return Camera(self, publisher)

    def connect(self, publisher) -> None:
        """Wait until publisher and subscriptions know each other.

        A writer may know a reader that does not know it yet, and what is then sent is lost.
        """
        readers = [
            each
            for node in self._nodes
            for each in node.subscriptions
            if each.topic_name == publisher.topic_name
        ]
        assert readers, f"no node of this test reads {publisher.topic_name}"
        assert self.spin_until(
            lambda: (
                publisher.get_subscription_count() >= len(readers)
                and all(each.get_publisher_count() for each in readers)
            )
        )

    def call(self, service_type: type, name: str, request: object) -> object:
        client = self.client.create_client(service_type, name)
        assert self.spin_until(client.service_is_ready), f"no service {name}"
        future = client.call_async(request)
        assert self.spin_until(future.done), f"no answer from {name}"
        self.client.destroy_client(client)
        return future.result()

    def close(self) -> None:
        for node in self._nodes:
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
        self.executor.shutdown()


class Camera:
    """Publishes images with rising stamps."""

    def __init__(self, world: World, publisher) -> None:
        self._world = world
        self._publisher = publisher
        self.stamp = 1_000_000_000

    def send(self, image: np.ndarray, *, after_s: float = 1.0, **fields: object) -> int:
        """Publish one image ``after_s`` after the last; returns its stamp."""
        self.stamp += int(after_s * 1e9)
        self._publisher.publish(image_message(image, self.stamp, **fields))
        return self.stamp


def image_message(image: np.ndarray, stamp: int, **fields: object) -> Image:
    """An rgb8 message; ``fields`` spoil it."""
    message = Image(
        height=image.shape[0],
        width=image.shape[1],
        encoding="rgb8",
        step=image.shape[1] * 3,
        data=array("B", np.ascontiguousarray(image).tobytes()),
    )
    message.header.stamp = to_stamp(stamp)
    message.header.frame_id = "camera"
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def scene(number: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """An image that looks like no other number's: blocks of random brightness."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 255, (12, 16, 1), dtype=np.uint8).repeat(3, axis=2)
    height, width = size
    return blocks.repeat(height // 12, axis=0).repeat(width // 16, axis=1)


@pytest.fixture
def world(domain: int) -> Iterator[World]:
    rclpy.init(args=[], domain_id=domain)
    world = World()
    yield world
    world.close()
    rclpy.try_shutdown()
