# SPDX-License-Identifier: Apache-2.0
"""Students by name: one file and one line each.

A student's module holds its configuration class, its network and its presets. E-3DSNN (sparse
voxels) is not among them: it needs a sparse 3D convolution.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any, cast

import torch

from spike_perception.config import flatten, from_flat, to_flat
from spike_perception.errors import InputError
from spike_perception.students.student import Student

_FAMILIES = {
    "spikformer": "spikformer:Spikformer",
    "published-spikformer": "published_spikformer:PublishedSpikformer",
    "pointformer": "pointformer:SpikeDrivenPointFormer",
    "spike-pointnet": "pointnet:SpikePointNet",
}

#: A configuration from outside that asks for more parameters is refused before allocation.
MAX_PARAMETERS = 200_000_000


def _network(family: str) -> type[Student]:
    module, name = _FAMILIES[family].split(":")
    found = getattr(importlib.import_module(f"spike_perception.students.{module}"), name)
    return cast(type[Student], found)


def student_names() -> tuple[str, ...]:
    """Every name that :func:`create_student` takes, such as ``spikformer-m``."""
    return tuple(
        f"{family}-{preset}" for family in _FAMILIES for preset in _network(family).presets
    )


def create_student(
    name: str, overrides: Mapping[str, object] | None = None, **settings: object
) -> Student:
    """Make a student with random weights.

    Args:
        name: one of :func:`student_names`.
        overrides: settings of its configuration class that differ from the preset.
        **settings: the same as keywords.

    Raises:
        InputError: ``unknown_student``, ``unknown_setting``, ``invalid_setting`` or
            ``student_too_large``.
    """
    for family in _FAMILIES:
        presets = _network(family).presets
        for preset, values in presets.items():
            if name == f"{family}-{preset}":
                return _build(family, {**values, **(overrides or {}), **settings})
    raise InputError(
        "unknown_student", f"no student {name!r}; there are {', '.join(student_names())}"
    )


def student_config_to_json(student: Student) -> dict[str, Any]:
    """Family and full configuration of a student as plain JSON values."""
    for family in _FAMILIES:
        if type(student) is _network(family):
            return {"student": family, "config": dict(to_flat(student.config))}
    raise TypeError(f"{type(student).__name__} is not registered")


def student_from_json(value: Mapping[str, Any] | str) -> Student:
    """Make a student with random weights from what :func:`student_config_to_json` gave.

    Args:
        value: that mapping, or its JSON text. It may come from outside: every key, type and range
            is checked before anything is allocated.

    Raises:
        InputError: ``invalid_student`` for a wrong structure or a key too many or too few,
            ``unknown_student``, ``unknown_setting``, ``invalid_setting`` or
            ``student_too_large``.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise InputError("invalid_student", f"the student's JSON is broken: {error}") from error
    if not isinstance(value, Mapping) or set(value) != {"student", "config"}:
        found = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise InputError(
            "invalid_student", f"a student is an object with student and config, not {found}"
        )
    family, config = value["student"], value["config"]
    if not isinstance(family, str) or family not in _FAMILIES:
        raise InputError(
            "unknown_student", f"no kind of student {family!r}; there are {', '.join(_FAMILIES)}"
        )
    if not isinstance(config, Mapping):
        raise InputError("invalid_student", f"config must be an object, not {config!r}")
    return _build(family, flatten(config))


def _build(family: str, values: Mapping[str, object]) -> Student:
    network = _network(family)
    config = from_flat(network.config_type, values)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in network(config).parameters())
    if parameters > MAX_PARAMETERS:
        raise InputError(
            "student_too_large",
            f"this configuration has {parameters:,} parameters; at most {MAX_PARAMETERS:,} are "
            "allowed: lower channels or blocks",
        )
    return network(config)
