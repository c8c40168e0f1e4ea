# SPDX-License-Identifier: Apache-2.0
"""Measure the suite's image descriptors beside other people's, on the same drives in one run.

Every method makes a matrix of similarities [queries, places]; all are scored alike. ``single``
ranks the raw similarities. ``diagonal`` ranks their mean over the last L frames at equal speed, the
common ground of the field. ``matched`` ranks what the suite's own sequence matching makes of them:
similarities standardised query by query, several speeds. Both need L frames, so the first L - 1
queries and places are left out of both, and nowhere else.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.images import ImageSequence
from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.evaluation import ground_truth, metrics
from spike_perception.evaluation.metrics import PrecisionRecall, Truth
from spike_perception.evaluation.provenance import provenance
from spike_perception.evaluation.report import Palette, Report, open_report, shown
from spike_perception.evaluation.vpr_peers import (
    PEERS,
    Described,
    Options,
    Traverse,
    describe_own,
    from_features,
)
from spike_perception.places.config import SequenceConfig
from spike_perception.places.descriptors import create_descriptor, descriptor_names
from spike_perception.places.sequence import PRIOR_SPREAD, match_sequences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float32]

WAYS = {
    "single": "single frame",
    "diagonal": "mean of the diagonal",
    "matched": "sequence matching of the suite",
}
FIGURES = (
    ("R@1", "recall_at_1"),
    ("R@5", "recall_at_5"),
    ("R@10", "recall_at_10"),
    ("AUC-PR", "auc_pr"),
    ("R@100P", "recall_at_100_precision"),
)
MAX_PAIRS = 1 << 28
"""Most query-place pairs (1 GiB a matrix)."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    defaults = Options()
    for name in ("reference", "query"):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help=f"{name} drive: a folder of images, FILE.zip or FILE.zip/FOLDER, in order of "
            "name; frame k of one is frame k of the other",
        )
    parser.add_argument(
        "--tolerance", type=int, default=1, help="frames off the true one that count as right"
    )
    parser.add_argument(
        "--sequence", type=int, default=10, metavar="L", help="frames matched together"
    )
    parser.add_argument("--first", type=int, default=0, help="first frame taken, from 0")
    parser.add_argument(
        "--last", type=int, default=None, help="last frame taken (default: the drive's last)"
    )
    parser.add_argument(
        "--descriptors",
        nargs="*",
        default=list(descriptor_names()),
        metavar="NAME",
        help="the suite's descriptors; NAME:FILE for weights of one's own",
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        default=list(PEERS),
        metavar="NAME",
        help="other people's methods; without a name: none",
    )
    parser.add_argument(
        "--features",
        action="append",
        default=[],
        metavar="NAME=FILE.npz",
        help="a method given by its features: float arrays reference [P, C] and query [Q, C]; may "
        "be repeated",
    )
    parser.add_argument(
        "--vprtempo-python",
        default=defaults.vprtempo_python,
        metavar="PYTHON",
        help="interpreter that has the package vprtempo",
    )
    parser.add_argument(
        "--vprtempo-size",
        type=int,
        default=defaults.vprtempo_size,
        metavar="PIXELS",
        help="side of the thumbnails VPRTempo sees; its time and memory grow with the fourth power",
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="seed of the peers")
    parser.add_argument("--report", metavar="DIR", help="write report.html, figures and JSON there")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    unknown = [name for name in arguments.peers if name not in PEERS]
    if unknown:
        raise InputError(
            "unknown_peer", f"there is no peer {unknown[0]!r}; choose of {', '.join(PEERS)}"
        )
    options = Options(
        vprtempo_python=arguments.vprtempo_python,
        vprtempo_size=arguments.vprtempo_size,
        seed=arguments.seed,
    )
    with ExitStack() as stack:
        drives = [
            stack.enter_context(ImageSequence(path))
            for path in (arguments.reference, arguments.query)
        ]
        if len(drives[0]) != len(drives[1]):
            raise InputError(
                "count_mismatch",
                f"the reference has {len(drives[0])} images and the query {len(drives[1])}; frame "
                "k of one must be frame k of the other",
            )
        last = len(drives[0]) - 1 if arguments.last is None else arguments.last
        if not 0 <= arguments.first <= last < len(drives[0]):
            raise InputError(
                "invalid_option",
                f"--first {arguments.first} --last {last}: allowed is 0 to {len(drives[0]) - 1}",
            )
        reference, query = (Traverse(each, arguments.first, last) for each in drives)
        count = len(query)
        if not 1 <= arguments.sequence <= min(count, 200) or count * count > MAX_PAIRS:
            raise InputError(
                "invalid_option",
                f"--sequence {arguments.sequence} of {count} frames: allowed are sequences of 1 to "
                f"{min(count, 200)} frames, and at most {int(MAX_PAIRS**0.5)} frames in all",
            )
        truth = ground_truth.diagonal(count, count, arguments.tolerance)
        report = open_report(
            arguments.report,
            "Descriptors for place recognition",
            f"{arguments.query} in {arguments.reference}, frames {arguments.first} to {last}",
        )
        rows: list[dict[str, Any]] = []
        curves: dict[str, dict[str, PrecisionRecall]] = {way: {} for way in WAYS}
        skipped: dict[str, str] = {}
        for name, make in _methods(arguments, reference, query, options):
            try:
                found = make()
            except InputError as error:
                skipped[name] = str(error)
                continue
            for each in found:
                scored = score(each.similarity, truth, arguments.sequence)
                for way, matches in scored.items():
                    curves[way][each.name] = metrics.precision_recall(matches)
                rows.append(
                    {
                        "method": each.name,
                        "milliseconds": each.milliseconds,
                        "descriptor_bytes": each.descriptor_bytes,
                        "parameters": each.parameters,
                        "note": each.note,
                        **{way: metrics.summary(matches) for way, matches in scored.items()},
                    }
                )
    if not rows:
        raise InputError(
            "nothing_measured",
            "no method could be measured: "
            + ("; ".join(f"{name}: {why}" for name, why in skipped.items()) or "none is asked for"),
        )
    result = {
        "methods": rows,
        "skipped": skipped,
        "reference": arguments.reference,
        "query": arguments.query,
        "first": arguments.first,
        "last": last,
        "frames": count,
        "tolerance": arguments.tolerance,
        "sequence": arguments.sequence,
        "seed": arguments.seed,
        **provenance(),
    }
    page = _write_report(report, result, {way: each for way, each in curves.items() if each})
    emit(arguments, result, _text(result) + (f"\nreport: {page}" if page else ""))
    return 0


