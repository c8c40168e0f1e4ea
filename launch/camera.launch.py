# SPDX-License-Identifier: Apache-2.0
"""Objects by name: ros2 launch spike_perception camera.launch.py vocabulary:=coco."""

import sys

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from launch import LaunchContext, LaunchDescription
from spike_perception.share import fast_dds_environment, share_folder

SHARE = share_folder()

# Launch argument -> parameter of the node. Without the argument the parameter file decides.
PARAMETERS = {
    "image_topic": "image.topic",
    "transport": "image.transport",
    "bundle": "model.bundle",
    "vocabulary": "vocabulary.pack",
    "names": "vocabulary.names",
    "word_bank": "vocabulary.bank",
}

ARGUMENTS = [
    DeclareLaunchArgument("image_topic", default_value="", description="camera topic"),
    DeclareLaunchArgument("transport", default_value="", description="raw or compressed"),
    DeclareLaunchArgument("bundle", default_value="", description="model bundle: file or name"),
    DeclareLaunchArgument(
        "vocabulary", default_value="", description="vocabulary pack: file or name"
    ),
    DeclareLaunchArgument(
        "names", default_value="", description="words of the word bank, separated by commas"
    ),
    DeclareLaunchArgument("word_bank", default_value="", description="word bank: file or name"),
    DeclareLaunchArgument(
        "config",
        default_value=str(SHARE / "config" / "camera.yaml"),
        description="parameter file",
    ),
    DeclareLaunchArgument("bag", default_value="", description="bag to replay, with /clock"),
    DeclareLaunchArgument("rate", default_value="1.0", description="rate of the replay"),
    DeclareLaunchArgument(
        "use_sim_time", default_value="", description="true or false; with a bag: true"
    ),
    DeclareLaunchArgument(
        "autostart", default_value="true", description="configure and activate at once"
    ),
    DeclareLaunchArgument("visualize", default_value="false", description="open RViz"),
    DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
]


def truth(word: str, argument: str) -> bool:
    """True or false as people write them on a command line."""
    if word.lower() in ("true", "1", "yes", "on"):
        return True
    if word.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"{argument}:={word}; allowed is true or false")


def start(context: LaunchContext) -> list:
    """Actions for the arguments as given."""
    given = {each.name: LaunchConfiguration(each.name).perform(context) for each in ARGUMENTS}
    use_sim_time = truth(given["use_sim_time"] or str(bool(given["bag"])), "use_sim_time")
    parameters = {PARAMETERS[name]: given[name] for name in PARAMETERS if given[name]}
    parameters["autostart"] = truth(given["autostart"], "autostart")
    parameters["use_sim_time"] = use_sim_time
    actions = [
        LifecycleNode(
            package="spike_perception",
            executable="camera_classifier",
            name="camera_classifier",
            namespace=given["namespace"],
            parameters=[given["config"], parameters],
            output="screen",
        )
    ]
    if given["bag"]:
        actions.append(
            ExecuteProcess(
                cmd=[
                    *(sys.executable, "-m", "spike_perception.cli", "replay"),
                    *(given["bag"], "--rate", given["rate"], "--wait", "20"),
                ],
                output="screen",
            )
        )
    if truth(given["visualize"], "visualize"):
        actions.append(
            ExecuteProcess(
                cmd=["rviz2", "-d", str(SHARE / "config" / "camera.rviz")], output="screen"
            )
        )
    return actions


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    environment = [SetEnvironmentVariable(*each) for each in fast_dds_environment().items()]
    return LaunchDescription([*ARGUMENTS, *environment, OpaqueFunction(function=start)])
