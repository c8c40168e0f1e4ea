# SPDX-License-Identifier: Apache-2.0
"""Energy of the nodes on a bag, against the student run by hand on what the nodes would take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spike_perception.bags.event_replay import open_recording
from spike_perception.bags.writer import BagWriter
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.preprocessing import prepare_points
from spike_perception.evaluation.bag_energy import node_energy, scanned_objects, window_runs
from spike_perception.evaluation.heard import read_times
from spike_perception.evaluation.launchable import EVENTS, LIDAR, PLACES, Launchable
from spike_perception.evaluation.node_parameters import resolve
from spike_perception.evaluation.replayed import Started, hearing
from spike_perception.sensing.cluster_input import cluster_points
from spike_perception.sensing.clusters import find_clusters
from spike_perception.sensing.event_packets import EventPacker
from spike_perception.sensing.event_views import event_points

WINDOW_NS = 10_000_000
STEPS, POINTS = 6, 128  # of the tiny bundle for events
WORDS = 4


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    pytest.importorskip("rclpy")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def started(bag: Path, launched: Launchable, *settings: str) -> Started:
    with open_recording(bag) as recording:
        node = hearing(recording, launched, resolve(launched, settings, {}))
    assert node is not None
    return node


def estimated(bag: Path, node: Started):
    return node_energy(bag, node, read_times(bag, node.topic), WORDS)


def counted(bundle: Path, samples):
    """The energy report of the student itself on samples that are grouped by it."""
    import torch

    from spike_perception.deploy.network import student_of
    from spike_perception.spiking.energy import energy_report

    return energy_report(student_of(Bundle.load(bundle)), torch.from_numpy(samples), WORDS)


def scan_bag(path: Path, scans) -> Path:
    """Scans, the first without a stamp."""
    with BagWriter(path) as bag:
        for k, xyz in enumerate(scans):
            bag.point_cloud("/lidar/points", k * 100_000_000, "lidar", xyz)
    return path


@pytest.mark.parametrize("most", [24, 2])
def test_a_scan_takes_the_energy_of_its_objects(tmp_path, lidar_files, scan_of, most):
    seen = [scan_of(0, 1, 2), scan_of(1), scan_of()]
    refused = np.full((2, 3), np.nan, np.float32), scan_of(0, 1, 2, 3)
    bag = scan_bag(tmp_path / "bag", [scan_of(3, 4), *seen, *refused])
    node = started(
        bag,
        LIDAR,
        *(f"model.bundle={lidar_files.bundle}", f"objects.most={most}"),
        f"points.max_points={len(refused[1]) - 1}",
    )
    found = estimated(bag, node)
    inputs = [cluster_points(x, each) for x in seen for each in find_clusters(x)[:most]]
    assert len(inputs) == min(most, 3) + 1
    given = Bundle.load(lidar_files.bundle).preprocessing
    one = counted(lidar_files.bundle, np.stack([prepare_points(each, given) for each in inputs]))
    assert found["of"] == "frame"
    assert found["objects"] == pytest.approx(len(inputs) / len(seen))
    assert found["object_mj"] == pytest.approx(one.student_mj)
    for name in ("student_mj", "ann_twin_mj", "head_mj", "total_mj"):
        assert found[name] == pytest.approx(getattr(one, name) * len(inputs) / len(seen))
        assert found[name] > 0
    assert found["ratio_to_ann_twin"] == pytest.approx(one.ratio_to_ann_twin)
    assert found["samples"] == len(inputs)


def test_scans_and_objects_are_spread_over_the_bag(tmp_path, lidar_files, scan_of):
    scans = [scan_of(), *[scan_of(1)] * 31, *[scan_of(0, 1)] * 32]
    bag = scan_bag(tmp_path / "bag", scans)
    node = started(bag, LIDAR, f"model.bundle={lidar_files.bundle}")
    objects = [len(each) for each in scanned_objects(bag, node, read_times(bag, node.topic))]
    assert objects == [1] * 15 + [2] * 16  # every other scan but the first, which has no stamp
    assert estimated(bag, node)["samples"] == 32


def test_a_bag_without_objects_says_nothing_of_energy(tmp_path, lidar_files, scan_of):
    for name, scans in (("empty", [scan_of()] * 3), ("refused", [scan_of(0)])):
        bag = scan_bag(tmp_path / name, scans)
        node = started(bag, LIDAR, f"model.bundle={lidar_files.bundle}")
        assert estimated(bag, node) is None


def event_bag(path: Path, files, bursts: int, lost=(), unstamped=()) -> Path:
    """A packet of each burst, a window's length apart; some are lost, some without a stamp."""
    pack = EventPacker(*files.size)
    with BagWriter(path) as bag:
        for k in range(bursts):
            stamp_ns = (k + 1) * WINDOW_NS
            packet = pack(files.burst(k, start_ns=stamp_ns))
            if k not in lost:
                header_ns = 0 if k in unstamped else stamp_ns
                bag.event_packet("/events", stamp_ns, header_ns, "event_camera", packet)
    return path


