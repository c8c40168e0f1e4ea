# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass

import pytest

from spike_perception.config import flatten, from_flat, replace, section, setting, settings, to_flat
from spike_perception.errors import InputError


@dataclass(frozen=True)
class Window:
    length: int = setting(10, "frames", minimum=1, maximum=100)
    weight: float = setting(0.5, "weight", minimum=0.0)


@dataclass(frozen=True)
class Config:
    window: Window = section(Window)
    name: str = setting("a", "a name", choices=("a", "b"))
    on: bool = setting(True, "a switch")


def test_flat_and_back():
    config = Config(window=Window(length=3), name="b")
    flat = {"window.length": 3, "window.weight": 0.5, "name": "b", "on": True}
    assert to_flat(config) == flat
    assert from_flat(Config, flat) == config
    assert from_flat(Config, flatten({"window": {"length": 3}, "name": "b"})) == config
    assert [each.path for each in settings(Config)] == list(flat)


def test_an_int_is_taken_for_a_float_but_nothing_else_is_converted():
    assert from_flat(Config, {"window.weight": 1}).window.weight == 1.0
    for path, value in [("window.length", 3.0), ("window.length", True), ("on", 1), ("name", 5)]:
        with pytest.raises(InputError) as error:
            from_flat(Config, {path: value})
        assert error.value.reason == "invalid_setting"
        assert path in str(error.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("window.length", 0),
        ("window.length", 101),
        ("window.weight", -0.1),
        ("window.weight", float("inf")),
        ("name", "c"),
    ],
)
def test_values_out_of_range_are_refused(path, value):
    with pytest.raises(InputError, match=path):
        from_flat(Config, {path: value})


def test_unknown_paths_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"window\.lenght is no setting.*window\.length"):
        from_flat(Config, {"window.lenght": 3})


def test_replace_checks_like_a_new_one():
    assert replace(Config(), {"window.length": 5}).window.length == 5
    with pytest.raises(InputError):
        replace(Config(), {"window.length": 500})
