# SPDX-License-Identifier: Apache-2.0
"""Measure place recognition between two drives given as images."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from spike_perception import config as configuration
from spike_perception.bags.images import ImageSequence
from spike_perception.cli import add_json, emit
from spike_perception.config import setting
from spike_perception.errors import InputError
from spike_perception.evaluation import figures, ground_truth, metrics
from spike_perception.evaluation.bag_images import Pictures
from spike_perception.evaluation.metrics import Matches, Truth
from spike_perception.evaluation.node_parameters import assignment
from spike_perception.evaluation.provenance import provenance
from spike_perception.evaluation.report import Frame, Report, Strip, open_report, shown
from spike_perception.places.config import DescriptorConfig, SequenceConfig
from spike_perception.places.descriptors import (
    Descriptor,
    DescriptorIdentity,
    create_descriptor,
    descriptor_names,
)
from spike_perception.places.index import PlaceIndex
from spike_perception.places.sequence import match_sequences

MAX_SCORES = 1 << 30
"""Largest score matrix (4 GiB)."""

DEFAULT_LENGTH = 1
"""Frames matched together if --sequence is not given: single frames are the field's baseline."""


@dataclass(frozen=True)
class PlacesEvaluationConfig:
    """Settings of ``evaluate places``."""

    descriptor: DescriptorConfig = field(default_factory=DescriptorConfig)
    sequence: SequenceConfig = field(default_factory=lambda: SequenceConfig(length=DEFAULT_LENGTH))
    tolerance: int = setting(
        1, "frames before and after the true one that count as right", minimum=0, maximum=1_000_000
    )


@dataclass(frozen=True)
class Scored:
    """Scores of every query against every place, as the node would give them.

    Attributes:
        single: float32 ``[Q, P]``, standardised scores of single frames.
        final: float32 ``[Q, P]``, after sequence matching; the same array as ``single`` for
            sequences of length 1.
        seconds: float64 ``[Q]``, time to describe a query and score it against every place, with
            an equal share of the sequence matching; reading and decoding images not counted.
        map_seconds: time to describe all reference images.
    """

    single: npt.NDArray[np.float32]
    final: npt.NDArray[np.float32]
    seconds: npt.NDArray[np.float64]
    map_seconds: float


def score_images(
    reference: ImageSequence,
    query: ImageSequence,
    descriptor: Descriptor,
    sequence: SequenceConfig,
) -> Scored:
    """Describe both drives and score every query against every place, query by query.

    Raises:
        InputError: for an image that cannot be read, or ``too_many_images``.
    """
    if len(reference) * len(query) > MAX_SCORES:
        raise InputError(
            "too_many_images",
            f"{len(query)} queries times {len(reference)} places are more than {MAX_SCORES} "
            "scores; evaluate a part of them",
        )
    index = PlaceIndex(descriptor.kind, descriptor.dimension, exact_bytes=sys.maxsize)
    map_seconds = 0.0
    for k, image in enumerate(_progress(reference, "reference")):
        start = time.perf_counter()
        index.add(np.array([k + 1]), descriptor.describe(image)[None])
        map_seconds += time.perf_counter() - start
    similarity = np.empty((len(query), len(reference)), np.float32)
    seconds = np.empty(len(query))
    for k, image in enumerate(_progress(query, "query")):
        start = time.perf_counter()
        similarity[k] = index.scores(descriptor.describe(image)[None])[0]
        seconds[k] = time.perf_counter() - start
    start = time.perf_counter()
    final = match_sequences(similarity, sequence)
    seconds += (time.perf_counter() - start) / len(query)
    single = (
        final if sequence.length == 1 else match_sequences(similarity, replace(sequence, length=1))
    )
    return Scored(single, final, seconds, map_seconds)


@dataclass(frozen=True)
class PlacesResult:
    """What :func:`evaluate_places` found.

    Attributes:
        figures: every figure by its JSON name.
        final: matches after sequence matching.
        single: matches of single frames; the same object for sequences of length 1.
    """

    figures: dict[str, Any]
    final: Matches
    single: Matches


