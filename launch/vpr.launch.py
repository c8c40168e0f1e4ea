# SPDX-License-Identifier: Apache-2.0
"""Visual place recognition: ros2 launch spike_perception vpr.launch.py map:=office.db."""

from launch import LaunchDescription
from spike_perception.nodes.launching import one_node

# Launch argument -> parameter of the node, and what it is. Without the argument the parameter file
# decides.
PARAMETERS = {
    "image_topic": ("image.topic", "camera topic"),
    "transport": ("image.transport", "raw or compressed"),
    "map": ("map.path", "file of the place map"),
    "mode": ("map.mode", "mapping, localisation or both"),
    "descriptor": ("descriptor.name", "name of the descriptor"),
    "pose_source": ("pose.source", "none, odometry or tf"),
    "odometry_topic": ("pose.topic", "nav_msgs/Odometry"),
}


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    return one_node(executable="place_recognizer", files="vpr", parameters=PARAMETERS)
