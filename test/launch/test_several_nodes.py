# SPDX-License-Identifier: Apache-2.0
"""The launch files of several nodes, and Gazebo's files: whatever they name exists."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import yaml

from spike_perception.config import flatten, from_flat, settings
from spike_perception.nodes.command_parameters import NODES
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.sdf import load_world

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILES = sorted((REPOSITORY / "launch").glob("*.launch.py"))
SHARED = REPOSITORY / "spike_perception" / "nodes" / "launching.py"
WORLD = REPOSITORY / "spike_perception" / "simulation" / "worlds" / "loop.sdf"
# What gazebo.launch.py alone needs, and whoever runs it installs; a robot does without.
GAZEBO = {"ros_gz_bridge", "ros_gz_image"}
# Of every node, beside its configuration.
OF_ROS = {"autostart", "use_sim_time"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_arguments_handed_on_to_perception_exist():
    handed = literal_keys(REPOSITORY / "launch" / "gazebo.launch.py", "perception")
    declared = (REPOSITORY / "launch" / "perception.launch.py").read_text()
    shared = SHARED.read_text()
    for name in handed:
        assert f'"{name}": (' in declared + shared, name


def literal_keys(path: Path, function: str) -> set[str]:
    """Strings in a function that look like arguments of a launch file."""
    (body,) = (n for n in tree(path).body if getattr(n, "name", None) == function)
    found = {n.value for n in ast.walk(body) if isinstance(n, ast.Constant)}
    return {each for each in found if isinstance(each, str) and re.fullmatch(r"[a-z_]+", each)} - {
        "true",
        "launch",
        "odometry",
    }


def constant(path: Path, name: str):
    """The value of a literal assigned at the top of a launch file, read without running it."""
    names = {"OPTICAL": None}
    for statement in tree(path).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            target = statement.targets[0].id
            if target == name:
                return literal(statement.value, names)
            if target in names:
                names[target] = ast.literal_eval(statement.value)
    raise AssertionError(f"{path.name} has no {name}")


def literal(value: ast.expr, names: dict):
    """A literal in which some names stand for what was assigned before."""

    class Known(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.Constant(names[node.id]) if node.id in names else node

    return ast.literal_eval(Known().visit(value))


def calls(path: Path, *functions: str):
    """Keywords of the calls of some functions."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in functions:
            yield {each.arg: each.value for each in node.keywords}


def parameters_of(node: str) -> set[str]:
    module, config = NODES[node]
    return {each.path for each in settings(getattr(importlib.import_module(module), config))}


def installed() -> set[str]:
    return set(re.findall(r'"([\w-]+) = spike_perception', (REPOSITORY / "setup.py").read_text()))


@pytest.mark.parametrize("path", [*LAUNCH_FILES, SHARED], ids=lambda p: p.name)
def test_every_executable_is_installed_or_of_a_package_that_is_depended_upon(path):
    needed = set(re.findall(r"<exec_depend>(\w+)<", (REPOSITORY / "package.xml").read_text()))
    for call in calls(path, "Node", "LifecycleNode"):
        package = ast.literal_eval(call["package"])
        if package != "spike_perception":
            assert package in needed | (GAZEBO if path.name.startswith("gazebo") else set())
        elif isinstance(call["executable"], ast.Constant):
            assert call["executable"].value in installed()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_parameters_given_in_place_exist(path):
    for call in calls(path, "LifecycleNode"):
        node = ast.literal_eval(call["executable"])
        for each in ast.literal_eval(call["parameters"]):
            assert set(each) <= parameters_of(node) | OF_ROS


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_files_exist(path):
    text = path.read_text()
    for folder, name in re.findall(r'(?:SHARE|share_folder\(\)) / "(\w+)" / "([^"]+)"', text):
        assert (REPOSITORY / folder / name).is_file()
    for name in re.findall(r'WORLDS / "([^"]+)"', text):
        assert (WORLD.parent / name).is_file()
    for name in re.findall(r'surroundings\([^)]*"(\w+)"\)', text):
        assert (REPOSITORY / "config" / f"{name}.rviz").is_file()


def test_perception_knows_every_node_its_parameters_and_its_file():
    path = REPOSITORY / "launch" / "perception.launch.py"
    parameters = constant(path, "PARAMETERS")
    nodes = constant(path, "NODES")
    assert nodes.keys() == parameters.keys()
    for switch, (node, config) in nodes.items():
        assert node in installed()
        assert {name for name, _ in parameters[switch].values()} <= parameters_of(node)
        document = yaml.safe_load((REPOSITORY / "config" / f"{config}.yaml").read_text())
        module, kind = NODES[node]
        given = flatten(document["/**"][node]["ros__parameters"])
        from_flat(getattr(importlib.import_module(module), kind), given)


def test_one_argument_means_the_same_for_all_nodes_that_take_it():
    told: dict[str, tuple[str, str]] = {}
    parameters = constant(REPOSITORY / "launch" / "perception.launch.py", "PARAMETERS")
    for each in parameters.values():
        for argument, meaning in each.items():
            assert told.setdefault(argument, meaning) == meaning


