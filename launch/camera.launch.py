# SPDX-License-Identifier: Apache-2.0
"""Objects by name: ros2 launch spike_perception camera.launch.py vocabulary:=coco."""

from launch import LaunchDescription
from spike_perception.nodes.launching import one_node

# Launch argument -> parameter of the node, and what it is. Without the argument the parameter file
# decides.
PARAMETERS = {
    "image_topic": ("image.topic", "camera topic"),
    "transport": ("image.transport", "raw or compressed"),
    "bundle": ("model.bundle", "model bundle: file or name"),
    "vocabulary": ("vocabulary.pack", "vocabulary pack: file or name"),
    "names": ("vocabulary.names", "words of the word bank, separated by commas"),
    "word_bank": ("vocabulary.bank", "word bank: file or name"),
}


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    return one_node(executable="camera_classifier", files="camera", parameters=PARAMETERS)
