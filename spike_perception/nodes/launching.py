# SPDX-License-Identifier: Apache-2.0
"""What the launch files share: a node by its arguments, a bag, RViz. Needs ``launch_ros``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode

from spike_perception.share import fast_dds_environment, share_folder

# Launch argument -> parameter of the node, and what it is.
Parameters = Mapping[str, tuple[str, str]]

# Arguments of every launch file: default and description.
SHARED = {
    "bag": ("", "bag to replay, with /clock"),
    "rate": ("1.0", "rate of the replay"),
    "use_sim_time": ("", "true or false; with a bag: true"),
    "autostart": ("true", "configure and activate at once"),
    "visualize": ("false", "open RViz"),
    "namespace": ("", "namespace of the node"),
}


def truth(word: str, argument: str) -> bool:
    """True or false as people write them on a command line.

    Raises:
        ValueError: for any other word.
    """
    if word.lower() in ("true", "1", "yes", "on"):
        return True
    if word.lower() in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"{argument}:={word}; allowed is true or false")


def arguments(parameters: Parameters, config: str) -> dict[str, tuple[str, str]]:
    """Default and description of every argument of a launch file.

    Args:
        parameters: the node's own. Without one of them the parameter file decides.
        config: name of the parameter file in ``config``.
    """
    return {
        **{name: ("", description) for name, (_, description) in parameters.items()},
        "config": (str(share_folder() / "config" / f"{config}.yaml"), "parameter file"),
        **SHARED,
    }


def described(given: Mapping[str, tuple[str, str]], start: Any) -> LaunchDescription:
    """A launch description with these arguments.

    Args:
        given: default and description by argument.
        start: makes the actions of the arguments' values, ``dict[str, str] -> list``.
    """

    def perform(context: LaunchContext) -> list[Any]:
        values = {name: LaunchConfiguration(name).perform(context) for name in given}
        return list(start(values))

    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in given.items()
    ]
    environment = [SetEnvironmentVariable(*each) for each in fast_dds_environment().items()]
    return LaunchDescription([*declared, *environment, OpaqueFunction(function=perform)])


def node_parameters(values: Mapping[str, str], parameters: Parameters) -> dict[str, str | bool]:
    """Parameters of a node by the values of the arguments."""
    given: dict[str, str | bool] = {
        parameter: values[name] for name, (parameter, _) in parameters.items() if values[name]
    }
    given["autostart"] = truth(values["autostart"], "autostart")
    given["use_sim_time"] = truth(
        values["use_sim_time"] or str(bool(values["bag"])), "use_sim_time"
    )
    return given


def lifecycle_node(executable: str, values: Mapping[str, str], parameters: Parameters) -> Any:
    """The action that starts one node in a process of its own."""
    return LifecycleNode(
        package="spike_perception",
        executable=executable,
        name=executable,
        namespace=values["namespace"],
        parameters=[values["config"], node_parameters(values, parameters)],
        output="screen",
    )


def surroundings(values: Mapping[str, str], rviz: str) -> list[Any]:
    """What is started beside the nodes: the replay of a bag, and RViz, if asked for.

    Args:
        values: of the arguments.
        rviz: name of the RViz configuration in ``config``.
    """
    actions = []
    if values["bag"]:
        replay = [sys.executable, "-m", "spike_perception.cli", "replay", values["bag"]]
        replay += ["--rate", values["rate"], "--wait", "20"]
        actions.append(ExecuteProcess(cmd=replay, output="screen"))
    if truth(values["visualize"], "visualize"):
        shown = str(share_folder() / "config" / f"{rviz}.rviz")
        actions.append(ExecuteProcess(cmd=["rviz2", "-d", shown], output="screen"))
    return actions


def one_node(executable: str, files: str, parameters: Parameters) -> LaunchDescription:
    """A launch description of one node.

    Args:
        executable: the node, which is named like it.
        files: name of its parameter file and RViz configuration in ``config``.
        parameters: its own arguments.
    """

    def start(values: Mapping[str, str]) -> list[Any]:
        return [lifecycle_node(executable, values, parameters), *surroundings(values, files)]

    return described(arguments(parameters, files), start)