def evaluate_places(scored: Scored, truth: Truth) -> PlacesResult:
    """Figures of a score matrix under a ground truth; a pure function of the two.

    Args:
        scored: scores ``[Q, P]`` and times.
        truth: bool ``[Q, P]``.
    """
    final = metrics.matches_from_scores(scored.final, truth)
    single = (
        final
        if scored.final is scored.single
        else metrics.matches_from_scores(scored.single, truth)
    )
    total = float(scored.seconds.sum())
    found: dict[str, Any] = metrics.summary(final)
    found["references"] = truth.shape[1]
    found["single_frame"] = metrics.summary(single)
    found["queries_per_second"] = len(scored.seconds) / total if total > 0 else None
    found |= {f"latency_{key}": v for key, v in metrics.percentiles_ms(scored.seconds).items()}
    found["map_seconds"] = scored.map_seconds
    return PlacesResult(found, final, single)


def wrong_matches(matches: Matches, count: int, apart: int) -> list[int]:
    """Queries whose wrong best match scored highest, ``apart`` queries from one another or more."""
    wrong = np.flatnonzero(matches.answered & ~matches.correct)
    chosen: list[int] = []
    for k in wrong[np.argsort(-matches.score[wrong], kind="stable")]:
        if all(abs(int(k) - other) >= apart for other in chosen):
            chosen.append(int(k))
        if len(chosen) == count:
            break
    return chosen


