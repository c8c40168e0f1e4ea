# SPDX-License-Identifier: Apache-2.0
"""What events show, by name: ros2 launch spike_perception dvs.launch.py events_topic:=/events."""

from launch import LaunchDescription
from spike_perception.nodes.launching import one_node

# Launch argument -> parameter of the node, and what it is. Without the argument the parameter file
# decides.
PARAMETERS = {
    "events_topic": ("events.topic", "EventPacket, or PointCloud2 of x, y, t and p"),
    "events_type": ("events.type", "auto, or package/msg/Name of the messages"),
    "bundle": ("model.bundle", "model bundle: file or name"),
    "vocabulary": ("vocabulary.pack", "vocabulary pack: file or name"),
    "names": ("vocabulary.names", "words of the word bank, separated by commas"),
    "word_bank": ("vocabulary.bank", "word bank: file or name"),
}


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    return one_node(executable="dvs_classifier", files="dvs", parameters=PARAMETERS)
