# SPDX-License-Identifier: Apache-2.0
"""Drive a simulated robot through a world and write what it senses as a bag."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from spike_perception.cli import add_json, emit
from spike_perception.config import from_flat, settings, to_flat
from spike_perception.errors import InputError
from spike_perception.simulation.drive import DriveConfig, drive
from spike_perception.simulation.route import load_route
from spike_perception.simulation.sdf import load_world

WORLDS = Path(__file__).parent / "worlds"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("world", help="name of a shipped world (loop) or an SDF file")
    parser.add_argument(
        "--drive", required=True, help="name of a shipped route (two_laps) or a JSON file"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the new bag")
    for each in settings(DriveConfig):
        parser.add_argument(
            f"--{each.path}",
            type=each.type,
            default=each.default,
            choices=each.choices or None,
            metavar=None if each.choices else each.type.__name__.upper(),
            help=each.description,
        )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Drive, write the bag, print what is in it."""
    given = vars(arguments)
    config = from_flat(DriveConfig, {each.path: given[each.path] for each in settings(DriveConfig)})
    world_path = shipped(arguments.world, WORLDS, ".sdf")
    route_path = shipped(arguments.drive, WORLDS / "routes", ".json")
    world, route = load_world(world_path), load_route(route_path)
    started = time.monotonic()
    with tqdm(desc="simulating", unit="step", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        driven = drive(world, route, arguments.output, config, progress)
    seconds = time.monotonic() - started
    result = {
        "bag": str(driven.bag),
        "world": world_path.name,
        "route": route_path.name,
        "laps": [asdict(lap) for lap in driven.laps],
        "messages": driven.messages,
        "seconds": seconds,
        "config": to_flat(config),
    }
    lines = [f"{driven.bag}: {len(driven.laps)} laps in {seconds:.1f} s"]
    lines += [f"  {topic:<24} {count:>6,}" for topic, count in sorted(driven.messages.items())]
    emit(arguments, result, "\n".join(lines))
    return 0


def shipped(name: str, folder: Path, suffix: str) -> Path:
    """The file that ``name`` means: one shipped in ``folder``, or a path.

    Raises:
        InputError: ``unknown_name`` if it is neither.
    """
    if (folder / f"{name}{suffix}").is_file() and "/" not in name:
        return folder / f"{name}{suffix}"
    if Path(name).is_file():
        return Path(name)
    names = ", ".join(sorted(path.stem for path in folder.glob(f"*{suffix}")))
    raise InputError("unknown_name", f"{name!r} is no file and none of those shipped: {names}")
