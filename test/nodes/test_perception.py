# SPDX-License-Identifier: Apache-2.0
"""Several nodes in one process, as ros2 run starts them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest
from diagnostic_msgs.msg import DiagnosticArray

from spike_perception.nodes import perception

NODES = ("camera_classifier", "place_recognizer")


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "spike_perception.nodes.perception", *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_nodes_of_one_process_take_their_own_parameters(world, camera_files, tmp_path):
    given = {
        "camera_classifier": {
            "model.bundle": str(camera_files.bundle),
            "vocabulary.pack": str(camera_files.pack),
        },
        "place_recognizer": {
            "map.path": str(tmp_path / "places.db"),
            "descriptor.name": "patch_norm",
        },
    }
    file = tmp_path / "parameters.yaml"  # as perception.launch.py writes them
    parameters = {
        node: {"ros__parameters": {**values, "autostart": True}} for node, values in given.items()
    }
    file.write_text(json.dumps({"/**": parameters}))
    seen: dict[str, str] = {}

    def note(message):
        for status in message.status:
            seen[status.name] = status.message

    world.client.create_subscription(DiagnosticArray, "/diagnostics", note, 50)
    process = start(
        *NODES,
        "--ros-args",
        "--params-file",
        str(file),
        "-r",
        "__ns:=/robot",
        "--log-level",
        "error",
    )
    try:
        inputs = [f"{node}: input" for node in NODES]
        assert world.spin_until(
            lambda: all(re.match("active|no input", seen.get(each, "")) for each in inputs), 60
        ), (seen, process.poll())
        assert seen["camera_classifier: vocabulary"].startswith("6 words")
        assert seen["place_recognizer: map"].startswith("0 places")
        names = dict(world.client.get_node_names_and_namespaces())
        assert {names[node] for node in NODES} == {"/robot"}
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, process.stderr.read()


def test_an_unknown_node_is_refused_with_those_there_are():
    process = start("camera")
    assert process.wait(60) == 2
    assert "camera_classifier" in process.stderr.read()


@pytest.mark.parametrize("name", perception.NODES)
def test_every_node_can_be_created_by_its_name(world, name):
    (create,) = perception.creators([name])
    node = world.add(create())
    assert node.get_name() == name
