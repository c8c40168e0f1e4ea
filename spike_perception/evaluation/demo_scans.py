# SPDX-License-Identifier: Apache-2.0
"""The demo's classifiers of LiDAR and events: what they run, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spike_perception.bags.reader import BagReader
from spike_perception.config import Value
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.shipped import VOCABULARIES, shipped_file
from spike_perception.errors import InputError
from spike_perception.evaluation.bag_names import NamedBag
from spike_perception.evaluation.class_answers import VISIBLE_SHARE, JudgedClasses, read_visible
from spike_perception.evaluation.demo_classes import split_words
from spike_perception.evaluation.lidar_truth import MINIMUM_POINTS
from spike_perception.evaluation.report import Report, shown
from spike_perception.simulation.classes import CLASSES, WORDS
from spike_perception.simulation.lidar import Lidar


def find_lidar(bundle: str, bank: str, drive: Path) -> dict[str, Value]:
    """Parameters of the node ``lidar_classifier``: the words of its bank that scans can show.

    Args:
        bundle: as the node's parameter ``model.bundle``.
        bank: as the node's parameter ``vocabulary.bank``.
        drive: the simulated drive.

    Raises:
        InputError: a file is missing or refused, or no word of the scans is in the bank.
    """
    bundle_file, bank_file = shipped_file(bundle).resolve(), shipped_file(bank).resolve()
    encoder_id = Bundle.load(bundle_file).encoder_id
    words, _ = split_words(sorted(scanned_words(drive)), bank_file, encoder_id)
    return {
        "model.bundle": str(bundle_file),
        "vocabulary.bank": str(bank_file),
        "vocabulary.names": ",".join(words),
    }


def find_events(bundle: str, pack: str) -> dict[str, Value]:
    """Parameters of the node ``dvs_classifier``.

    Raises:
        InputError: a file is missing or refused.
    """
    bundle_file = shipped_file(bundle).resolve()
    pack_file = shipped_file(pack, VOCABULARIES).resolve()
    if not pack_file.is_file():
        raise InputError("file_missing", f"there is no vocabulary {pack_file}")
    Bundle.load(bundle_file)
    return {"model.bundle": str(bundle_file), "vocabulary.pack": str(pack_file)}


def scanned_words(drive: Path) -> dict[str, int]:
    """How many objects of each word a drive's scans met with ``MINIMUM_POINTS`` points or more."""
    met: dict[str, int] = {}
    with BagReader(drive) as bag:
        for scan in map(json.loads, bag.texts(Lidar.truth_topic)):
            for each in scan["objects"]:
                word = WORDS.get(each["label"])
                if word and each["points"] >= MINIMUM_POINTS:
                    met[word] = met.get(word, 0) + 1
    return met


def seen_by_class(
    drive: Path, camera: JudgedClasses | None, lidar: NamedBag | None
) -> dict[str, dict[str, Any]]:
    """Of each class of the world: how often each sensor saw it, and how often it was named right.

    Args:
        drive: the simulated drive.
        camera: the judged names of the camera, None without its node.
        lidar: those of the LiDAR, None without its node.
    """
    visible = read_visible(drive, "whole").values()
    scanned = scanned_words(drive) if lidar else {}
    by_camera = camera.figures["class_per_word"] if camera else {}
    by_lidar = lidar.figures["per_class"] if lidar else {}
    return {
        word: {
            "camera_frames": sum(shares.get(word, 0.0) >= VISIBLE_SHARE for shares in visible),
            "camera_judged": by_camera.get(word, {}).get("frames", 0),
            "camera_top_1": by_camera.get(word, {}).get("top_1"),
            "lidar_objects": scanned.get(word, 0),
            "lidar_judged": by_lidar.get(word, {}).get("images", 0),
            "lidar_top_1": by_lidar.get(word, {}).get("top_1"),
        }
        for word in CLASSES
    }


def tell_classes(report: Report, seen: Mapping[str, Mapping[str, Any]]) -> None:
    """Tell which sensor saw each class of the world, and how it was named."""
    report.table(
        "Classes of the world",
        ["class", "camera: frames", "judged", "top-1", "LiDAR: objects", "judged", "top-1"],
        [[word, *each.values()] for word, each in seen.items()],
        note=f"Frames in which a class fills {VISIBLE_SHARE:.0%} of the picture or more; objects "
        f"that a scan met with {MINIMUM_POINTS} points or more; both by the simulator. Judged are "
        "frames that it fills most of, and boxes that hold most of its points.",
    )


def seen_rows(seen: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Lines of the demo's printed table: how many classes of the world each sensor met."""
    met = {
        sensor: sum(each[counted] > 0 for each in seen.values())
        for sensor, counted in (("camera", "camera_frames"), ("LiDAR", "lidar_objects"))
    }
    return [
        (
            f"classes of the world seen by {' / '.join(met)}",
            f"{' / '.join(map(str, met.values()))} of {len(seen)}",
        )
    ]


def tell_events(report: Report, named: NamedBag, pack: str) -> None:
    """Tell what was said of the events, and what that is worth."""
    report.table(
        "Events",
        ["what", "value"],
        [
            ["answers", len(named.answers.stamp_ns)],
            ["called unknown", named.figures["answered_unknown"]],
            ["vocabulary", pack],
            ["meaning of the names here", _meaning(named)],
        ],
        note=f"{_meaning(named).capitalize()}. The answers show the stream from packets to names.",
    )
    named.tell(report)


def _meaning(named: NamedBag) -> str:
    known = {each.casefold() for each in CLASSES}
    shared = [each for each in named.judged.words if each.casefold() in known]
    if shared:
        return f"not judged; words of this world: {', '.join(shared)}"
    return "none: the vocabulary has no word for anything in this world"


def lidar_rows(named: NamedBag) -> list[tuple[str, str]]:
    """Lines of the demo's printed table."""
    found = named.figures
    objects = found["objects"].values()
    seen = sum(each["seen"] for each in objects)
    share = sum(each["seen"] * each["found"] for each in objects) / seen if seen else None
    return [
        ("LiDAR answers / words", f"{len(named.answers.stamp_ns):,} / {len(named.judged.words)}"),
        (f"objects of {MINIMUM_POINTS} points / found", f"{seen:,} / {shown(share)}"),
        ("answers that are one object's", f"{found['images']:,}"),
        ("named right (top-1)", shown(found["top_1"])),
        ("  mean over classes", shown(found["top_1_class_mean"])),
        ("  most frequent class alone", shown(most_frequent(named))),
        ("true name among five (top-5)", shown(found["top_5"])),
    ]


def most_frequent(named: NamedBag) -> float | None:
    """Share of the judged answers that always saying the most frequent class would name right."""
    counts = [each["images"] for each in named.figures["per_class"].values()]
    return max(counts) / sum(counts) if counts else None


def event_rows(named: NamedBag) -> list[tuple[str, str]]:
    """Lines of the demo's printed table."""
    found = named.figures
    return [
        ("event windows answered", f"{len(named.answers.stamp_ns):,}"),
        ("  called unknown", shown(found["answered_unknown"])),
        ("  meaning of the names here", _meaning(named)),
    ]
