# SPDX-License-Identifier: Apache-2.0
"""Show the parameters of a node as declared, without starting it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from importlib import import_module

from spike_perception.cli import add_json, emit
from spike_perception.config import Setting, settings

# Node -> module and configuration class.
NODES = {
    "event_simulator": ("spike_perception.nodes.event_simulator", "EventSimulatorConfig"),
    "place_recognizer": ("spike_perception.nodes.place_recognizer", "PlaceRecognizerConfig"),
    "camera_classifier": ("spike_perception.nodes.camera_classifier", "CameraClassifierConfig"),
    "dvs_classifier": ("spike_perception.nodes.dvs_classifier", "DvsClassifierConfig"),
    "lidar_classifier": ("spike_perception.nodes.lidar_classifier", "LidarClassifierConfig"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("node", choices=sorted(NODES), help="which node")
    add_json(parser)


def parameters(node: str) -> list[Setting]:
    """Every parameter of a node, in order of declaration."""
    module, config = NODES[node]
    return list(settings(getattr(import_module(module), config)))


def table(node: str) -> str:
    """The parameters as a Markdown table."""
    lines = ["| parameter | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for each in parameters(node):
        default = f'"{each.default}"' if each.type is str else str(each.default).lower()
        note = " *(taken at configure)*" if each.fixed else ""
        lines.append(f"| `{each.path}` | {default} | {_allowed(each)} | {each.description}{note} |")
    return "\n".join(lines)


def _allowed(each: Setting) -> str:
    if each.choices:
        return ", ".join(each.choices)
    low = "" if each.minimum is None else f"{each.minimum:,g}"
    high = "" if each.maximum is None else f"{each.maximum:,g}"
    if low or high:
        return f"{low} to {high}"
    return "true, false" if each.type is bool else "any"


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    result = {
        each.path: {**asdict(each), "type": each.type.__name__}
        for each in parameters(arguments.node)
    }
    emit(arguments, result, table(arguments.node))
    return 0
