# SPDX-License-Identifier: Apache-2.0
"""Launch files and what they name: arguments, parameters, executables and files all exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from spike_perception.config import flatten, from_flat, settings
from spike_perception.nodes.command_parameters import NODES
from spike_perception.nodes.perception_node import PerceptionNode

LAUNCH_FILES = sorted((Path(__file__).resolve().parents[2] / "launch").glob("*.launch.py"))


# Launch file -> the node that it starts; parameter file, RViz and Foxglove are named alike.
STARTS = {
    "vpr": "place_recognizer",
    "camera": "camera_classifier",
    "lidar": "lidar_classifier",
    "dvs": "dvs_classifier",
}


# What starts several nodes; test_several_nodes.py looks into these.
SEVERAL = {"perception", "gazebo"}


def name_of(path: Path) -> str:
    return path.name.removesuffix(".launch.py")


ONE_NODE = [each for each in LAUNCH_FILES if name_of(each) in STARTS]


def config_of(node: str) -> type:
    module, config = NODES[node]
    return getattr(importlib.import_module(module), config)


def test_every_launch_file_is_known_here():
    assert {name_of(each) for each in LAUNCH_FILES} == STARTS.keys() | SEVERAL


def constant(path: Path, name: str) -> object:
    """The value of a literal assigned at the top of a launch file, read without running it."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == name:
            return ast.literal_eval(statement.value)
    raise AssertionError(f"{path.name} has no {name}")


@pytest.mark.parametrize("path", ONE_NODE, ids=lambda p: p.name)
def test_every_argument_sets_a_parameter_that_exists(path):
    known = {each.path for each in settings(config_of(STARTS[name_of(path)]))}
    assert {parameter for parameter, _ in constant(path, "PARAMETERS").values()} <= known


@pytest.mark.parametrize("name", STARTS)
def test_the_parameter_file_fits_the_node(name, repository):
    document = yaml.safe_load((repository / "config" / f"{name}.yaml").read_text())
    given = flatten(document["/**"][STARTS[name]]["ros__parameters"])
    from_flat(config_of(STARTS[name]), given)


@pytest.mark.parametrize("path", ONE_NODE, ids=lambda p: p.name)
def test_executables_and_files_are_shipped(path, repository):
    text = path.read_text()
    executables = set(re.findall(r'executable="([^"]+)"', text))
    installed = set(
        re.findall(r'"([\w-]+) = spike_perception', (repository / "setup.py").read_text())
    )
    assert executables and executables <= installed
    files = re.findall(r'files="([^"]+)"', text)
    assert files
    for name in files:
        for suffix in ("yaml", "rviz", "foxglove.json"):
            assert (repository / "config" / f"{name}.{suffix}").is_file(), name


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda p: p.name)
def test_it_loads_and_describes_itself_under_real_launch(path):
    launch = pytest.importorskip("launch", reason="launch comes with a ROS install")
    pytest.importorskip("launch_ros", reason="launch_ros comes with a ROS install")
    spec = importlib.util.spec_from_file_location(path.stem.replace(".", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    declared = {each.name for each in description.get_launch_arguments()}
    assert set(getattr(module, "ARGUMENTS", None) or module.PARAMETERS) <= declared
    context = launch.LaunchContext()
    for argument in description.get_launch_arguments():
        argument.visit(context)
    actions = [each for entity in description.entities for each in entity.execute(context) or ()]
    assert any(type(each).__name__ == "LifecycleNode" for each in actions)


def sources(module) -> str:
    """Text of a node's module and of what it derives from."""
    files = {
        sys.modules[base.__module__].__file__
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, PerceptionNode)
        for base in each.__mro__
        if issubclass(base, PerceptionNode)
    }
    return "\n".join(Path(each).read_text() for each in sorted(files))


@pytest.mark.parametrize("name", STARTS)
def test_rviz_and_foxglove_show_topics_that_are_published(name, repository):
    node = STARTS[name]
    source = sources(importlib.import_module(NODES[node][0]))
    published = {
        topic.replace("~", f"/{node}") if topic.startswith("~") else f"/{topic}"
        for topic in re.findall(r'publisher\([\w, ]*?"(~?[\w/]+)"', source)
    }
    for suffix in ("rviz", "foxglove.json"):
        text = (repository / "config" / f"{name}.{suffix}").read_text()
        shown = set(re.findall(r"/(?:place|object|camera|lidar|dvs)_\w+(?:/\w+)*", text))
        assert shown
        assert shown <= published, shown - published