def score(similarity: Floats, truth: Truth, length: int) -> dict[str, metrics.Matches]:
    """Best matches of every way of ranking.

    Args:
        similarity: float32 [Q, P], higher is more alike, in any unit.
        truth: bool [Q, P].
        length: L, frames matched together; 1 leaves single frames alone.
    """
    found = {"single": metrics.matches_from_scores(similarity, truth)}
    if length > 1:
        later = truth[length - 1 :, length - 1 :]
        # Brought to the unit that the spread of few places is guessed in; ranks stay.
        level = PRIOR_SPREAD / max(float(similarity.std()), 1e-12)
        ours = match_sequences(similarity * np.float32(level), SequenceConfig(length=length))
        found["diagonal"] = metrics.matches_from_scores(diagonal_mean(similarity, length), later)
        found["matched"] = metrics.matches_from_scores(ours[length - 1 :, length - 1 :], later)
    return found


def diagonal_mean(similarity: Floats, length: int) -> Floats:
    """Mean of the similarities of the last L queries to the last L places.

    SeqSLAM's trajectory at equal speed, as VPR_Tutorial and VPRTempo take it (there with the
    sequence centred on the query), where all its frames are there.

    Args:
        similarity: float32 [Q, P].
        length: L, at most Q and P.

    Returns:
        float32 [Q - L + 1, P - L + 1]: entry (q, p) is of the query q + L - 1 and the place
        p + L - 1, the newest ones.
    """
    queries, places = (side - length + 1 for side in similarity.shape)
    total = np.zeros((queries, places), np.float64)
    for k in range(length):
        total += similarity[k : k + queries, k : k + places]
    return np.asarray(total / length, np.float32)


def _methods(
    arguments: argparse.Namespace, reference: Traverse, query: Traverse, options: Options
) -> list[tuple[str, Callable[[], list[Described]]]]:
    def own(name: str) -> Callable[[], list[Described]]:
        plain, colon, file = name.partition(":")
        label = f"{plain}{colon}{Path(file).stem}"  # tells weights of one descriptor apart
        return lambda: [
            replace(describe_own(create_descriptor(name), reference, query), name=label)
        ]

    def peer(name: str) -> Callable[[], list[Described]]:
        return lambda: PEERS[name](reference, query, options)

    def given(name: str, path: str) -> Callable[[], list[Described]]:
        return lambda: [from_features(Path(path), name, reference, query)]

    methods = [(name, own(name)) for name in arguments.descriptors]
    for assignment in arguments.features:
        name, equals, path = assignment.partition("=")
        if not equals:
            raise InputError("invalid_option", f"--features takes NAME=FILE.npz, not {assignment}")
        methods.append((name, given(name, path)))
    return methods + [(name, peer(name)) for name in arguments.peers]


