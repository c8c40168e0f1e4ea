# SPDX-License-Identifier: Apache-2.0
"""Estimated energy of a node on a bag: a frame's, or of events a window's.

A camera's network runs once an image. A LiDAR's runs once an object, so a scan's energy is that of
an object times the mean number of objects that the node names in a scan. A network of events runs
once a window, and its state goes on from window to window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spike_perception.bags.event_replay import open_recording
from spike_perception.bags.events import packet_from_cdr
from spike_perception.config import Value, from_flat, settings
from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.deploy.runtime import Features, Runtime, load_runtime, load_stream
from spike_perception.deploy.shipped import MODELS, shipped_file
from spike_perception.errors import InputError
from spike_perception.evaluation.bag_images import BagImages, BagMessages
from spike_perception.evaluation.heard import Times
from spike_perception.evaluation.launchable import CAMERA, EVENTS, LIDAR, PLACES
from spike_perception.evaluation.naming import energy
from spike_perception.evaluation.replayed import Started
from spike_perception.places.descriptors import create_descriptor
from spike_perception.sensing.cluster_input import cluster_points
from spike_perception.sensing.event_views import event_points
from spike_perception.sensing.event_windows import EventConfig, Window, WindowedPackets
from spike_perception.zero_shot.cluster_classifier import ClusterClassifierConfig, choose_objects
from spike_perception.zero_shot.stream import check_stamp

# Images, scans, objects or windows that energy is estimated on, spread evenly over the bag.
SAMPLES = 32
# Figures of an object that grow with the number of objects; ratios and rates do not.
EXTENSIVE = (
    "student_mj",
    "student_strict_mj",
    "ann_twin_mj",
    "neuron_updates",
    "neuron_updates_mj",
    "head_sops",
    "head_mj",
    "total_mj",
    "memory_mj",
    "ann_twin_memory_mj",
)
T = TypeVar("T")


def node_energy(bag: Path, node: Started, times: Times, words: int) -> dict[str, Any] | None:
    """Estimated energy as :func:`~spike_perception.evaluation.naming.energy` gives it.

    ``of`` is "frame" for an image or a scan, "window" for events. Of a scan, ``objects`` is the
    mean number of objects named in it and ``object_mj`` the ``student_mj`` of one.

    Args:
        bag: the bag.
        node: the node and its parameters.
        times: times of its sensor's messages.
        words: rows of its head.

    Returns:
        None for a node that runs no network, where torch is absent, and for a bag without a
        message that the node can use.

    Raises:
        InputError: what reading the bag and loading the bundle raise.
    """
    estimate = {
        PLACES: _of_an_image,
        CAMERA: _of_an_image,
        LIDAR: _of_a_scan,
        EVENTS: _of_a_window,
    }[node.launched]
    return estimate(bag, node, times, words)


def _spread(count: int, most: int = SAMPLES) -> list[int]:
    """At most so many positions, spread evenly over ``count``."""
    return sorted({k * count // most for k in range(most)}) if count else []


def _model(parameters: Mapping[str, Value]) -> tuple[Path, str, str, int]:
    """Arguments to load a classifier's network with."""
    bundle = shipped_file(str(parameters["model.bundle"]), MODELS)
    return bundle, str(parameters["model.engine"]), str(parameters["model.precision"]), 1


def _section(config_type: type[T], parameters: Mapping[str, Value], prefix: str = "") -> T:
    """The part of a node's parameters that is a configuration of its own."""
    paths = [each.path for each in settings(config_type)]
    return from_flat(config_type, {path: parameters[prefix + path] for path in paths})


def _of_an_image(bag: Path, node: Started, times: Times, words: int) -> dict[str, Any] | None:
    if node.launched is PLACES:
        descriptor = create_descriptor(str(node.parameters["descriptor.name"]))
        runtime: Runtime | None = getattr(descriptor, "runtime", None)
    else:
        runtime = load_runtime(*_model(node.parameters))
    if runtime is None:
        return None
    samples = []
    with BagImages(bag, node.topic, times) as images:
        for k in _spread(len(times.stamp_ns)):
            try:
                samples.append(runtime.prepare_images([images.image(k)])[0])
            except InputError:  # such an image is not answered either
                continue
    found = energy(runtime, np.stack(samples), words) if samples else None
    return {**found, "of": "frame"} if found else None


