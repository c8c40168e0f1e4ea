# SPDX-License-Identifier: Apache-2.0
"""Set the thresholds of a place map from labelled traverses, and keep them in the map."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from spike_perception.cli import add_json, emit
from spike_perception.config import from_flat
from spike_perception.errors import InputError
from spike_perception.places.calibration import (
    Calibration,
    calibrate_from_labels,
    calibrate_from_map,
)
from spike_perception.places.config import DecisionConfig, RecognitionConfig, SequenceConfig
from spike_perception.places.index import PlaceIndex
from spike_perception.places.map import PlaceMap
from spike_perception.places.retrieval import retrieve
from spike_perception.places.sequence import (
    SequenceMatcher,
    session_bounds,
    standardise,
)
from spike_perception.places.table import PlaceTable


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("map", type=Path, help="the place map")
    parser.add_argument(
        "--query",
        type=Path,
        help="a second traverse of the same surroundings as a place map with poses in the same "
        "frame; without it the map calibrates itself, as it does whenever it is opened",
    )
    parser.add_argument("--precision", type=float, default=0.99, help="share that must be right")
    parser.add_argument(
        "--tolerance", type=float, default=5.0, help="distance at which a match is right (m)"
    )
    parser.add_argument(
        "--length", type=int, default=None, help="sequence length (default: the map's own)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print, but change no map")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Calibrate, and store the result unless ``--dry-run``."""
    if not 0.0 < arguments.precision <= 1.0:
        raise InputError("invalid_option", "--precision is a share, greater than 0 and at most 1")
    with PlaceMap.open(arguments.map, read_only=arguments.dry_run) as place_map:
        sequence, decision = _settings(place_map, arguments.length)
        index, table = _load(place_map)
        if arguments.query is None:
            found = calibrate_from_map(index, table.layout(), sequence, decision)
        else:
            with PlaceMap.open(arguments.query, place_map.descriptor, read_only=True) as traverse:
                found = _from_traverse(
                    index,
                    table,
                    traverse,
                    sequence,
                    decision,
                    arguments.precision,
                    arguments.tolerance,
                )
        if not arguments.dry_run:
            place_map.set_calibration(found.to_dict())
    text = (
        f"sequences of {found.length}: score at least {found.threshold:.3f}, lead at least "
        f"{found.margin:.3f} (source {found.source}, {found.answers} answers)"
    )
    emit(arguments, {"map": str(arguments.map), **found.to_dict()}, text)
    return 0


def _settings(place_map: PlaceMap, length: int | None) -> tuple[SequenceConfig, DecisionConfig]:
    """The map's own settings, as far as this release knows them."""
    stored: dict[str, Any] = {
        key: value
        for key, value in place_map.config.items()
        if key.startswith(("sequence.", "decision."))
    }
    if length is not None:
        stored["sequence.length"] = length
    config = from_flat(RecognitionConfig, stored)
    return config.sequence, config.decision


def _load(place_map: PlaceMap) -> tuple[PlaceIndex, PlaceTable]:
    index = PlaceIndex(place_map.descriptor.kind, place_map.descriptor.dimension)
    table = PlaceTable()
    for batch in place_map.places():
        ids = np.array([place.place_id for place in batch], dtype=np.int64)
        index.add(ids, np.stack([place.descriptor for place in batch]))
        table.append(batch)
    return index, table


def _from_traverse(
    index: PlaceIndex,
    table: PlaceTable,
    traverse: PlaceMap,
    sequence: SequenceConfig,
    decision: DecisionConfig,
    precision: float,
    tolerance: float,
) -> Calibration:
    layout, bounds = table.layout(), session_bounds(table.session)
    matcher = SequenceMatcher(sequence)
    scores, margins, correct = [], [], []
    session = None
    for batch in traverse.places():
        for query in batch:
            if query.session != session:
                session = query.session
                matcher.reset()
            row = standardise(index.scores(query.descriptor[None]))[0]
            matched = matcher.evaluate(row, bounds)
            warm = len(matcher) == sequence.length - 1
            matcher.push(row)
            if not warm or query.pose is None:
                continue
            found = retrieve(
                matched[None],
                None,
                1,
                window=decision.neighbourhood,
                radius=decision.same_place_m,
                layout=layout,
            )
            pose = table.pose(int(found.columns[0, 0])) if len(index) else None
            scores.append(found.scores[0, 0])
            margins.append(found.margin[0])
            correct.append(pose is not None and query.pose.distance_to(pose) <= tolerance)
    if not any(correct):
        raise InputError(
            "calibration_impossible",
            f"no query of {traverse.path} has a right answer within {tolerance:g} m; both maps "
            "need poses in the same frame, and the traverses must overlap",
        )
    return calibrate_from_labels(
        np.array(scores, dtype=np.float32),
        np.array(margins, dtype=np.float32),
        np.array(correct, dtype=bool),
        precision,
        sequence.length,
        len(index),
    )