def _wrong_strips(
    reference: Pictures,
    query: Pictures,
    scores: npt.NDArray[np.float32],
    truth: Truth,
    matches: Matches,
) -> Iterator[Strip]:
    for k in wrong_matches(matches, count=12, apart=max(1, len(truth) // 100)):
        place = int(matches.place[k])
        frames = [
            Frame(query.image(k), f"query {query.names[k]}"),
            Frame(
                reference.image(place),
                f"match {reference.names[place]}, score {scores[k, place]:.3f}",
                "wrong",
            ),
        ]
        true = np.flatnonzero(truth[k])
        if len(true):
            best = int(true[scores[k, true].argmax()])
            label = f"true {reference.names[best]}, score {scores[k, best]:.3f}"
            frames.append(Frame(reference.image(best), label, "right"))
        where = (
            f"true place ranks {matches.rank[k] + 1}"
            if matches.rank[k] >= 0
            else ("true place not retrieved" if len(true) else "no true place in the reference")
        )
        yield Strip(f"query {k}, best match {place}; {where}", tuple(frames))


def tell(
    report: Report,
    result: dict[str, Any],
    found: PlacesResult,
    scores: npt.NDArray[np.float32],
    truth: Truth,
    reference: Pictures,
    query: Pictures,
) -> None:
    """Tell a report what was found.

    Args:
        report: the report.
        result: the whole result, as its JSON has it.
        found: what was found.
        scores: float32 ``[Q, P]``, the scores that decided, ``-inf`` where none is known.
        truth: bool ``[Q, P]``.
        reference: pictures of the places.
        query: pictures of the queries.
    """
    figures_ = found.figures
    length = result["config"]["sequence.length"]
    name = f"sequence of {length}" if length > 1 else "single frame"
    both = found.single is not found.final
    runs = {name: found.final} | ({"single frame": found.single} if both else {})
    curves = {label: metrics.precision_recall(matches) for label, matches in runs.items()}

    of = "of all queries" if figures_["queries_matchable"] else metrics.NO_TRUE_PLACE
    report.headline("Recall@1", figures_["recall_at_1"], of)
    report.headline("Recall@5", figures_["recall_at_5"], of)
    report.headline("Average precision", figures_["average_precision"])
    report.headline("Recall at 100 % precision", figures_["recall_at_100_precision"])
    report.headline(
        "Latency",
        f"{figures_['latency_p50_ms']:.2f} ms",
        f"p95 {figures_['latency_p95_ms']:.2f} ms",
    )
    report.headline("Descriptor", f"{result['descriptor_bytes']:,} B", str(result["descriptor"]))
    report.figure(
        "Precision and recall",
        "precision_recall",
        lambda figure, palette: figures.draw_precision_recall(figure, palette, curves),
        note="The best match of every query, accepted above a falling threshold. Recall is the "
        "share of the queries with a match that is recognised, so it ends at recall@1. The dot is "
        "the recall at 100 % precision.",
    )
    report.figure(
        "Recall@K",
        "recall_at_k",
        lambda figure, palette: figures.draw_recall_at_k(figure, palette, runs, truth.shape[1]),
        note="Share of all queries with a true place among the K best.",
    )
    report.figure(
        "Scores of right and wrong matches",
        "scores",
        lambda figure, palette: figures.draw_scores(
            figure, palette, found.final, figures_["f1_max_threshold"]
        ),
        note="The less the two overlap, the better a threshold can tell a known place from an "
        "unknown one.",
    )
    report.figure(
        "Similarity matrix",
        "similarity",
        lambda figure, palette: figures.draw_similarity(
            figure, palette, scores, truth, found.final
        ),
        note="Left, the score of every query (row) against every reference place (column). Right, "
        "the best match of every query over the ground truth.",
        size=(11.0, 5.4),
    )
    rows = [
        [label, *(figures_[key] if where is None else figures_[where][key] for where in columns)]
        for label, key in _TABLE
        for columns in [(None, "single_frame") if both else (None,)]
    ]
    report.table(
        "Figures",
        ["", name, "single frame"][: len(runs) + 1],
        rows,
        note="“Matchable” figures divide by the queries with a true place instead of all queries. "
        "“Tutorial” figures take recall relative to the rightly matched queries, as VPR_Tutorial "
        "and VPRTempo do.",
    )
    report.strips(
        "Most confident wrong matches",
        "wrong_matches",
        _wrong_strips(reference, query, scores, truth, found.final),
        note="Query, best match (red) and the true place (green), highest score first.",
    )


def _tell_configuration(report: Report, result: dict[str, Any]) -> None:
    report.table(
        "Configuration",
        ["setting", "value"],
        [
            *result["config"].items(),
            ("weights", result["weights_id"]),
            ("ground truth", result["ground_truth"]),
            ("command line", result["command_line"]),
            *result["versions"].items(),
            *result["machine"].items(),
        ],
        folded=True,
    )


_TABLE = (
    *((f"Recall@{k}", f"recall_at_{k}") for k in (1, 5, 10, 20)),
    *((f"Recall@{k}, matchable", f"recall_at_{k}_matchable") for k in (1, 5, 10, 20)),
    ("Average precision", "average_precision"),
    ("Area under the curve", "auc_pr"),
    ("Recall at 100 % precision", "recall_at_100_precision"),
    ("Largest F1", "f1_max"),
    ("Threshold of the largest F1", "f1_max_threshold"),
    ("Area under the curve, tutorial", "tutorial_auc_pr"),
    ("Recall at 100 % precision, tutorial", "tutorial_recall_at_100_precision"),
    ("Queries", "queries"),
    ("Queries with a match", "queries_matchable"),
    ("Queries answered", "queries_answered"),
)


def descriptor_figures(descriptor: DescriptorIdentity) -> dict[str, Any]:
    """What is told of a descriptor beside the figures that it reached."""
    floats = descriptor.kind == "float"
    return {
        "descriptor": descriptor.name,
        "descriptor_kind": descriptor.kind,
        "descriptor_dimension": descriptor.dimension,
        "descriptor_bytes": descriptor.dimension * 4 if floats else descriptor.dimension // 8,
        "weights_id": descriptor.weights_id,
    }


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    defaults = PlacesEvaluationConfig()
    for name in ("reference", "query"):
        parser.add_argument(
            name,
            metavar=name.upper(),
            help=f"{name} drive: a folder of images, FILE.zip or FILE.zip/FOLDER, in order of name",
        )
    parser.add_argument(
        "--descriptor",
        default=defaults.descriptor.name,
        help=f"image descriptor: {', '.join(descriptor_names())}",
    )
    parser.add_argument(
        "--sequence",
        type=int,
        default=defaults.sequence.length,
        metavar="L",
        help="frames matched together, the last L of the query; 1: single frames",
    )
    parser.add_argument(
        "--tolerance",
        type=int,
        default=defaults.tolerance,
        metavar="N",
        help="frames before and after the true one that count as right",
    )
    parser.add_argument(
        "--ground-truth",
        metavar="FILE.npy",
        help="0/1 matrix [queries, references], or the index of the true place of every query "
        "(-1: none), or pairs (query, place); without it, frame k matches frame k",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another setting, such as sequence.max_velocity=1.5; may be repeated",
    )
    parser.add_argument("--report", metavar="DIR", help="write report.html, figures and JSON there")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    config = configuration.replace(
        PlacesEvaluationConfig(),
        {
            "descriptor.name": args.descriptor,
            "sequence.length": args.sequence,
            "tolerance": args.tolerance,
            **dict(assignment(each) for each in args.set),
        },
    )
    descriptor = create_descriptor(config.descriptor.name)
    with ImageSequence(args.reference) as reference, ImageSequence(args.query) as query:
        counts = len(query), len(reference)
        if args.ground_truth:
            truth = ground_truth.load(args.ground_truth, *counts, config.tolerance)
        else:
            truth = ground_truth.diagonal(*counts, config.tolerance)
        report = open_report(
            args.report,
            "Place recognition",
            f"{args.query} ({counts[0]:,} queries) in {args.reference} ({counts[1]:,} places)",
        )
        scored = score_images(reference, query, descriptor, config.sequence)
        found = evaluate_places(scored, truth)
        result = {
            **found.figures,
            **descriptor_figures(descriptor),
            "sequence": config.sequence.length,
            "tolerance": config.tolerance,
            "ground_truth": args.ground_truth or f"frame k is frame k ± {config.tolerance}",
            "reference": args.reference,
            "query": args.query,
            "config": configuration.to_flat(config),
            **provenance(),
        }
        tell(report, result, found, scored.final, truth, reference, query)
        _tell_configuration(report, result)
        page = report.write(result)
    emit(args, result, text(result) + (f"\nreport: {page}" if page else ""))
    return 0


def text(result: dict[str, Any]) -> str:
    """The result in a few lines."""
    recalls = "  ".join(f"R@{k} {shown(result[f'recall_at_{k}'])}" for k in (1, 5, 10, 20))
    matchable = "  ".join(
        f"R@{k} {shown(result[f'recall_at_{k}_matchable'])}" for k in (1, 5, 10, 20)
    )
    if not result["queries_matchable"]:
        recalls = matchable = metrics.NO_TRUE_PLACE
    return "\n".join(
        (
            f"{result['queries']:,} queries, {result['references']:,} places, "
            f"{result['descriptor']}, sequence {result['sequence']}, {result['ground_truth']}",
            f"all queries           {recalls}",
            f"queries with a match  {matchable}",
            f"average precision {shown(result['average_precision'])}   "
            f"recall at 100 % precision {shown(result['recall_at_100_precision'])}   "
            f"F1 {shown(result['f1_max'])}",
            f"{shown(result['queries_per_second'])} queries/s   "
            f"p50 {shown(result['latency_p50_ms'])} ms   "
            f"p95 {shown(result['latency_p95_ms'])} ms   "
            f"{result['descriptor_bytes']:,} bytes a descriptor",
        )
    )


def _progress(images: ImageSequence, name: str) -> Iterator[npt.NDArray[np.uint8]]:
    yield from tqdm(images, desc=name, total=len(images), unit="image", disable=None)
