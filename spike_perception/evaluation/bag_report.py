# SPDX-License-Identifier: Apache-2.0
"""What every report on a replayed bag tells: latency, drops, resources, energy, comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spike_perception.evaluation.figures import draw_precision_recall
from spike_perception.evaluation.metrics import PrecisionRecall
from spike_perception.evaluation.report import Palette, Report, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows of a comparison: label, and where the value stands in a node's part of the result.
COMPARED = (
    ("Recall@1", "recall_at_1"),
    ("Recall@5", "recall_at_5"),
    ("Average precision", "average_precision"),
    ("Recall at 100 % precision", "recall_at_100_precision"),
    ("Recall, accepted and right", "recall"),
    ("Precision of what was accepted", "precision"),
    ("Recall, called known and right", "recall_known"),
    ("Precision of what was called known", "precision_known"),
    ("Top-1", "top_1"),
    ("Top-5", "top_5"),
    ("Calibration error", "expected_calibration_error"),
    ("Answered unknown", "answered_unknown"),
    ("Latency p50, node (ms)", "latency_p50_ms"),
    ("Latency p95, node (ms)", "latency_p95_ms"),
    ("Latency p99, node (ms)", "latency_p99_ms"),
    ("Latency p50, end to end (ms)", "end_to_end_p50_ms"),
    ("Latency p95, end to end (ms)", "end_to_end_p95_ms"),
    ("Latency p99, end to end (ms)", "end_to_end_p99_ms"),
    ("Messages", "messages"),
    ("Unanswered", "unanswered"),
    ("Scans without objects", "without_objects"),
    ("Processor (% of a core)", "cpu_percent"),
    ("Processor time an answer (ms)", "cpu_ms_per_answer"),
    ("Memory (MB)", "memory_mb"),
    ("Memory growth (MB)", "memory_growth_mb"),
    ("Energy a frame or window, estimated (mJ)", "energy_mj"),
    ("Weights", "weights_id"),
    ("Answers", "answers_id"),
)
_HASH = 12  # characters of a hash that a reader sees


def tell_run(
    report: Report,
    nodes: Mapping[str, Mapping[str, Any]],
    latencies: Mapping[str, npt.NDArray[np.float64]],
) -> None:
    """Tell of one run, node by node.

    Args:
        report: the report.
        nodes: the part of the result of each node.
        latencies: float64 ``[A]``, end-to-end latencies of each node (s).
    """
    for name, each in nodes.items():
        if each["end_to_end_p50_ms"] is not None:
            report.headline(
                "End to end",
                f"{each['end_to_end_p50_ms']:.1f} ms",
                f"p95 {each['end_to_end_p95_ms']:.1f}, p99 {each['end_to_end_p99_ms']:.1f} ms, "
                f"{name}",
            )
        if each["energy"]:
            report.headline(
                "Energy, estimated", f"{shown(each['energy_mj'])} mJ", _of(name, each["energy"])
            )
    known = {name: values for name, values in latencies.items() if np.isfinite(values).any()}
    if known:
        report.figure(
            "End-to-end latency",
            "latency",
            lambda figure, palette: draw_latencies(figure, palette, known),
            note="From the publication of a message to the arrival of its answer at a recorder, "
            "both in processes of their own. The slowest hundredth is not drawn.",
        )
    report.table(
        "Nodes",
        ["", *nodes],
        [
            [label, *cells]
            for label, key in COMPARED
            if key not in _JUDGEMENTS and (cells := _cells(nodes.values(), key))
        ],
        note="Processor time and memory of each node's process, while it answered. Energy is of "
        "an image, of all objects that are named in a scan (their mean number times the energy of "
        "one), or of a window of events; an estimate, not measured.",
    )
    rows = [
        [name, reason, count]
        for name, each in nodes.items()
        for reason, count in (*each["drops"].items(), ("not explained", each["unexplained"]))
        if count
    ]
    report.table(
        "Dropped messages",
        ["node", "reason", "messages"],
        rows or [["", "none", 0]],
        note="By reason, as on /diagnostics. Not explained are those without an answer, and "
        "without a reason up to the node's last word.",
    )


def _of(name: str, energy: Mapping[str, Any]) -> str:
    """What an estimate is of."""
    each = f" of {energy['objects']:.1f} objects" if "objects" in energy else ""
    return f"a {energy['of']}{each}, {name}"


_JUDGEMENTS = {key for _, key in COMPARED[:12]}


def tell_comparison(
    report: Report,
    node: str,
    runs: Mapping[str, Mapping[str, Any]],
    curves: Mapping[str, PrecisionRecall],
    changes: Mapping[str, str],
) -> None:
    """Put runs of one node side by side.

    Args:
        report: the report.
        node: the node.
        runs: its part of the result of each run.
        curves: precision over recall of the runs that have a ground truth.
        changes: what was set in each run.
    """
    report.table(
        f"Runs of {node}",
        ["", *runs],
        [
            ["set", *(changes[name] for name in runs)],
            *([label, *cells] for label, key in COMPARED if (cells := _cells(runs.values(), key))),
        ],
        note="Equal hashes of answers mean that every answer is the same.",
    )
    if curves:
        report.figure(
            f"Precision and recall of {node}",
            f"compare_{node}",
            lambda figure, palette: draw_precision_recall(figure, palette, curves),
            note="Of the best candidate, accepted above a falling score; all runs.",
        )


def figure_of(figures: Mapping[str, Any], key: str) -> Any:
    """A figure as a reader sees it, None where there is none.

    ``precision`` is a share where places are judged; of a classifier it is that of its network, as
    in ``evaluate images``, and no figure of merit.
    """
    value = figures.get(key)
    if not isinstance(value, str):
        return value
    return value[:_HASH] if key.endswith("_id") else None


def _cells(every: Iterable[Mapping[str, Any]], key: str) -> list[Any]:
    """A row of figures; empty if nobody has one."""
    cells = [figure_of(each, key) for each in every]
    return cells if any(each is not None for each in cells) else []


def draw_latencies(
    figure: Figure, palette: Palette, latencies: Mapping[str, npt.NDArray[np.float64]]
) -> None:
    """Histograms of end-to-end latencies, without the slowest hundredth.

    Args:
        figure: the empty figure.
        palette: colours.
        latencies: float64 ``[A]`` by node (s), some of them finite.
    """
    axes = figure.subplots()
    for (name, seconds), colour in zip(latencies.items(), palette.series, strict=False):
        values = seconds[np.isfinite(seconds)] * 1e3
        middle, high, top = np.percentile(values, (50, 95, 99))
        label = f"{name}: p50 {middle:.1f}, p95 {high:.1f} ms"
        axes.hist(values[values <= top], bins=40, color=colour, alpha=0.35, label=label)
        axes.axvline(middle, color=colour, linewidth=1.2)
        axes.axvline(high, color=colour, linestyle="--", linewidth=1.2)
    axes.set(xlabel="from publication to answer (ms)", ylabel="answers")
    axes.legend(loc="upper right", fontsize=9)
