# SPDX-License-Identifier: Apache-2.0
"""Frozen configuration dataclasses: one default in one place.

A configuration is a frozen dataclass whose fields are either further configuration dataclasses
(sections) or leaves declared with :func:`setting`. The dotted path of a leaf is at once its ROS
parameter name, its YAML key and its command-line name, and the description and the allowed range
declared here are what the ROS parameter descriptor shows.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from spike_perception.errors import InputError

Value = bool | int | float | str
T = TypeVar("T")


def setting(
    default: Value,
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    fixed: bool = False,
) -> Any:
    """Declare one leaf of a configuration.

    Args:
        default: the default; its type (bool, int, float or str) is the leaf's type.
        description: meaning and unit, shown as the ROS parameter description.
        minimum: smallest allowed number, if any (inclusive).
        maximum: largest allowed number, if any (inclusive).
        choices: allowed words of a str leaf; empty for free text.
        fixed: True if a running node cannot change it (it takes a new configure).
    """
    return field(
        default=default,
        metadata={
            "description": description,
            "minimum": minimum,
            "maximum": maximum,
            "choices": choices,
            "fixed": fixed,
        },
    )


def section(factory: type[T]) -> T:
    """Declare a nested section with that section's own defaults."""
    return field(default_factory=factory)


@dataclass(frozen=True)
class Setting:
    """One leaf as declared: its dotted path, type, default and limits."""

    path: str
    type: type
    default: Value
    description: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    fixed: bool

    def check(self, value: object) -> Value:
        """Return ``value`` in the leaf's type.

        An int is taken where a float is wanted; no other conversion is made.

        Raises:
            InputError: ``invalid_setting`` if type, range or choice is wrong.
        """
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not self.type:
            raise self._refusal(value, f"a {self.type.__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._refusal(value, "a finite number")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if self.minimum is not None and value < self.minimum:
                raise self._refusal(value, f"at least {self.minimum:g}")
            if self.maximum is not None and value > self.maximum:
                raise self._refusal(value, f"at most {self.maximum:g}")
        if self.choices and value not in self.choices:
            raise self._refusal(value, f"one of {', '.join(self.choices)}")
        return typing.cast(Value, value)

    def _refusal(self, value: object, allowed: str) -> InputError:
        return InputError(
            "invalid_setting",
            f"{self.path} is {value!r}; allowed is {allowed} ({self.description})",
        )


def settings(config_type: type[Any], prefix: str = "") -> Iterator[Setting]:
    """Yield every leaf of a configuration class, depth first, in order of declaration."""
    types = typing.get_type_hints(config_type)
    for each in fields(config_type):
        path = f"{prefix}{each.name}"
        if is_dataclass(types[each.name]):
            yield from settings(types[each.name], f"{path}.")
        elif each.default is MISSING or "description" not in each.metadata:
            raise TypeError(f"{config_type.__name__}.{each.name} is not declared with setting()")
        else:
            yield Setting(path, types[each.name], each.default, **each.metadata)


def to_flat(config: Any, prefix: str = "") -> dict[str, Value]:
    """Return the configuration as ``{dotted path: value}``."""
    flat: dict[str, Value] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        path = f"{prefix}{each.name}"
        flat.update(to_flat(value, f"{path}.") if is_dataclass(value) else {path: value})
    return flat


def from_flat(config_type: type[T], values: Mapping[str, object]) -> T:
    """Build a configuration from ``{dotted path: value}``; what is absent keeps its default.

    Raises:
        InputError: ``unknown_setting`` for a path that does not exist, ``invalid_setting`` for a
            value of the wrong type, range or choice.
    """
    known = {each.path: each for each in settings(config_type)}
    for path in values:
        if path not in known:
            raise InputError(
                "unknown_setting", f"{path} is no setting; there are {', '.join(known)}"
            )
    return _build(config_type, {path: known[path].check(v) for path, v in values.items()}, "")


def _build(config_type: type[T], values: Mapping[str, Value], prefix: str) -> T:
    types = typing.get_type_hints(config_type)
    arguments: dict[str, Any] = {}
    for each in fields(typing.cast(Any, config_type)):
        path = f"{prefix}{each.name}"
        if is_dataclass(types[each.name]):
            arguments[each.name] = _build(types[each.name], values, f"{path}.")
        elif path in values:
            arguments[each.name] = values[path]
    return config_type(**arguments)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Turn nested mappings, as read from YAML or JSON, into ``{dotted path: value}``."""
    flat: dict[str, object] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        flat.update(flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value})
    return flat


def replace(config: T, values: Mapping[str, object]) -> T:
    """Return a copy of ``config`` with some dotted paths changed, checked like a new one."""
    return from_flat(type(config), {**to_flat(config), **values})
