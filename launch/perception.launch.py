# SPDX-License-Identifier: Apache-2.0
"""Any of the four nodes: ros2 launch spike_perception perception.launch.py lidar:=false."""

import json
import tempfile

from launch_ros.actions import Node

from launch import LaunchDescription
from spike_perception.nodes.launching import (
    SHARED,
    described,
    lifecycle_node,
    node_parameters,
    surroundings,
    truth,
)
from spike_perception.share import share_folder

# Argument that starts a node or leaves it out -> the node, and its parameter file in config.
NODES = {
    "camera": ("camera_classifier", "camera"),
    "lidar": ("lidar_classifier", "lidar"),
    "dvs": ("dvs_classifier", "dvs"),
    "place": ("place_recognizer", "vpr"),
}

# Of each node: launch argument -> parameter, and what it is. Without the argument the parameter
# file decides.
PARAMETERS = {
    "camera": {
        "image_topic": ("image.topic", "camera topic"),
        "transport": ("image.transport", "raw or compressed"),
        "vocabulary": ("vocabulary.pack", "vocabulary pack of the camera: file or name"),
    },
    "lidar": {
        "points_topic": ("points.topic", "sensor_msgs/PointCloud2"),
        "points_vocabulary": ("vocabulary.pack", "vocabulary pack of the LiDAR: file or name"),
    },
    "dvs": {
        "events_topic": ("events.topic", "event packets"),
        "events_vocabulary": ("vocabulary.pack", "vocabulary pack of the events: file or name"),
    },
    "place": {
        "image_topic": ("image.topic", "camera topic"),
        "transport": ("image.transport", "raw or compressed"),
        "map": ("map.path", "file of the place map"),
        "mode": ("map.mode", "mapping, localisation or both"),
        "pose_source": ("pose.source", "none, odometry or tf"),
    },
}

ARGUMENTS = {
    "camera": ("true", "name what the camera sees"),
    "lidar": ("true", "name what the LiDAR sees"),
    "dvs": ("true", "name what the event camera sees"),
    "place": ("true", "recognise places"),
    "composed": ("false", "all nodes in one process"),
    **{name: ("", what) for each in PARAMETERS.values() for name, (_, what) in each.items()},
    **{
        f"{switch}_config": (
            str(share_folder() / "config" / f"{config}.yaml"),
            f"parameter file of {node}",
        )
        for switch, (node, config) in NODES.items()
    },
    **SHARED,
}


def start(values):
    """Actions for the arguments as given."""
    chosen = [switch for switch in NODES if truth(values[switch], switch)]
    if not chosen:
        raise ValueError(f"nothing to start; set one of {', '.join(NODES)} to true")
    nodes = (
        [one_process(values, chosen)]
        if truth(values["composed"], "composed")
        else [
            lifecycle_node(
                NODES[switch][0],
                {**values, "config": values[f"{switch}_config"]},
                PARAMETERS[switch],
            )
            for switch in chosen
        ]
    )
    return [*nodes, *surroundings(values, "perception")]


def one_process(values, chosen):
    """The action that starts the chosen nodes in one process."""
    # Parameters by node: rcl takes them from a file alone once there is a namespace.
    parameters = {
        NODES[switch][0]: {"ros__parameters": node_parameters(values, PARAMETERS[switch])}
        for switch in chosen
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as file:
        json.dump({"/**": parameters}, file)  # JSON is a part of YAML
    return Node(
        package="spike_perception",
        executable="perception",
        namespace=values["namespace"],
        arguments=[NODES[switch][0] for switch in chosen],
        parameters=[*(values[f"{switch}_config"] for switch in chosen), file.name],
        output="screen",
    )


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    return described(ARGUMENTS, start)