# Gazebo.


def parse(path: Path) -> ET.Element:
    return ET.fromstring(path.read_text())  # noqa: S314  (the repository's own files)


def sdf_sensors() -> dict[str, ET.Element]:
    robot = parse(WORLD).find("world/model[@name='robot']")
    return {each.get("name"): each for each in robot.iter("sensor")}


def test_the_robot_has_the_sensors_that_are_bridged():
    gazebo = REPOSITORY / "launch" / "gazebo.launch.py"
    topics = {name: each.findtext("topic") for name, each in sdf_sensors().items()}
    cameras = [name for name, each in sdf_sensors().items() if each.get("type") == "camera"]
    assert {topics[name] for name in cameras} == set(constant(gazebo, "IMAGE_TOPICS"))
    bridged = yaml.safe_load((REPOSITORY / "config" / "gazebo_bridge.yaml").read_text())
    clouds = [e for e in bridged if e["gz_type_name"] == "gz.msgs.PointCloudPacked"]
    assert [e["gz_topic_name"] for e in clouds] == [f"{topics['lidar']}/points"]


def test_the_bridge_carries_what_the_nodes_listen_to_by_default():
    bridged = yaml.safe_load((REPOSITORY / "config" / "gazebo_bridge.yaml").read_text())
    images = constant(REPOSITORY / "launch" / "gazebo.launch.py", "IMAGE_TOPICS")
    topics = {each["ros_topic_name"] for each in bridged} | set(images)
    assert {"/clock", "/odom", "/tf", "/cmd_vel"} <= topics
    for node, section in (
        ("camera_classifier", "image"),
        ("place_recognizer", "image"),
        ("lidar_classifier", "points"),
        ("event_simulator", "image"),
    ):
        module, config = NODES[node]
        chosen = getattr(getattr(importlib.import_module(module), config)(), section)
        assert chosen.topic in topics
    for each in bridged:
        assert set(each) == {
            "ros_topic_name", "gz_topic_name", "ros_type_name", "gz_type_name", "direction",
        }  # fmt: skip
        _, kind, _ = each["ros_type_name"].split("/")
        assert kind == "msg" and each["gz_type_name"].startswith("gz.msgs.")
        assert each["direction"] in ("GZ_TO_ROS", "ROS_TO_GZ")


def test_the_frames_are_where_the_world_has_the_sensors():
    told = constant(REPOSITORY / "launch" / "gazebo.launch.py", "FRAMES")
    frames = {frame: (parent, Pose.from_euler(*map(float, place))) for parent, frame, place in told}
    robot = load_world(WORLD).model("robot")
    (link,) = robot.links
    assert link.name == "base_link"
    for sensor in (*link.cameras, *link.lidars):
        parent, pose = frames[sensor.name]
        assert parent == "base_link"
        np.testing.assert_allclose(pose.translation, sensor.pose.translation)
        np.testing.assert_allclose(pose.rotation, sensor.pose.rotation)
    for name in ("camera", "event_camera"):
        parent, pose = frames[f"{name}_optical_frame"]
        assert parent == name
        # REP-103: z forward, x right, y down.
        turned = np.array(pose.rotation)
        np.testing.assert_allclose(turned * np.sign(turned[0]), (0.5, -0.5, 0.5, -0.5), atol=1e-6)


def test_the_server_loads_what_the_sensors_and_the_robot_need():
    root = parse(REPOSITORY / "config" / "gazebo_server.config")
    plugins = {each.get("name").rpartition(":")[2]: each for each in root.iter("plugin")}
    assert {"Physics", "SceneBroadcaster", "Sensors", "UserCommands"} <= plugins.keys()
    for each in plugins.values():
        assert re.fullmatch(r"gz-sim-[a-z-]+-system", each.get("filename"))
    for name in ("VelocityControl", "OdometryPublisher"):
        assert plugins[name].get("entity_name") == "robot"
    # A plugin of the world itself would have Harmonic ignore this file.
    assert parse(WORLD).find("world/plugin") is None


@pytest.mark.slow
def test_gazebo_runs_the_world_and_publishes_every_sensor():
    """The real Gazebo; nothing here stands in for it where it is absent."""
    if shutil.which("gz") is None:
        pytest.skip("gz is absent: Gazebo comes with ros-jazzy-ros-gz or ros-kilted-ros-gz")
    environment = {"GZ_SIM_SERVER_CONFIG_PATH": str(REPOSITORY / "config/gazebo_server.config")}
    server = subprocess.Popen(
        ["gz", "sim", "-s", "-r", "--headless-rendering", str(WORLD)],
        env={**os.environ, **environment},
    )
    try:
        for topic in ("/clock", "/odom", "/camera/image_raw", "/lidar/points"):
            heard = subprocess.run(
                ["gz", "topic", "-e", "-n", "1", "-t", topic],
                capture_output=True, timeout=120, check=True,
            )  # fmt: skip
            assert heard.stdout, topic
    finally:
        server.terminate()
        server.wait(30)
