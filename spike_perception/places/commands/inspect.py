# SPDX-License-Identifier: Apache-2.0
"""Check a place map and say what it holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from spike_perception.cli import add_json, emit
from spike_perception.places.map import PlaceMap


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("map", type=Path, help="the place map")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open read only, which runs all checks, and print the manifest and the counts."""
    with PlaceMap.open(arguments.map, read_only=True) as place_map:
        result = {**place_map.info(), "config": place_map.config}
    for unknown in ("max_places", "when_full", "read_only"):  # settings of an opening, not a map
        del result[unknown]
    width = max(map(len, result))
    lines = [f"{key:<{width}}  {value}" for key, value in result.items() if key != "config"]
    lines += [f"{'config':<{width}}  {key}: {v}" for key, v in place_map.config.items()]
    emit(arguments, result, "\n".join(lines))
    return 0
