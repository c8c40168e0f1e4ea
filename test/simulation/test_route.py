# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.simulation.command import WORLDS
from spike_perception.simulation.route import Lap, Route, load_route

SQUARE = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0))


@pytest.mark.parametrize("corners", [SQUARE, SQUARE[::-1]])
def test_the_loop_closes_and_has_its_length(corners):
    line = Route(corners, 2.0, ()).centreline()
    assert line[-1, 0] == pytest.approx(4 * 6 + 2 * math.pi * 2)
    assert line[0, 1:3] == pytest.approx(line[-1, 1:3])
    assert abs(line[-1, 3] - line[0, 3]) == pytest.approx(2 * math.pi)
    steps = np.diff(line[:, 1:3], axis=0)
    assert np.linalg.norm(steps, axis=1).max() <= 0.051
    # Heading is the direction of motion.
    headings = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    offset = round((line[0, 3] - headings[0]) / (2 * math.pi)) * 2 * math.pi
    assert np.abs(headings + offset - line[:-1, 3]).max() < 0.03


def test_the_shipped_route():
    route = load_route(WORLDS / "routes" / "two_laps.json")
    assert 60 < route.centreline()[-1, 0] < 80
    day, evening = route.laps
    assert day.daylight != evening.daylight
    assert evening.lateral_offset - day.lateral_offset == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"corners": [[0, 0], [1, 1]]}, "2 corners"),
        ({"corners": [[0, 0], [1, 1], [2]]}, r"\[2\]"),
        ({"corners": [[0, 0], [1, 1], [2, "x"]]}, "'x'"),
        ({"corners": [[0, 0], [9, 0], [9, float("nan")]]}, "nan"),
        ({"corners": [[0, 0], [0, 0], [9, 9]]}, "apart"),
        ({"corners": 3}, "no list"),
        ({"corner_radius": None}, "corner_radius"),
        ({"laps": []}, "0 laps"),
        ({"laps": [{}]}, "'daylight'"),
        ({"laps": [{"daylight": "dusk", "lateral_offset": 0, "speed": 1}]}, "dusk"),
        ({"laps": [{"daylight": "noon", "lateral_offset": 0, "speed": 0}]}, "speed is 0"),
    ],
)
def test_bad_routes_are_refused(tmp_path, change, named):
    lap = {"daylight": "noon", "lateral_offset": 0, "speed": 1}
    content = {"corners": SQUARE, "corner_radius": 2, "laps": [lap]} | change
    path = tmp_path / "route.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=named):
        load_route(path)


def test_arcs_must_fit():
    with pytest.raises(InputError, match="corner_radius is 6"):
        Route(SQUARE, 6.0, (Lap("noon", 0, 1),)).centreline()


def test_unreadable_routes(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        load_route(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_route(tmp_path / "bad.json")
