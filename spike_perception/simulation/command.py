# SPDX-License-Identifier: Apache-2.0
"""Drive a simulated robot through a world; write what it senses as a bag, or publish it."""

from __future__ import annotations

import argparse
import time
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from spike_perception.bags.message_writer import MessageWriter
from spike_perception.bags.writer import BagWriter
from spike_perception.cli import add_json, emit
from spike_perception.config import from_flat, settings, to_flat
from spike_perception.errors import InputError
from spike_perception.simulation.drive import DriveConfig, drive_into
from spike_perception.simulation.route import load_route
from spike_perception.simulation.sdf import load_world

WORLDS = Path(__file__).parent / "worlds"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("world", help="name of a shipped world (loop) or an SDF file")
    parser.add_argument(
        "--drive", required=True, help="name of a shipped route (two_laps) or a JSON file"
    )
    output = parser.add_mutually_exclusive_group(required=True)
    output.add_argument("-o", "--output", type=Path, help="folder of the new bag")
    output.add_argument(
        "--live", action="store_true", help="publish through ROS 2 instead, with /clock"
    )
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
    """Drive, write or publish, print what there was."""
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

        with _writer(arguments, config) as writer:
            driven = drive_into(writer, world, route, config, progress)
    seconds = time.monotonic() - started
    bag = None if arguments.live else str(arguments.output)
    result = {
        "bag": bag,
        "world": world_path.name,
        "route": route_path.name,
        "laps": [asdict(lap) for lap in driven.laps],
        "messages": driven.messages,
        "seconds": seconds,
        "config": to_flat(config),
    }
    lines = [f"{bag or 'published'}: {len(driven.laps)} laps in {seconds:.1f} s"]
    lines += [f"  {topic:<24} {count:>6,}" for topic, count in sorted(driven.messages.items())]
    emit(arguments, result, "\n".join(lines))
    return 0


def _writer(
    arguments: argparse.Namespace, config: DriveConfig
) -> AbstractContextManager[MessageWriter]:
    if not arguments.live:
        return BagWriter(arguments.output, config.storage)
    # Nodes know nothing of the simulation; only here does it know of one.
    from spike_perception.nodes.live import LivePublisher

    return LivePublisher("simulation")


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
