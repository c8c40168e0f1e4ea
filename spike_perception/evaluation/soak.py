# SPDX-License-Identifier: Apache-2.0
"""Soak test: all nodes under full sensor rates while one fault after the other is injected."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spike_perception.cli import add_json, emit
from spike_perception.config import Value, from_flat, to_flat
from spike_perception.errors import InputError
from spike_perception.evaluation.launchable import LAUNCHES, PLACES, Launchable
from spike_perception.evaluation.node_parameters import require_used, resolve
from spike_perception.evaluation.provenance import provenance
from spike_perception.evaluation.report import Report, open_report, shown
from spike_perception.evaluation.session import LOGS, RosSession, clear
from spike_perception.evaluation.usage import UsageSampler
from spike_perception.identity import sha256_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spike_perception.evaluation.report import Palette

COMMAND = "spike_perception.cli"
PLAYER = "spike_perception.nodes.fault_player"
NODES = {each.node: each for each in LAUNCHES["perception"]}
# The drive that is played round and round: what a robot's sensors give at their full rates.
WORLD, ROUTE = "loop", "two_laps"
DRIVE: dict[str, Value] = {
    "sensors": "camera,lidar,events",
    "maximum_seconds": 5.0,
    "odometry.rate": 60.0,
    "events.rate": 60.0,
    "camera.rate": 30.0,
    "camera.width": 640,
    "camera.height": 480,
}
# In the folder of the simulated drive: what it was made with.
MADE_WITH = "made_with.json"
POLL_S = 0.2
GROWTH = (
    "Memory is resident memory but for segments that DDS shares between processes, which have a "
    "fixed size. Growth is of its median, from the first quarter of the rounds of faults to the "
    "last, after a round to warm up: every fault has then filled the buffers it fills, and every "
    "file has been loaded anew. Empty: fewer than three rounds."
)

Memory = Mapping[str, NDArray[np.float64]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--minutes",
        type=float,
        default=10.0,
        help="how long, at least: every fault is injected once at any rate",
    )
    parser.add_argument("--nodes", nargs="+", choices=sorted(NODES), default=sorted(NODES))
    parser.add_argument(
        "--bag", type=Path, help="bag of the sensors to play; without: a simulated drive"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="[NODE/]NAME=VALUE",
        help="parameters of the nodes, or parameter files",
    )
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="folder for everything")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Soak and report; returns 1 if a node died or a fault went unanswered."""
    out: Path = arguments.out
    if not 0 <= arguments.minutes < math.inf:
        raise InputError("invalid_option", f"--minutes {arguments.minutes:g}: 0 or more")
    nodes = [NODES[name] for name in dict.fromkeys(arguments.nodes)]
    require_used(arguments.set, nodes)
    if arguments.bag:
        clear(out, "map.db*")
    else:
        clear_for_drive(out)
    with RosSession(out / LOGS) as session:
        bag = arguments.bag or simulated(session, out)
        played, died, usage = _soak(session, nodes, bag, arguments)
    memory = {each.node: usage.memory(each.node) for each in nodes}
    result = {**_figures(played, memory, died), "minutes": arguments.minutes, **provenance()}
    report = open_report(
        out,
        "Soak test: faults on every sensor",
        f"{len(nodes)} nodes as processes of their own, {arguments.minutes:g} minutes.",
    )
    _tell(report, result, memory, played["rounds_s"])
    page = report.write(result)
    lines = [
        f"faults injected / answered: {result['injected']} / {result['answered']}",
        *(f"not answered: {each}" for each in result["unanswered"]),
        f"nodes that died: {', '.join(died) or 'none'}",
        *(
            f"{name}: {figures['answers']} answers, {figures['rounds']} rounds of faults, memory "
            f"{shown(figures['memory_mb'])} MB, growth after warm-up "
            f"{shown(figures['memory_growth_percent'])} %"
            for name, figures in result["nodes"].items()
        ),
        f"report: {page}",
    ]
    emit(arguments, result, "\n".join(lines))
    return 1 if died or result["unanswered"] else 0


