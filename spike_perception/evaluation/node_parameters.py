# SPDX-License-Identifier: Apache-2.0
"""Parameters of a node that is started for an evaluation, checked before it starts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spike_perception.config import Value, flatten
from spike_perception.errors import InputError
from spike_perception.evaluation.launchable import Launchable
from spike_perception.share import share_folder

# What rcl takes for "every node".
EVERY_NODE = ("*", "**")


def assignment(text: str) -> tuple[str, object]:
    """``NAME=VALUE`` as a pair; VALUE is read as JSON, and taken as text if it is none.

    Raises:
        InputError: ``invalid_setting`` without an equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError("invalid_setting", f"a setting is NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def read_parameter_file(path: Path, node: str) -> dict[str, object]:
    """What a ROS parameter file (YAML) says to ``node``, by dotted name.

    Raises:
        InputError: ``parameters_unreadable``.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError("parameters_unreadable", f"{path} is no YAML file: {error}") from error
    found: dict[str, object] = {}
    for names, values in _sections(tree if isinstance(tree, Mapping) else {}):
        words = [word for name in names for word in str(name).split("/") if word]
        if words and words[-1] in (node, *EVERY_NODE):
            found |= flatten(values)
    return found


def _sections(
    tree: Mapping[Any, Any], names: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    for key, below in tree.items():
        if isinstance(below, Mapping):
            if key == "ros__parameters":
                yield names, below
            else:
                yield from _sections(below, (*names, key))


def node_settings(node: str) -> dict[str, Any]:
    """Declared parameters of a node by dotted name.

    Raises:
        InputError: ``node_missing`` if there is no such node.
    """
    from spike_perception.nodes.command_parameters import NODES, parameters

    if node not in NODES:
        raise InputError("node_missing", f"there is no node {node}; there are {', '.join(NODES)}")
    return {each.path: each for each in parameters(node)}


def resolve(
    launched: Launchable, given: Sequence[str], defaults: Mapping[str, Value]
) -> dict[str, Value]:
    """Every parameter of a node: its defaults, its parameter file, ``defaults``, then ``given``.

    Args:
        launched: the node.
        given: ``NAME=VALUE``, ``NODE/NAME=VALUE`` (for this node alone) or parameter files;
            what is for another node, or is a parameter of others only, is passed over.
        defaults: what this evaluation sets.

    Raises:
        InputError: ``invalid_setting``, ``unknown_setting`` or ``parameters_unreadable``.
    """
    known = node_settings(launched.node)
    values: dict[str, object] = {path: each.default for path, each in known.items()}
    chosen = read_parameter_file(share_folder() / "config" / launched.config, launched.node)
    chosen |= defaults
    for each in given:
        chosen |= _said(each, launched.node, known)
    for name in ("autostart", "use_sim_time"):
        chosen.pop(name, None)
    if unknown := chosen.keys() - known.keys():
        raise InputError(
            "unknown_setting",
            f"{launched.node} has no parameter {', '.join(sorted(unknown))}; it has "
            f"{', '.join(known)}",
        )
    return {path: known[path].check(value) for path, value in (values | chosen).items()}


def _said(text: str, node: str, known: Mapping[str, Any]) -> dict[str, object]:
    if "=" not in text:
        return read_parameter_file(Path(text), node)
    name, value = assignment(text)
    owner, slash, plain = name.rpartition("/")
    if slash:
        return {plain: value} if owner.strip("/") == node else {}
    return {name: value} if name in known else {}


def require_used(given: Sequence[str], nodes: Sequence[Launchable]) -> None:
    """Check that every ``[NODE/]NAME=VALUE`` is a parameter of some node that runs.

    Raises:
        InputError: ``unknown_setting``.
    """
    known = {each.node: node_settings(each.node) for each in nodes}
    for text in given:
        if "=" not in text:
            continue
        owner, _, name = assignment(text)[0].rpartition("/")
        where = [owner.strip("/")] if owner else list(known)
        if not any(name in known.get(node, {}) for node in where):
            raise InputError(
                "unknown_setting", f"{text}: none of {', '.join(known)} has a parameter {name}"
            )
