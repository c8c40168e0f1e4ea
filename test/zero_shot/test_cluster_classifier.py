# SPDX-License-Identifier: Apache-2.0
"""The core of lidar_classifier: over a tiny bundle, and over real scans where there are any."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from spike_perception.config import from_flat
from spike_perception.errors import InputError
from spike_perception.zero_shot.cluster_classifier import (
    ClusterClassifier,
    ClusterClassifierConfig,
)

SECOND = 1_000_000_000


@pytest.fixture
def make(lidar_files, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))

    def load(**changes):
        given = {
            "model.bundle": str(lidar_files.bundle),
            "vocabulary.pack": str(lidar_files.pack),
            "vocabulary.bank": str(lidar_files.bank),
        }
        given |= {k.replace("__", "."): v for k, v in changes.items()}
        return ClusterClassifier.load(from_flat(ClusterClassifierConfig, given))

    return load


def names(scan) -> list[str]:
    return [each.decision.name for each in scan.answers]


def test_objects_get_their_words_nearest_first_and_others_are_unknown(make, scan_of):
    seen = make().observe(scan_of(0, 1, 2, 3, 4), SECOND)
    assert names(seen) == ["cyclist", "pedestrian", "car", "", "truck"]
    assert seen.left_out == 0
    assert seen.clusters[2].box.size == pytest.approx((4.2, 1.8, 1.5), abs=0.02)
    assert seen.clusters[2].box.centre[:2] == pytest.approx((8.0, 0.0), abs=0.02)


def test_all_objects_of_a_scan_are_one_inference(make, scan_of, monkeypatch):
    classifier = make()
    batches, infer = [], classifier.runtime.infer
    monkeypatch.setattr(
        classifier.runtime, "infer", lambda batch: batches.append(len(batch)) or infer(batch)
    )
    classifier.observe(scan_of(0, 1, 2), SECOND)
    assert batches == [3]


def test_too_many_objects_are_counted_and_the_first_are_named(make, scan_of):
    nearest = make(objects__most=2).observe(scan_of(0, 1, 3), SECOND)
    assert (names(nearest), nearest.left_out) == (["pedestrian", "car"], 1)
    nearer = make(objects__most=1, clusters__max_objects=2).observe(scan_of(0, 1, 3), SECOND)
    assert (names(nearer), nearer.left_out) == (["pedestrian"], 2)
    most = make(objects__most=1, objects__first="largest")
    every_other = np.concatenate([scan_of(3), scan_of(1)[::2]])
    assert names(most.observe(every_other, SECOND)) == ["truck"]


def test_an_empty_road_has_no_objects(make, scan_of):
    classifier = make()
    seen = classifier.observe(scan_of(), SECOND)
    assert (seen.clusters, seen.answers, seen.left_out) == ((), (), 0)
    assert classifier.counts() == {}


def test_settings_words_and_stamps(make, scan_of, lidar_files):
    classifier = make()
    assert classifier.set_names(["auto", "truck"]).pack.names == ("auto", "truck")
    assert names(classifier.observe(scan_of(0, 1), SECOND)) == ["", "auto"]
    assert classifier.counts() == {"known": 1, "below_threshold": 1}
    flat = {"model.bundle": str(lidar_files.bundle), "clusters.min_length": 1.0}
    classifier.configure(from_flat(ClusterClassifierConfig, flat))
    assert names(classifier.observe(scan_of(0, 1), SECOND)) == ["auto"]
    for stamp, reason in ((0, "zero_stamp"), (SECOND - 1, "stamp_out_of_order")):
        with pytest.raises(InputError) as refused:
            classifier.observe(scan_of(0), stamp)
        assert refused.value.reason == reason
    classifier.reset()
    assert names(classifier.observe(scan_of(0), 1)) == ["auto"]


def test_a_bundle_of_images_is_refused(make, camera_files):
    with pytest.raises(InputError) as refused:
        make(model__bundle=str(camera_files.bundle), vocabulary__pack=str(camera_files.pack))
    assert refused.value.reason == "wrong_kind"


def kitti_frames(data):
    """Scan [N, 3] and labelled boxes (kind, rows of the points inside) of each KITTI frame."""
    path = data / "kitti_3frames.zip"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with zipfile.ZipFile(path) as archive:
        scans = sorted(name for name in archive.namelist() if name.endswith(".bin"))
        for name in scans:
            xyz = np.frombuffer(archive.read(name), "<f4").reshape(-1, 4)[:, :3]
            stem = name.rsplit("/", 1)[-1].removesuffix(".bin")
            texts = {
                part: archive.read(
                    next(n for n in archive.namelist() if part in n and n.endswith(f"{stem}.txt"))
                ).decode()
                for part in ("calib", "label_2")
            }
            yield name, xyz, list(_inside(xyz, texts["calib"], texts["label_2"]))


def _inside(xyz, calib: str, labels: str):
    """Kind and points of every labelled box that is an object."""
    rows = dict(line.split(":", 1) for line in calib.splitlines() if ":" in line)
    to_camera = np.array(rows["Tr_velo_to_cam"].split(), float).reshape(3, 4)
    rectify = np.array(rows["R0_rect"].split(), float).reshape(3, 3)
    camera = (xyz @ to_camera[:, :3].T + to_camera[:, 3]) @ rectify.T
    for line in io.StringIO(labels):
        kind, *numbers = line.split()
        if kind == "DontCare":
            continue
        height, width, length, x, y, z, turn = map(float, numbers[7:14])
        off = camera - (x, y, z)
        along = off[:, 0] * np.cos(turn) - off[:, 2] * np.sin(turn)
        across = off[:, 0] * np.sin(turn) + off[:, 2] * np.cos(turn)
        inside = (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)
        yield kind, np.flatnonzero(inside & (off[:, 1] <= 0) & (off[:, 1] >= -height))


def test_labelled_cars_and_pedestrians_are_each_one_named_cluster(make, data):
    """KITTI, objects of at least 50 points: one cluster holds 70 % of each, and little else.

    Of what lies in a labelled box, the road's points belong to no cluster.
    """
    classifier = make(objects__most=256)
    looked_at = []
    for number, (name, xyz, objects) in enumerate(kitti_frames(data)):
        seen = classifier.observe(np.ascontiguousarray(xyz), SECOND * (number + 1))
        assert len(seen.answers) == len(seen.clusters)
        for kind, rows in objects:
            if kind not in ("Car", "Pedestrian") or len(rows) < 50:
                continue
            shared = [len(np.intersect1d(rows, each.rows)) for each in seen.clusters]
            best = int(np.argmax(shared))
            overlap = shared[best] / len(rows)
            own = shared[best] / len(seen.clusters[best].rows)
            looked_at.append((name, kind, len(rows), overlap, own))
    assert looked_at
    assert all(overlap >= 0.7 and own >= 0.9 for *_, overlap, own in looked_at), looked_at