def _of_a_scan(bag: Path, node: Started, times: Times, words: int) -> dict[str, Any] | None:
    scans = list(scanned_objects(bag, node, times))
    objects = [each for scan in scans for each in scan]
    if not objects:
        return None
    runtime = load_runtime(*_model(node.parameters))
    given = runtime.bundle.preprocessing
    samples = np.stack([prepare_points(objects[k], given) for k in _spread(len(objects))])
    found = energy(runtime, samples, words)
    return of_objects(found, len(objects) / len(scans)) if found else None


def of_objects(energy: Mapping[str, Any], objects: float) -> dict[str, Any]:
    """The energy of a frame with so many objects, from that of one object."""
    frame = {key: energy[key] * objects for key in EXTENSIVE}
    return {
        **energy,
        **frame,
        "of": "frame",
        "objects": objects,
        "object_mj": energy["student_mj"],
    }


def scanned_objects(bag: Path, node: Started, times: Times) -> Iterator[list[Features]]:
    """Yield the objects that the LiDAR node names in scans spread over the bag.

    Scans that the node refuses are passed over.

    Yields:
        A scan's objects, float32 ``[P, 3]`` each (m), as the node gives them to its network.
    """
    from spike_perception.nodes.clouds import points_of

    config = _section(ClusterClassifierConfig, node.parameters)
    most = int(node.parameters["points.max_points"])
    with BagMessages(bag, node.topic, times) as messages:
        for k in _spread(len(times.stamp_ns)):
            try:
                check_stamp(int(times.stamp_ns[k]), "scans")
                xyz = points_of(messages.message(k), most).xyz
            except InputError:
                continue
            named, _ = choose_objects(xyz, config)
            yield [cluster_points(xyz, each) for each in named]


def _of_a_window(bag: Path, node: Started, times: Times, words: int) -> dict[str, Any] | None:
    runtime = load_stream(*_model(node.parameters))
    steps, given = runtime.bundle.timesteps, runtime.bundle.preprocessing
    runs = [
        np.stack([prepare_points(each, given) for each in run])
        for run in window_runs(bag, node, times, steps, int(given["points"]))
    ]
    return energy(runtime, np.stack(runs), words) if runs else None


def window_runs(
    bag: Path, node: Started, times: Times, steps: int, points: int
) -> Iterator[list[Features]]:
    """Yield runs of windows that the events node cuts, begun in places spread over the bag.

    Packets that the node refuses are passed over, and break a run as they break the node's. Of a
    bag too short for a whole run its last windows are the only one.

    Args:
        bag: the bag.
        node: the node and its parameters.
        times: times of its packets.
        steps: T, windows in a run.
        points: of a window.

    Yields:
        T windows that follow on each other, float32 ``[points, 4]`` each; at most ``SAMPLES`` in
        all runs, but one run at least.
    """
    windows = WindowedPackets(_section(EventConfig, node.parameters, "events."))
    starts = _spread(len(times.stamp_ns), max(1, SAMPLES // steps))
    run: list[Features] | None = None
    whole = 0
    with open_recording(bag) as recording:
        for k, message in enumerate(recording.raw([node.topic])):
            if run is None:
                if k < starts[whole]:
                    continue
                windows.reset()
                run = []
            closed, continues = _feed(windows, message.data)
            size = windows.stream.width, windows.stream.height
            run = [*(run if continues else ()), *_clouds(closed, size, points)]
            if len(run) >= steps:
                yield run[:steps]
                whole, run = whole + 1, None
                if whole == len(starts):
                    return
    if run and not whole:
        yield run


def _clouds(windows: list[Window], size: tuple[int, int], points: int) -> list[Features]:
    return [event_points(each.events, *size, points) for each in windows]


def _feed(windows: WindowedPackets, data: bytes) -> tuple[list[Window], bool]:
    """What the next packet closes, as :meth:`WindowedPackets.feed`; a refused one is a break."""
    try:
        stamped = packet_from_cdr(data)
        check_stamp(stamped.stamp_ns, "events")
        return windows.feed(stamped.packet)
    except InputError:
        windows.reset()
        return [], False
