# SPDX-License-Identifier: Apache-2.0
"""A robot in Gazebo (Harmonic with Jazzy, Ionic with Kilted): ros2 launch ... gazebo.launch.py.

Drive it with geometry_msgs/Twist on /cmd_vel. The world is the one that `spike-perception simulate`
runs in MuJoCo.
"""

import os
from pathlib import Path

from launch.actions import (
    ExecuteProcess,
    IncludeLaunchDescription,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import LifecycleNode, Node

import spike_perception
from launch import LaunchDescription
from spike_perception.nodes.launching import described, truth
from spike_perception.share import share_folder

SHARE = share_folder()
WORLDS = Path(spike_perception.__file__).parent / "simulation" / "worlds"

# Cameras of the robot: the images are bridged in a process of their own.
IMAGE_TOPICS = ["/camera/image_raw", "/event_camera/image_raw"]

# Frames of the sensors: parent, frame, and where it is in its parent: x, y, z (m), roll, pitch, yaw
# (rad). The sensors stand on base_link as in the worlds; optical frames look along z (REP-103).
OPTICAL = ("0", "0", "0", "-1.570796", "0", "-1.570796")
FRAMES = [
    ("base_link", "camera", ("0.2", "0", "0.8", "0", "0", "0")),
    ("camera", "camera_optical_frame", OPTICAL),
    ("base_link", "event_camera", ("0.2", "0", "0.74", "0", "0", "0")),
    ("event_camera", "event_camera_optical_frame", OPTICAL),
    ("base_link", "lidar", ("-0.05", "0", "0.95", "0", "0", "0")),
]

ARGUMENTS = {
    "world": (str(WORLDS / "loop.sdf"), "SDF file with a model named robot"),
    "gui": ("true", "open Gazebo's window; false: the server alone, without a display"),
    "camera": ("true", "name what the camera sees"),
    "lidar": ("true", "name what the LiDAR sees"),
    "dvs": ("true", "make events and name what they show"),
    "place": ("true", "recognise places"),
    "composed": ("false", "all perception nodes in one process"),
    "visualize": ("false", "open RViz"),
}


def gazebo(world, gui):
    """The action that runs Gazebo; the launch ends with it."""
    server = [] if gui else ["-s", "--headless-rendering"]
    return ExecuteProcess(
        cmd=["gz", "sim", "-r", *server, world], output="screen", on_exit=Shutdown()
    )


def bridges():
    """Gazebo's topics as ROS topics."""
    return [
        Node(
            package="ros_gz_bridge",
            executable="parameter_bridge",
            parameters=[{"config_file": str(SHARE / "config" / "gazebo_bridge.yaml")}],
            output="screen",
        ),
        Node(
            package="ros_gz_image",
            executable="image_bridge",
            arguments=IMAGE_TOPICS,
            output="screen",
        ),
    ]


def frames():
    """Where the sensors are on the robot."""
    names = ("--x", "--y", "--z", "--roll", "--pitch", "--yaw")
    return [
        Node(
            package="tf2_ros",
            executable="static_transform_publisher",
            arguments=[
                *(word for each in zip(names, pose, strict=True) for word in each),
                *("--frame-id", parent, "--child-frame-id", frame),
            ],
        )
        for parent, frame, pose in FRAMES
    ]


def event_simulator():
    """Makes events of the fast camera's images."""
    return LifecycleNode(
        package="spike_perception",
        executable="event_simulator",
        name="event_simulator",
        namespace="",
        parameters=[{"autostart": True, "use_sim_time": True}],
        output="screen",
    )


def perception(values):
    """The perception nodes, on simulated time; none if none is asked for."""
    switches = {name: values[name] for name in ("camera", "lidar", "dvs", "place")}
    if not any(truth(value, name) for name, value in switches.items()):
        return []
    given = {**switches, **{name: values[name] for name in ("composed", "visualize")}}
    given |= {"use_sim_time": "true", "pose_source": "odometry"}
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(SHARE / "launch" / "perception.launch.py")),
            launch_arguments=given.items(),
        )
    ]


def start(values):
    """Actions for the arguments as given."""
    resources = [str(WORLDS), os.environ.get("GZ_SIM_RESOURCE_PATH", "")]
    return [
        SetEnvironmentVariable(
            "GZ_SIM_SERVER_CONFIG_PATH", str(SHARE / "config" / "gazebo_server.config")
        ),
        SetEnvironmentVariable("GZ_SIM_RESOURCE_PATH", ":".join(filter(None, resources))),
        gazebo(values["world"], truth(values["gui"], "gui")),
        *bridges(),
        *frames(),
        *([event_simulator()] if truth(values["dvs"], "dvs") else []),
        *perception(values),
    ]


def generate_launch_description() -> LaunchDescription:
    """Entry point of ros2 launch."""
    return described(ARGUMENTS, start)
