# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass

import pytest
import rclpy
from rclpy.parameter import Parameter

from spike_perception.config import section, setting, settings
from spike_perception.errors import InputError
from spike_perception.nodes.parameters import ConfigParameters


@dataclass(frozen=True)
class Inner:
    rate: float = setting(2.0, "rate (Hz)", minimum=0.5, maximum=50.0)
    file: str = setting("a.db", "a file", fixed=True)


@dataclass(frozen=True)
class Outer:
    inner: Inner = section(Inner)
    count: int = setting(3, "a count", minimum=1, maximum=9)
    word: str = setting("red", "a colour", choices=("red", "blue"))


@pytest.fixture
def node(domain):
    rclpy.init(args=[], domain_id=domain)
    overrides = [Parameter("inner.rate", value=5)]
    node = rclpy.create_node("parameters", parameter_overrides=overrides)
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def test_paths_defaults_ranges_and_descriptions_are_those_of_the_dataclass(node):
    parameters = ConfigParameters(node, Outer, lambda: False, lambda config: None)
    config = parameters.read()
    # An integer in YAML for a float parameter is taken, not fatal.
    assert config == Outer(inner=Inner(rate=5.0))
    assert isinstance(config.inner.rate, float)
    for leaf in settings(Outer):
        assert leaf.description in node.describe_parameter(leaf.path).description
    described = node.describe_parameter("count")
    assert (described.integer_range[0].from_value, described.integer_range[0].to_value) == (1, 9)
    assert "one of red, blue" in node.describe_parameter("word").description


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("inner.rate", 51.0, "Max: 50"),
        ("inner.rate", float("nan"), "value: nan"),
        ("word", "green", "one of red, blue"),
        ("count", 10, ""),
    ],
)
def test_a_bad_change_is_refused_with_the_reason_and_nothing_changes(node, name, value, told):
    changes = []
    parameters = ConfigParameters(node, Outer, lambda: True, changes.append)
    before = parameters.read()
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert told in result.reason
    assert parameters.read() == before
    assert changes == []


def test_a_good_change_reaches_the_node_and_a_fixed_one_only_before_configure(node):
    changes, configured = [], [False]
    ConfigParameters(node, Outer, lambda: configured[0], changes.append)
    assert node.set_parameters([Parameter("inner.file", value="b.db")])[0].successful
    assert changes == []
    configured[0] = True
    refused = node.set_parameters([Parameter("inner.file", value="c.db")])[0]
    assert not refused.successful
    assert "clean up first" in refused.reason
    assert node.set_parameters([Parameter("count", value=7)])[0].successful
    assert changes[-1] == Outer(inner=Inner(rate=5.0, file="b.db"), count=7)


def test_an_override_out_of_range_is_told_with_its_name(domain):
    rclpy.init(args=[], domain_id=domain)
    node = rclpy.create_node("bad", parameter_overrides=[Parameter("word", value="green")])
    try:
        with pytest.raises(InputError, match=r"word is 'green'.*red, blue"):
            ConfigParameters(node, Outer, lambda: False, lambda config: None).read()
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
