# SPDX-License-Identifier: Apache-2.0
"""The command ``spike-perception``: words to modules, each imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spike_perception import __version__
from spike_perception.errors import InputError

# Words of a command -> (module, one line for --help). The module has ``configure(parser)`` and
# ``run(arguments) -> exit status``.
Commands = Mapping[tuple[str, ...], tuple[str, str]]
COMMANDS: Commands = {
    ("replay",): ("spike_perception.nodes.replay", "play a bag through ROS 2, with /clock"),
    ("record",): ("spike_perception.nodes.record", "record topics to a bag"),
    ("parameters",): (
        "spike_perception.nodes.command_parameters",
        "show the parameters of a node",
    ),
    ("bag", "from-images"): ("spike_perception.bags.from_images", "make a bag of images"),
    ("map", "inspect"): (
        "spike_perception.places.commands.inspect",
        "check a place map and say what it holds",
    ),
    ("map", "export"): (
        "spike_perception.places.commands.export",
        "write a place map as arrays and tables",
    ),
    ("map", "merge"): (
        "spike_perception.places.commands.merge",
        "join place maps into a new one",
    ),
    ("map", "calibrate"): (
        "spike_perception.places.commands.calibrate",
        "set a place map's thresholds from data",
    ),
    ("simulate",): ("spike_perception.simulation.command", "drive a simulated robot, write a bag"),
    ("simulate", "objects"): (
        "spike_perception.simulation.object_views",
        "render labelled views of simulated objects, one folder a class",
    ),
    ("evaluate", "bag"): (
        "spike_perception.evaluation.bag",
        "measure perception nodes on a replayed bag",
    ),
    ("simulate", "scans"): (
        "spike_perception.simulation.object_scans",
        "cast labelled LiDAR points of simulated objects, one folder a class",
    ),
    ("evaluate", "places"): (
        "spike_perception.evaluation.places",
        "measure place recognition between two drives given as images",
    ),
    ("evaluate", "images"): (
        "spike_perception.evaluation.images",
        "measure how a bundle names images of known classes, from words",
    ),
    ("evaluate", "points"): (
        "spike_perception.evaluation.points",
        "measure how a bundle names objects given as points, from words",
    ),
    ("evaluate", "events"): (
        "spike_perception.evaluation.events",
        "measure how a bundle names recordings of an event camera, from words",
    ),
    ("bench", "places"): (
        "spike_perception.evaluation.bench_places",
        "measure the place map and its index",
    ),
    ("bench", "node"): (
        "spike_perception.nodes.bench",
        "measure running camera nodes under load",
    ),
    ("bench", "vpr"): (
        "spike_perception.evaluation.bench_vpr",
        "measure the descriptors beside other methods on the same drives",
    ),
    ("bench", "students"): (
        "spike_perception.evaluation.bench_students",
        "measure the students' engines beside their peers",
    ),
    ("energy",): (
        "spike_perception.deploy.command_energy",
        "estimate what a bundle's network costs",
    ),
    ("model", "export"): (
        "spike_perception.deploy.command_export",
        "write a bundle's binary form for neuromorphic tools (NIR)",
    ),
    ("model", "info"): ("spike_perception.deploy.command_info", "verify and show a model bundle"),
    ("soak",): (
        "spike_perception.evaluation.soak",
        "run all nodes while faults are injected, and say what came of it",
    ),
    ("demo",): ("spike_perception.evaluation.demo", "a simulated robot recognises places"),
}


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give a command the option ``--json FILE|-``."""
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the result as JSON to FILE, or to standard output with -",
    )


def emit(arguments: argparse.Namespace, result: dict[str, Any], text: str) -> None:
    """Print a command's result: ``text`` for people, and JSON where ``--json`` asks for it.

    With ``--json -`` standard output carries the JSON alone.

    Raises:
        InputError: ``cannot_write`` if the JSON's file cannot be written; the text is printed then.
    """
    if arguments.json == "-":
        json.dump(result, sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
        return
    print(text)
    if arguments.json:
        try:
            Path(arguments.json).write_text(json.dumps(result, indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise InputError(
                "cannot_write", f"--json {arguments.json}: {error.strerror}"
            ) from error


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not of options that have none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, "", False) or action.default == []:
            return action.help
        return super()._get_help_string(action)


def _words(commands: Commands, arguments: Sequence[str]) -> tuple[str, ...]:
    """The longest run of leading arguments that names a command or a group of commands."""
    words: tuple[str, ...] = ()
    for argument in arguments:
        longer = (*words, argument)
        if not any(command[: len(longer)] == longer for command in commands):
            break
        words = longer
    return words


def _overview(program: str, commands: Commands, words: tuple[str, ...]) -> str:
    lines = [f"usage: {' '.join((program, *words))} COMMAND [--help]", "", "commands:"]
    members = {c: line for c, (_, line) in commands.items() if c[: len(words)] == words}
    width = max(len(" ".join(command)) for command in members)
    lines += [f"  {' '.join(command):<{width}}  {line}" for command, line in members.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status (2 for input that cannot be used)."""
    return run_command("spike-perception", COMMANDS, arguments)


def run_command(program: str, commands: Commands, arguments: Sequence[str] | None = None) -> int:
    """Run one command of a program; returns its exit status.

    Args:
        program: name of the program, for messages.
        commands: its commands, as :data:`COMMANDS`.
        arguments: words and options; None takes those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:
        print(f"{program} {__version__}")
        return 0
    words = _words(commands, given)
    if words not in commands:
        rest = given[len(words) :]
        if rest and rest[0] not in ("-h", "--help"):
            print(f"{program}: no command {' '.join([*words, rest[0]])!r}", file=sys.stderr)
            print(_overview(program, commands, words), file=sys.stderr)
            return 2
        print(_overview(program, commands, words))
        return 0
    module_name, line = commands[words]
    module = importlib.import_module(module_name)
    parser = argparse.ArgumentParser(
        prog=" ".join((program, *words)),
        description=line,
        formatter_class=_Formatter,
    )
    module.configure(parser)
    try:
        return int(module.run(parser.parse_args(given[len(words) :])))
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
