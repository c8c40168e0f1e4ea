# SPDX-License-Identifier: Apache-2.0
"""Measure perception nodes on a replayed bag, as a robot would run them.

Each node is a process of its own, over real DDS in a domain of their own. The bag waits for the
answers, so that none is lost and two runs answer alike; with ``--realtime`` it does not.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spike_perception.bags.event_replay import open_recording
from spike_perception.cli import add_json, emit
from spike_perception.config import Value
from spike_perception.errors import InputError
from spike_perception.evaluation import bag_run
from spike_perception.evaluation.bag_classes import read_labels
from spike_perception.evaluation.bag_places import is_topic
from spike_perception.evaluation.bag_report import figure_of, tell_comparison
from spike_perception.evaluation.bag_run import NodeResult, Question
from spike_perception.evaluation.heard import read_times
from spike_perception.evaluation.launchable import CAMERA, LAUNCHES, PLACES, Launchable
from spike_perception.evaluation.metrics import NO_TRUE_PLACE
from spike_perception.evaluation.node_parameters import require_used, resolve
from spike_perception.evaluation.provenance import provenance
from spike_perception.evaluation.replayed import Started, hearing
from spike_perception.evaluation.report import Report, open_report, shown

BASE = "base"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bag", type=Path, metavar="BAG", help="bag of ROS 1 or 2, or .aedat4 file")
    parser.add_argument(
        "--launch", choices=sorted(LAUNCHES), required=True, help="which nodes are started"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="BAG|MAP",
        help="places: a bag that is mapped first, or a place map; without it the node maps and "
        "recognises BAG at once",
    )
    parser.add_argument(
        "--ground-truth",
        default="",
        metavar="FILE|TOPIC",
        help="places: a .npy file as for evaluate places, or a topic of poses in both bags; "
        "without it image k is image k. Names: a text file with the true word of each message, one "
        "a line; without it what a simulated bag says",
    )
    parser.add_argument(
        "--tolerance",
        type=int,
        default=1,
        metavar="N",
        help="frames before and after the true one that count as right",
    )
    parser.add_argument(
        "--within", type=float, default=5.0, metavar="M", help="true matches by poses: distance (m)"
    )
    parser.add_argument(
        "--descriptor", default="", metavar="NAME", help="places: image descriptor, by its name"
    )
    parser.add_argument(
        "--sequence",
        type=int,
        default=1,
        metavar="L",
        help="places: images matched together; 1: single images",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[NODE/]NAME=VALUE|FILE.yaml",
        help="a parameter of the nodes, or a file of parameters; may be repeated",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        action="append",
        default=[],
        metavar=("LABEL", "[NODE/]NAME=VALUE|FILE.yaml"),
        help="play the bag once more with these parameters besides, and put both side by side; may "
        "be repeated",
    )
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="play at the bag's own pace: a node that is too slow drops messages",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="write report.html, figures, JSON and the recorded answers there",
    )
    add_json(parser)


@dataclass(frozen=True)
class Variant:
    """One configuration under test: its label and what is set for it."""

    label: str
    given: tuple[str, ...]


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    variants, question = _variants(args), _question(args)
    with ExitStack() as stack:
        out = args.report or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found: dict[str, dict[str, NodeResult]] = {}
        left_out: list[str] = []
        maps: bag_run.Maps = {}
        started = {each.label: _nodes(args, each, out / each.label, left_out) for each in variants}
        _check_labels(question, started[BASE])
        report = open_report(
            args.report,
            f"Replay through {args.launch}",
            f"{args.bag}" + (f" in {args.reference}" if args.reference else ""),
        )
        for each in variants:
            folder = out / each.label
            found[each.label] = bag_run.play(question, started[each.label], folder, maps, stack)
        base = found[BASE]
        result = _result(args, found, left_out)
        if len(variants) > 1:
            changes = {each.label: " ".join(each.given) or "as it is" for each in variants}
            for node in base:
                runs = {label: nodes[node] for label, nodes in found.items()}
                tell_comparison(
                    report,
                    node,
                    {label: each.figures for label, each in runs.items()},
                    {label: each.curve for label, each in runs.items() if each.curve},
                    changes,
                )
        bag_run.tell(report, found)
        _tell_configuration(report, result, base)
        page = report.write(result)
    emit(args, result, _text(found, left_out) + (f"\nreport: {page}" if page else ""))
    return 0


def _question(args: argparse.Namespace) -> Question:
    """What is asked; with several nodes a ground truth tells by its kind whom it is for."""
    launched = LAUNCHES[args.launch]
    given = args.ground_truth
    of_places = is_topic(given) or given.endswith(".npy")
    if given.endswith(".npy") and args.reference is None:
        raise InputError(
            "reference_missing",
            f"--ground-truth {given} says which place of a reference each image shows; give "
            "--reference BAG|MAP",
        )
    return Question(
        args.bag,
        args.reference,
        given if of_places or len(launched) == 1 else "",
        given if not of_places or len(launched) == 1 else "",
        launched[0].node if len(launched) == 1 else CAMERA.node,
        args.tolerance,
        args.within,
        args.realtime,
    )


def _check_labels(question: Question, nodes: Sequence[Started]) -> None:
    """Refuse a list of words that does not fit before the bag is played, not after.

    Raises:
        InputError: as :func:`~spike_perception.evaluation.bag_classes.read_labels`.
    """
    for each in nodes:
        launched = each.launched
        if question.labels and launched is not PLACES and launched.node == question.labelled:
            times = read_times(question.bag, each.topic)
            read_labels(question.labels, question.bag, times, simulated=False)


def _variants(args: argparse.Namespace) -> list[Variant]:
    variants = [Variant(BASE, tuple(args.set))]
    for label, *given in args.compare:
        if not label.replace("-", "").replace("_", "").isalnum() or not given:
            raise InputError(
                "invalid_option",
                f"--compare {' '.join([label, *given])}: give a label of letters and digits, then "
                "parameters as NAME=VALUE or a file of them",
            )
        if label in {each.label for each in variants}:
            raise InputError("invalid_option", f"--compare {label}: the label is taken")
        variants.append(Variant(label, (*args.set, *given)))
    return variants


def _nodes(
    args: argparse.Namespace, variant: Variant, out: Path, left_out: list[str]
) -> list[Started]:
    """The nodes of a variant that hear something in the bag; the others go to ``left_out``."""
    launched = LAUNCHES[args.launch]
    require_used(variant.given, launched)
    nodes = []
    with open_recording(args.bag) as bag:
        for each in launched:
            parameters = resolve(each, variant.given, _defaults(args, each, out))
            node = hearing(bag, each, parameters, realtime=args.realtime)
            if node is not None:
                nodes.append(node)
            elif each.node not in left_out:
                left_out.append(each.node)
        if not nodes:
            wanted = sorted({kind for each in launched for kind in each.types})
            raise InputError(
                "topic_missing",
                f"{args.bag} has no topic for {args.launch}, which takes {', '.join(wanted)}; "
                f"there are {', '.join(bag.topics)}",
            )
    return nodes


def _defaults(args: argparse.Namespace, launched: Launchable, out: Path) -> dict[str, Value]:
    """What is set apart from a node's parameter file, unless the command line says otherwise."""
    if launched is not PLACES:
        return {}
    chosen: dict[str, Value] = {
        "map.path": str(out / "map.db"),
        "decision.candidates": bag_run.CANDIDATES,
    }
    if args.descriptor:
        chosen["descriptor.name"] = args.descriptor
    elif args.reference and bag_run.is_map(args.reference):
        chosen["descriptor.name"] = bag_run.map_descriptor(args.reference)
    if args.reference:
        # As in evaluate places: every image is a place, every image a query.
        chosen |= {
            "sequence.length": args.sequence,
            "keyframe.interval_s": 0.0,
            "keyframe.distance_m": 0.0,
            "keyframe.angle_rad": 0.0,
        }
    return chosen


