# SPDX-License-Identifier: Apache-2.0
"""Write a place map out as plain files: descriptors.npy, places.csv, manifest.json, thumbnails."""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from spike_perception.cli import add_json, emit
from spike_perception.errors import InputError
from spike_perception.places.map import PlaceMap

COLUMNS = ("place_id", "session", "stamp_ns", "frame_id", "pose_frame_id")
POSE = ("x_m", "y_m", "z_m", "qx", "qy", "qz", "qw")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("map", type=Path, help="the place map")
    parser.add_argument("folder", type=Path, help="folder to make; it must not exist or be empty")
    parser.add_argument("--no-thumbnails", action="store_true", help="leave the pictures out")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export; row n of descriptors.npy is line n of places.csv."""
    folder: Path = arguments.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("not_empty", f"{folder} exists and is not empty; choose a new folder")
    with PlaceMap.open(arguments.map, read_only=True) as place_map:
        info = place_map.info()
        bits = place_map.descriptor.kind == "bits"
        width = place_map.descriptor.dimension // 8 if bits else place_map.descriptor.dimension
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pictures = 0 if arguments.no_thumbnails else _thumbnails(place_map, folder)
            # Written through a mapping: a large map does not fit into memory twice.
            descriptors = (
                np.lib.format.open_memmap(
                    folder / "descriptors.npy",
                    mode="w+",
                    dtype=np.uint8 if bits else np.float32,
                    shape=(len(place_map), width),
                )
                if len(place_map)
                else np.empty((0, width), np.uint8 if bits else np.float32)
            )
            with (folder / "places.csv").open("w", newline="", encoding="utf-8") as stream:
                table = csv.writer(stream)
                table.writerow((*COLUMNS, *POSE))
                row = 0
                progress = tqdm(total=len(place_map), desc="places", disable=None, leave=False)
                for batch in place_map.places():
                    for place in batch:
                        descriptors[row] = place.descriptor
                        pose = place.pose
                        numbers = (*pose.position, *pose.orientation) if pose else ("",) * 7
                        frame = pose.frame_id if pose else ""
                        table.writerow(
                            (
                                place.place_id,
                                place.session,
                                place.stamp_ns,
                                place.frame_id,
                                frame,
                                *numbers,
                            )
                        )
                        row += 1
                    progress.update(len(batch))
                progress.close()
            if isinstance(descriptors, np.memmap):
                descriptors.flush()
            else:
                np.save(folder / "descriptors.npy", descriptors)
            manifest = {
                key: info[key]
                for key in ("map_id", "schema", "created_ns", "descriptor", "kind", "dimension")
            }
            manifest |= {
                "weights_id": info["weights_id"],
                "places": info["places"],
                "calibration": info["calibration"],
                "config": place_map.config,
            }
            text = json.dumps(manifest, indent=2, allow_nan=False)
            (folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError("not_writable", f"cannot write to {folder}: {error}") from error
    result = {"folder": str(folder), "places": row, "thumbnails": pictures}
    emit(arguments, result, f"{row} places and {pictures} thumbnails written to {folder}")
    return 0


def _thumbnails(place_map: PlaceMap, folder: Path) -> int:
    written = 0
    for place_id in place_map.ids().tolist():
        picture = place_map.thumbnail(place_id)
        if picture is not None:
            (folder / "thumbnails").mkdir(exist_ok=True)
            (folder / "thumbnails" / f"{place_id}.jpg").write_bytes(picture)
            written += 1
    return written
