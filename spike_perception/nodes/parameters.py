# SPDX-License-Identifier: Apache-2.0
"""A configuration dataclass as ROS parameters: same names, defaults, ranges and descriptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from spike_perception.config import Setting, from_flat, settings, to_flat
from spike_perception.errors import InputError

T = TypeVar("T")


def _descriptor(leaf: Setting) -> ParameterDescriptor:
    notes = [leaf.description]
    if leaf.choices:
        notes.append(f"one of {', '.join(leaf.choices)}")
    if leaf.fixed:
        notes.append("taken when the node is configured")
    descriptor = ParameterDescriptor(description="; ".join(notes))
    if leaf.type is float:
        # YAML writes 50.0 as 50 often enough; our own check converts it, rclpy would abort.
        descriptor.dynamic_typing = True
    if leaf.minimum is not None and leaf.maximum is not None:
        if leaf.type is int:
            descriptor.integer_range = [
                IntegerRange(from_value=int(leaf.minimum), to_value=int(leaf.maximum), step=1)
            ]
        else:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=leaf.minimum, to_value=leaf.maximum, step=0.0)
            ]
    return descriptor


class ConfigParameters(Generic[T]):
    """Declares a configuration's leaves on a node, reads them, and guards their changes.

    A change is refused as a whole if any value is out of range, or if it touches a leaf that is
    fixed while the node is configured; otherwise ``changed`` is called with the new configuration.
    """

    def __init__(
        self,
        node: Node,
        config_type: type[T],
        configured: Callable[[], bool],
        changed: Callable[[T], None],
    ) -> None:
        self._node = node
        self._config_type = config_type
        self._configured = configured
        self._changed = changed
        self._leaves = {leaf.path: leaf for leaf in settings(config_type)}
        for leaf in self._leaves.values():
            node.declare_parameter(leaf.path, leaf.default, _descriptor(leaf))
        node.add_on_set_parameters_callback(self._check)
        node.add_post_set_parameters_callback(self._apply)

    def read(self) -> T:
        """Build the configuration from the parameters' present values.

        Raises:
            InputError: a value given at start is out of range or of the wrong type.
        """
        values = {path: self._node.get_parameter(path).value for path in self._leaves}
        return from_flat(self._config_type, values)

    def log(self, config: T) -> None:
        """Log every parameter with its effective value, once."""
        lines = "\n".join(f"  {path}: {value!r}" for path, value in to_flat(config).items())
        self._node.get_logger().info(f"configured with\n{lines}")

    def _check(self, parameters: Sequence[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            leaf = self._leaves.get(parameter.name)
            if leaf is None:
                continue
            try:
                leaf.check(parameter.value)
            except InputError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if leaf.fixed and self._configured():
                return SetParametersResult(
                    successful=False,
                    reason=f"{leaf.path} is taken when the node is configured: clean up first",
                )
        return SetParametersResult(successful=True)

    def _apply(self, parameters: Sequence[Parameter[Any]]) -> None:
        if self._configured() and any(each.name in self._leaves for each in parameters):
            self._changed(self.read())