def _result(
    args: argparse.Namespace, found: Mapping[str, Mapping[str, NodeResult]], left_out: Sequence[str]
) -> dict[str, Any]:
    """One node's figures stand at the top, those of several below the nodes' names."""

    def told(nodes: Mapping[str, NodeResult]) -> dict[str, Any]:
        if len(LAUNCHES[args.launch]) == 1:
            return dict(next(iter(nodes.values())).figures)
        return {name: dict(each.figures) for name, each in nodes.items()}

    result = told(found[BASE])
    if len(found) > 1:
        result["runs"] = {label: told(nodes) for label, nodes in found.items()}
    return {
        **result,
        "bag": str(args.bag),
        "launch": args.launch,
        "left_out": list(left_out),
        "realtime": args.realtime,
        **provenance(),
    }


def _tell_configuration(
    report: Report, result: Mapping[str, Any], nodes: Mapping[str, NodeResult]
) -> None:
    report.table(
        "Configuration",
        ["setting", "value"],
        [
            *(
                (f"{name}/{setting}", value)
                for name, each in nodes.items()
                for setting, value in each.figures["config"].items()
            ),
            *((f"ground truth of {n}", each.figures["ground_truth"]) for n, each in nodes.items()),
            ("command line", result["command_line"]),
            *result["versions"].items(),
            *result["machine"].items(),
        ],
        folded=True,
    )


_SHOWN = (
    ("R@1", "recall_at_1"),
    ("R@5", "recall_at_5"),
    ("average precision", "average_precision"),
    ("recall", "recall"),
    ("precision", "precision"),
    ("known and right", "recall_known"),
    ("right of known", "precision_known"),
    ("top-1", "top_1"),
    ("top-5", "top_5"),
)


def _text(found: Mapping[str, Mapping[str, NodeResult]], left_out: Sequence[str]) -> str:
    lines = []
    for label, nodes in found.items():
        for name, each in nodes.items():
            it = each.figures
            of = it["energy"]["of"] if it["energy"] else "frame"
            judged = "   ".join(
                f"{n} {shown(value)}"
                for n, key in _SHOWN
                if (value := figure_of(it, key)) is not None
            )
            if it.get("queries_matchable") == 0:
                judged = "   ".join(filter(None, (NO_TRUE_PLACE, judged)))
            lines += [
                f"{name}, {label}: {it['messages']:,} messages, {it['answers']:,} answers, "
                f"{shown(it['unanswered'])} unanswered"
                + (f", {empty:,} without objects" if (empty := it["without_objects"]) else ""),
                f"  {judged}" if judged else "  without ground truth",
                f"  latency p50 / p95 / p99: node {_triple(it, 'latency')} ms, end to end "
                f"{_triple(it, 'end_to_end')} ms",
                f"  processor {shown(it['cpu_percent'])} % of a core   memory "
                f"{shown(it['memory_mb'])} MB   energy a {of}, estimated "
                f"{shown(it['energy_mj'])} mJ",
            ]
            if it["drops"]:
                lines.append(
                    "  dropped: " + ", ".join(f"{n} {reason}" for reason, n in it["drops"].items())
                )
    if left_out:
        lines.append(f"left out, as the bag has nothing for them: {', '.join(left_out)}")
    return "\n".join(lines)


def _triple(figures: Mapping[str, Any], name: str) -> str:
    return " / ".join(
        f"{value:.1f}" if (value := figures[f"{name}_{p}_ms"]) is not None else shown(None)
        for p in ("p50", "p95", "p99")
    )
