# SPDX-License-Identifier: Apache-2.0
"""The executable ``perception``: several perception nodes in one process."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from rclpy.utilities import remove_ros_args

from spike_perception.nodes.perception_node import PerceptionNode, spin

# Node -> its class, in the module of the node's name.
NODES = {
    "camera_classifier": "CameraClassifierNode",
    "lidar_classifier": "LidarClassifierNode",
    "dvs_classifier": "DvsClassifierNode",
    "place_recognizer": "PlaceRecognizerNode",
}


def creators(names: list[str]) -> list[Callable[[], PerceptionNode[Any]]]:
    """What creates the nodes of these names; each module is imported only when its node is."""

    def create(name: str) -> PerceptionNode[Any]:
        module = import_module(f"spike_perception.nodes.{name}")
        node: PerceptionNode[Any] = getattr(module, NODES[name])()
        return node

    return [partial(create, name) for name in names]


def main() -> None:
    """Entry point of ``ros2 run spike_perception perception NODE...``."""
    parser = argparse.ArgumentParser(prog="perception", description=__doc__)
    parser.add_argument(
        "nodes", nargs="*", metavar="NODE", help=f"of {', '.join(NODES)}; without: all four"
    )
    names = list(dict.fromkeys(parser.parse_args(remove_ros_args(sys.argv)[1:]).nodes or NODES))
    if unknown := [name for name in names if name not in NODES]:
        parser.error(f"no node {', '.join(unknown)}; there are {', '.join(NODES)}")
    sys.exit(spin(*creators(names)))


if __name__ == "__main__":
    main()