def clear_for_drive(out: Path) -> None:
    """Clear the folder for a run on a simulated drive; one that is there stays if it is the same.

    Raises:
        InputError: as :func:`clear`.
    """
    try:
        found = json.loads((out / "drive" / MADE_WITH).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    clear(out, "map.db*", *([] if found == _made_with() else ["drive"]))


def simulated(session: RosSession, out: Path) -> Path:
    """A drive of the simulated robot; one that an earlier soak left in that folder serves again."""
    bag, unfinished = out / "drive", out / "drive_unfinished"
    if not bag.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        settings = [word for name, value in DRIVE.items() for word in (f"--{name}", str(value))]
        session.run(
            "simulate",
            COMMAND,
            ["simulate", WORLD, "--drive", ROUTE, "-o", str(unfinished), *settings],
        )
        (unfinished / MADE_WITH).write_text(json.dumps(_made_with()), encoding="utf-8")
        unfinished.rename(bag)
    return bag


def _made_with() -> dict[str, Any]:
    """What decides the simulated drive: every setting, those not given too, world and route."""
    from spike_perception.simulation.command import WORLDS, shipped
    from spike_perception.simulation.drive import DriveConfig

    return {
        "world": sha256_file(shipped(WORLD, WORLDS, ".sdf")),
        "route": sha256_file(shipped(ROUTE, WORLDS / "routes", ".json")),
        "config": to_flat(from_flat(DriveConfig, DRIVE)),
    }


def _soak(
    session: RosSession, nodes: Sequence[Launchable], bag: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, int], UsageSampler]:
    """Run the nodes and the player of faults.

    Returns:
        What the player saw, exit statuses of nodes that died, and what the nodes took.

    Raises:
        InputError: ``process_failed`` if the player failed.
    """
    out: Path = arguments.out
    for each in nodes:
        places = {"map.path": str(out / "map.db"), "map.mode": "both"}
        values = resolve(each, arguments.set, places if each is PLACES else {})
        session.start_node(each.node, each.module, {**values, "autostart": True})
    seen = out / "player.json"
    seconds = ["--seconds", f"{60 * arguments.minutes:g}"]
    names = [each.node for each in nodes]
    died: dict[str, int] = {}
    with UsageSampler({name: session.pid(name) for name in names}) as usage:
        session.start(
            "player", PLAYER, [str(bag), *seconds, "--nodes", *names, "--json", str(seen)]
        )
        started = time.monotonic()
        # Faults that are still due go on after the time asked for.
        with tqdm(total=round(60 * arguments.minutes), desc="soak", unit="s", disable=None) as bar:
            while (status := session.status("player")) is None:
                died |= {n: s for n in names if (s := session.status(n)) is not None}
                time.sleep(POLL_S)
                bar.update(int(time.monotonic() - started) - bar.n)
    if status:
        last = session.log("player").splitlines()[-5:]
        raise InputError("process_failed", "the player of faults failed:\n" + "\n".join(last))
    died |= {n: s for n in names if (s := session.stop(n)) != 0 and n not in died}
    return json.loads(seen.read_text()), died, usage


def _figures(played: dict[str, Any], memory: Memory, died: dict[str, int]) -> dict[str, Any]:
    """The result from what the player saw and what the nodes took."""
    faults = played["faults"]
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    for each in faults:
        row = kinds.setdefault(
            (each["fault"], each["node"]),
            {"times": 0, "messages": 0, "answered": 0, "answered_by": []},
        )
        row["times"] += 1
        row["messages"] += each["messages"]
        if each["answered_by"]:
            row["answered"] += 1
            if each["answered_by"] not in row["answered_by"]:
                row["answered_by"].append(each["answered_by"])
    return {
        "injected": len(faults),
        "answered": sum(bool(each["answered_by"]) for each in faults),
        "unanswered": sorted(
            {f"{each['fault']} of {each['node']}" for each in faults if not each["answered_by"]}
        ),
        "died": died,
        "faults": [{"fault": f, "node": n, **row} for (f, n), row in sorted(kinds.items())],
        "sent": played["sent"],
        "nodes": {
            name: {
                "answers": played["answers"].get(name, 0),
                "counters": played["counters"].get(name, {}),
                **growth(seen, played["rounds_s"].get(name, [])),
            }
            for name, seen in memory.items()
        },
    }