def listening(bag: Path, files, *settings: str) -> Started:
    window = f"events.window.duration_ms={WINDOW_NS / 1e6}", "events.window.overlap=0.0"
    return started(
        bag,
        EVENTS,
        *(*window, "events.noise.filter=none", f"model.bundle={files.bundle}", *settings),
    )


def windows_of(files, *numbers: int) -> np.ndarray:
    return np.stack([event_points(files.burst(k), *files.size, POINTS) for k in numbers])


def runs(bag: Path, node: Started) -> list[np.ndarray]:
    times = read_times(bag, node.topic)
    return [np.stack(each) for each in window_runs(bag, node, times, STEPS, POINTS)]


@pytest.mark.parametrize("bursts", [8, 4])
def test_a_window_takes_its_share_of_a_run(tmp_path, event_files, bursts):
    bag = event_bag(tmp_path / "bag", event_files, bursts)
    found = estimated(bag, listening(bag, event_files))
    windows = min(bursts - 1, STEPS)  # the packet behind a window closes it
    run = counted(event_files.bundle, windows_of(event_files, *range(windows))[None])
    assert found["of"] == "window"
    assert found["student_mj"] == pytest.approx(run.student_mj / windows)
    assert found["ann_twin_mj"] == pytest.approx(run.ann_twin_mj)
    assert found["ratio_to_ann_twin"] == pytest.approx(run.ratio_to_ann_twin / windows)
    assert found["head_mj"] > 0
    assert found["samples"] == 1


def test_runs_of_windows_are_spread_over_the_bag(tmp_path, event_files):
    bag = event_bag(tmp_path / "bag", event_files, 60)
    found = runs(bag, listening(bag, event_files))
    assert len(found) == 32 // STEPS
    for first, run in zip((0, 12, 24, 36, 48), found, strict=True):
        np.testing.assert_array_equal(run, windows_of(event_files, *range(first, first + STEPS)))
    sparse = listening(bag, event_files, "events.window.min_events=601")
    assert estimated(bag, sparse) is None


@pytest.mark.parametrize("broken", ["lost", "unstamped"])
def test_a_break_of_the_stream_breaks_a_run(tmp_path, event_files, broken):
    bag = event_bag(tmp_path / "bag", event_files, 10, **{broken: (2,)})
    (run,) = runs(bag, listening(bag, event_files))
    np.testing.assert_array_equal(run, windows_of(event_files, *range(3, 9)))


def test_packets_that_are_refused_say_nothing_of_energy(tmp_path, event_files):
    bag = event_bag(tmp_path / "bag", event_files, 4, unstamped=range(4))
    assert estimated(bag, listening(bag, event_files)) is None


def test_a_node_without_a_network_has_no_energy(tmp_path):
    with BagWriter(tmp_path / "bag") as bag:
        bag.image("/front/image", WINDOW_NS, "camera", np.zeros((8, 8, 3), np.uint8))
    node = started(tmp_path / "bag", PLACES, "descriptor.name=patch_norm")
    assert estimated(tmp_path / "bag", node) is None