def _write_report(
    report: Report, result: dict[str, Any], curves: dict[str, dict[str, PrecisionRecall]]
) -> Path | None:
    rows = result["methods"]
    ways = [way for way in WAYS if way in rows[0]]
    length = result["sequence"]
    for way in ways:
        best = max(rows, key=lambda row: row[way]["recall_at_1"])
        name = WAYS[way] + ("" if way == "single" else f", {length} frames")
        report.headline(f"Best recall@1, {name}", best[way]["recall_at_1"], best["method"])
    report.figure(
        "Recall@1",
        "recall_at_1",
        lambda figure, palette: _draw_bars(figure, palette, rows, ways),
        note="Share of the queries whose best match is right.",
        size=(11.0, 0.9 + 0.45 * len(rows)),
    )
    for way in ways:
        report.figure(
            f"Precision and recall, {WAYS[way]}",
            f"precision_recall_{way}",
            partial(_draw_curves, curves[way]),
            note="The best match of every query, accepted above a falling threshold.",
        )
    for way in ways:
        report.table(
            WAYS[way][0].upper() + WAYS[way][1:] + ("" if way == "single" else f", L = {length}"),
            ["method", *(label for label, _ in FIGURES)],
            [[row["method"], *(row[way][key] for _, key in FIGURES)] for row in rows],
            note=_WAY_NOTES[way],
        )
    report.table(
        "Cost",
        ["method", "ms an image", "bytes a place", "parameters", ""],
        [[row[key] for key in ("method", *_COSTS, "note")] for row in rows],
        note="Median time to describe an image on this machine, reading and decoding it not "
        "counted.",
    )
    if result["skipped"]:
        report.table("Not measured", ["method", "why"], result["skipped"].items())
    report.table(
        "Configuration",
        ["setting", "value"],
        [
            *((key, result[key]) for key in ("frames", "tolerance", "sequence", "seed")),
            ("command line", result["command_line"]),
            *result["versions"].items(),
            *result["machine"].items(),
        ],
        folded=True,
    )
    return report.write(result)


_COSTS = ("milliseconds", "descriptor_bytes", "parameters")
_WAY_NOTES = {
    "single": "Raw similarities, every query against every place.",
    "diagonal": "Raw similarities, averaged over the last L frames at equal speed. The first L - 1 "
    "queries and places, which have fewer frames, are left out.",
    "matched": "Similarities standardised query by query, best of several speeds, as the place "
    "recogniser does; the same queries and places.",
}


def _draw_bars(
    figure: Figure, palette: Palette, rows: Sequence[dict[str, Any]], ways: Sequence[str]
) -> None:
    axes = figure.subplots()
    height = 0.8 / len(ways)
    at = np.arange(len(rows))
    for k, way in enumerate(ways):
        values = [row[way]["recall_at_1"] for row in rows]
        bars = axes.barh(at + k * height, values, height, label=WAYS[way], color=palette.series[k])
        axes.bar_label(bars, fmt="%.3f", fontsize=8, padding=2, color=palette.muted)
    axes.set_yticks(at + height * (len(ways) - 1) / 2, [row["method"] for row in rows])
    axes.set(xlabel="recall@1", xlim=(0, 1.08))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=len(ways), fontsize=9)


def _draw_curves(curves: dict[str, PrecisionRecall], figure: Figure, _: Palette) -> None:
    axes = figure.subplots()
    styles = ("-", "--", ":")
    for k, (name, curve) in enumerate(curves.items()):
        # Colours come round again after five lines, so the dashes tell those apart.
        axes.plot(curve.recall, curve.precision, styles[k // 5 % 3], label=name, lw=1.5)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left", fontsize=8)


def _text(result: dict[str, Any]) -> str:
    rows = result["methods"]
    width = max(len(row["method"]) for row in rows)
    lines = [
        f"frames {result['first']} to {result['last']} of {result['query']} in "
        f"{result['reference']}; right within {result['tolerance']} frames; "
        f"sequences of {result['sequence']}"
    ]
    for way, name in WAYS.items():
        if way in rows[0]:
            lines += ["", name, f"{'':<{width}}" + "".join(f"{label:>9}" for label, _ in FIGURES)]
            for row in rows:
                values = (row[way][key] for _, key in FIGURES)
                cells = "".join(f"{'-' if v is None else format(v, '.4f'):>9}" for v in values)
                lines.append(f"{row['method']:<{width}}{cells}")
    lines += ["", f"{'':<{width}}{'ms':>9}{'bytes':>9}{'parameters':>12}"]
    for row in rows:
        cost = [shown(row[key]) for key in _COSTS]
        lines.append(
            f"{row['method']:<{width}}{cost[0]:>9}{cost[1]:>9}{cost[2]:>12}  {row['note']}"
        )
    lines += [f"{name} not measured: {why}" for name, why in result["skipped"].items()]
    return "\n".join(lines)