def growth(seen: NDArray[np.float64], rounds_s: Sequence[float]) -> dict[str, Any]:
    """How a process's memory grew from early rounds of faults to late ones.

    Args:
        seen: ``[N, 2]``, times (s since 1970) and memory (1e6 bytes).
        rounds_s: when each round began, and when the last one ended (s since 1970).

    Returns:
        ``rounds``, how many there were; ``memory_mb``, median of the last quarter of those behind
        the first, which warms up; and ``memory_growth_percent`` from the median of the first
        quarter of them. Medians of whole rounds, because a flood takes more for a moment, and a
        node that is configured anew holds less. None for fewer than three rounds, or where the
        process was not seen.
    """
    rounds = max(0, len(rounds_s) - 1)
    base = end = None
    if rounds > 2:
        quarter = max(1, (rounds - 1) // 4)
        base = _median(seen, rounds_s[1], rounds_s[1 + quarter])
        end = _median(seen, rounds_s[-1 - quarter], rounds_s[-1])
    return {
        "rounds": rounds,
        "memory_mb": end,
        "memory_growth_percent": 100.0 * (end / base - 1.0) if base and end else None,
    }


def _median(seen: NDArray[np.float64], begun_s: float, ended_s: float) -> float | None:
    at, memory = seen.T
    within = memory[(at >= begun_s) & (at < ended_s)]
    return float(np.median(within)) if within.size else None


def _tell(
    report: Report,
    result: dict[str, Any],
    memory: Memory,
    rounds_s: Mapping[str, Sequence[float]],
) -> None:
    grown = [each["memory_growth_percent"] for each in result["nodes"].values()]
    growths = [each for each in grown if each is not None]
    report.headline("Faults injected", result["injected"])
    report.headline("Answered", result["answered"], "told of in /diagnostics, or coped with")
    report.headline("Nodes that died", len(result["died"]))
    largest = f"{max(growths):+.1f} %" if growths else shown(None)
    report.headline("Largest memory growth", largest, "of a node, after warm-up")
    report.table(
        "Nodes",
        ["node", "answers", "rounds of faults", "memory [MB]", "growth [%]", "exit status"],
        [
            (name, each["answers"], each["rounds"], each["memory_mb"],
             each["memory_growth_percent"], result["died"].get(name, 0))
            for name, each in result["nodes"].items()
        ],
        note=GROWTH,
    )  # fmt: skip
    report.table(
        "Faults",
        ["fault", "node", "times", "messages", "answered", "by"],
        [
            (e["fault"], e["node"], e["times"], e["messages"], e["answered"],
             ", ".join(e["answered_by"]))
            for e in result["faults"]
        ],
        note="A fault is answered when a counter of its own reason rises in /diagnostics, or, "
        "where nothing needs to be refused, when the node answers the changed messages.",
    )  # fmt: skip
    report.table(
        "Counters in /diagnostics",
        ["node", "counter", "count"],
        [
            (name, reason, count)
            for name, each in result["nodes"].items()
            for reason, count in each["counters"].items()
        ],
        folded=True,
    )
    report.table("Messages sent", ["topic", "messages"], list(result["sent"].items()))
    report.figure(
        "Memory",
        "memory",
        lambda figure, palette: _draw_memory(figure, palette, memory, rounds_s),
        note="Time 0 is when the first round of faults began, dots are where a round ended.",
        size=(9.0, 4.0),
    )


def _draw_memory(
    figure: Figure, palette: Palette, memory: Memory, rounds_s: Mapping[str, Sequence[float]]
) -> None:
    axes = figure.subplots()
    begun = min(each[0] for each in rounds_s.values())
    for (name, seen), colour in zip(memory.items(), palette.series, strict=False):
        minutes = (seen[:, 0] - begun) / 60.0
        axes.plot(minutes, seen[:, 1], label=name, color=colour)
        ends = (np.array(rounds_s[name][1:]) - begun) / 60.0
        axes.plot(ends, np.interp(ends, minutes, seen[:, 1]), "o", color=colour, markersize=4)
    axes.set_xlabel("time (min)")
    axes.set_ylabel("memory (MB)")
    axes.set_ylim(bottom=0)
    axes.legend()
