# SPDX-License-Identifier: Apache-2.0
"""Record topics to an MCAP bag through rclpy, until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import rclpy
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions

from spike_perception.bags.writer import BagWriter
from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.nodes.message_types import message_class
from spike_perception.share import share_folder

if TYPE_CHECKING:
    from rclpy.subscription import MessageInfo  # older releases do not have it


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="bag to write")
    parser.add_argument("--topics", nargs="+", required=True, help="topics to record")
    parser.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap", help="format")
    add_json(parser)


def installed_definitions(package: str) -> dict[str, str]:
    """Texts of an installed interface package's messages by ``package/msg/Name``.

    Raises:
        InputError: ``package_missing`` if the package is not installed.
    """
    files = sorted(share_folder(package).glob("msg/*.msg"))
    return {f"{package}/msg/{path.stem}": path.read_text() for path in files}


class Recorder:
    """Subscribes to topics as they appear and writes what arrives."""

    def __init__(self, node: Node, writer: BagWriter, topics: list[str]) -> None:
        self._node = node
        self._writer = writer
        self._missing = set(topics)
        self._find()
        node.create_timer(0.1, self._find)

    def _find(self) -> None:
        for name, types in self._node.get_topic_names_and_types():
            # What a publisher offers is needed to subscribe; others may name the topic before.
            if name not in self._missing or not self._node.count_publishers(name):
                continue
            if (kind := message_class(types[0])) is not None:
                self._missing.discard(name)
                try:
                    self._writer.define(installed_definitions(types[0].split("/")[0]))
                    self._writer.declare(name, types[0])
                except InputError as error:
                    self._node.get_logger().error(f"not recorded: {error}")
                    continue
                self._node.create_subscription(
                    kind, name, self._write_to(name, types[0]), self._profile(name), raw=True
                )

    def _profile(self, topic: str) -> QoSProfile:
        """What every publisher there is can serve: its own reliability and durability."""
        offers = [each.qos_profile for each in self._node.get_publishers_info_by_topic(topic)]
        # Nothing is known of a publisher that has gone again: ask for what everybody can serve.
        reliable = {each.reliability for each in offers} == {ReliabilityPolicy.RELIABLE}
        latched = {each.durability for each in offers} == {DurabilityPolicy.TRANSIENT_LOCAL}
        return QoSProfile(
            depth=1000,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

    def _write_to(self, topic: str, message_type: str) -> Callable[[bytes, MessageInfo], None]:
        def write(data: bytes, info: MessageInfo) -> None:
            # When the middleware got it: this process may be slow to be asked. 0: it does not tell.
            received = info["received_timestamp"] or self._node.get_clock().now().nanoseconds
            self._writer.serialized(topic, received, message_type, data)

        return write


def run(arguments: argparse.Namespace) -> int:
    """Record until SIGINT or SIGTERM; the bag is then complete."""
    stopped = threading.Event()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with BagWriter(arguments.output, arguments.storage, keep_partial=True) as writer:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("record")
        try:
            topics = [topic if topic.startswith("/") else f"/{topic}" for topic in arguments.topics]
            Recorder(node, writer, topics)
            while not stopped.is_set():
                rclpy.spin_once(node, timeout_sec=0.1)
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    counts = {topic: writer.counts.get(topic, 0) for topic in topics}
    lines = [f"{count:8d}  {topic}" for topic, count in counts.items()]
    emit(arguments, {"recorded": counts}, "\n".join(lines))
    return 0
