# SPDX-License-Identifier: Apache-2.0
"""Put several place maps of the same descriptor and weights together into a new one."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from spike_perception.cli import add_json, emit
from spike_perception.places.map import NewPlace, PlaceMap


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("maps", type=Path, nargs="+", help="the maps, in order; none is changed")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the new map")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Merge.

    The rule for ids: places are numbered anew, in the order of the maps given and of their ids
    within each; sessions stay apart. The configuration is that of the first map; a calibration is
    not taken over, because it holds for one map. Poses are copied as they are, so maps with poses
    should share their frame.
    """
    parts = []
    with ExitStack() as stack:
        sources = [
            stack.enter_context(PlaceMap.open(path, read_only=True)) for path in arguments.maps
        ]
        for source in sources[1:]:
            source.require(sources[0].descriptor)
        target = stack.enter_context(
            PlaceMap.create(arguments.output, sources[0].descriptor, sources[0].config)
        )
        progress = tqdm(total=sum(map(len, sources)), desc="places", disable=None, leave=False)
        for source in sources:
            first = target.session
            sessions: dict[int, int] = {}
            ids = (target.last_place_id + 1, target.last_place_id + len(source))
            for batch in source.places():
                target.add_many(
                    [
                        NewPlace(
                            place.descriptor,
                            place.stamp_ns,
                            place.frame_id,
                            place.pose,
                            source.thumbnail(place.place_id),
                            sessions.setdefault(place.session, first + len(sessions)),
                        )
                        for place in batch
                    ]
                )
                progress.update(len(batch))
            target.begin_session()
            parts.append({"path": str(source.path), "first_id": ids[0], "last_id": ids[1]})
        progress.close()
        result = {"output": str(target.path), "places": len(target), "parts": parts}
    lines = [f"{p['path']}: now places {p['first_id']} to {p['last_id']}" for p in parts]
    lines.append(f"{result['places']} places in {result['output']}")
    emit(arguments, result, "\n".join(lines))
    return 0
