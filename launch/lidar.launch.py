# SPDX-License-Identifier: Apache-2.0
"""LiDAR objects by name: ros2 launch spike_perception lidar.launch.py points_topic:=/points."""

from launch import LaunchDescription
from spike_perception.nodes.launching import one_node

# Launch argument -> parameter of the node, and what it is. Without the argument the parameter file
# decides.
PARAMETERS = {
    "points_topic": ("points.topic", "sensor_msgs/PointCloud2"),
    "fixed_frame": ("boxes.fixed_frame", "tf frame of the boxes; without: the sensor's"),
    "bundle": ("model.bundle", "model bundle: file or name"),
    "vocabulary": ("vocabulary.pack", "vocabulary pack: file or name"),
    "names": ("vocabulary.names", "words of the word bank, separated by commas"),
    "word_bank": ("vocabulary.bank", "word bank: file or name"),
}


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    return one_node(executable="lidar_classifier", files="lidar", parameters=PARAMETERS)
