# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from spike_perception.bags.images import ImageSequence
from spike_perception.errors import InputError
from spike_perception.evaluation import bench_vpr, vpr_peers
from spike_perception.evaluation.bench_vpr import diagonal_mean, score
from spike_perception.evaluation.ground_truth import diagonal
from spike_perception.evaluation.vpr_peers import Options, Traverse

COUNT = 24


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drives past the same textured walls, the second darker, noisy and a little shifted."""
    folder = tmp_path_factory.mktemp("drives")
    rng = np.random.default_rng(3)
    for name in ("day", "night", "short"):
        (folder / name).mkdir()
    for k in range(COUNT):
        wall = cv2.resize(rng.integers(0, 256, (12, 24, 3), np.uint8), (104, 48))
        dark = np.roll(wall, 1, axis=1) * 0.5 + rng.normal(20, 5, wall.shape)
        cv2.imwrite(str(folder / "day" / f"{k}.png"), wall)
        cv2.imwrite(str(folder / "night" / f"{k}.png"), np.clip(dark, 0, 255))
    cv2.imwrite(str(folder / "short" / "0.png"), np.zeros((4, 4, 3), np.uint8))
    return folder


def call(*words: object) -> int:
    parser = argparse.ArgumentParser()
    bench_vpr.configure(parser)
    return bench_vpr.run(parser.parse_args([str(each) for each in words]))


def traverses(drives: Path, last: int) -> list[Traverse]:
    return [Traverse(ImageSequence(drives / name), 0, last) for name in ("day", "night")]


def test_own_descriptors_beside_sad_and_given_features(drives, tmp_path, capsys):
    rng = np.random.default_rng(0)
    places = rng.standard_normal((COUNT, 16))
    asked = places + 0.1 * rng.standard_normal((COUNT, 16))
    np.savez(
        tmp_path / "teacher.npz", reference=places, query=asked, parameters=7, milliseconds=2.5
    )
    options = ["--first", 2, "--last", 21, "--sequence", 4, "--tolerance", 0, "--peers", "sad"]
    options += ["--descriptors", "patch_norm", "patch_norm_bits"]
    options += ["--features", f"teacher={tmp_path / 'teacher.npz'}"]
    options += ["--report", tmp_path / "run", "--json", tmp_path / "result.json"]
    assert call(drives / "day", drives / "night", *options) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == json.loads((tmp_path / "run" / "report.json").read_text())
    rows = {row["method"]: row for row in result["methods"]}
    for name in ("patch_norm", "patch_norm_bits", "sad", "seqslam", "teacher"):
        row = rows[name]
        assert name in printed
        assert row["single"]["queries"] == 20
        assert row["diagonal"]["queries"] == row["matched"]["queries"] == 17
        assert row["diagonal"]["recall_at_1"] >= 0.9
        assert row["matched"]["recall_at_1"] >= 0.9
    assert rows["patch_norm"]["single"]["recall_at_1"] >= 0.9
    assert rows["sad"]["single"]["recall_at_1"] >= 0.8
    assert [rows[n]["descriptor_bytes"] for n in ("patch_norm", "patch_norm_bits", "sad")] == [
        8192,
        256,
        2048,
    ]
    assert (rows["teacher"]["parameters"], rows["teacher"]["milliseconds"]) == (7, 2.5)
    assert rows["sad"]["milliseconds"] > 0
    assert result["skipped"] == {}
    assert {each.name for each in (tmp_path / "run").glob("*.png")} == {
        "recall_at_1.png",
        "precision_recall_single.png",
        "precision_recall_diagonal.png",
        "precision_recall_matched.png",
    }
    page = (tmp_path / "run" / "report.html").read_text()
    assert "seqslam" in page
    assert "bytes a place" in page


def test_single_frames_alone(drives, capsys):
    options = ["--sequence", 1, "--peers", "--descriptors", "patch_norm", "--json", "-"]
    call(drives / "day", drives / "night", *options)
    (row,) = json.loads(capsys.readouterr().out)["methods"]
    assert "diagonal" not in row
    assert "matched" not in row


def test_the_mean_of_the_diagonal():
    similarity = np.arange(20, dtype=np.float32).reshape(4, 5)
    mean = diagonal_mean(similarity, 3)
    assert mean.shape == (2, 3)
    for q in range(2):
        for p in range(3):
            assert mean[q, p] == np.mean([similarity[q + k, p + k] for k in range(3)])
    np.testing.assert_array_equal(diagonal_mean(similarity, 1), similarity)


def test_ranks_do_not_depend_on_the_unit():
    rng = np.random.default_rng(1)
    similarity = (np.eye(30) + 0.4 * rng.standard_normal((30, 30))).astype(np.float32)
    truth = diagonal(30, 30, 0)
    plain, other = (score(np.float32(a) * similarity, truth, 5) for a in (1, 1e4))
    for way in ("single", "diagonal", "matched"):
        np.testing.assert_array_equal(plain[way].place, other[way].place)
    assert plain["diagonal"].correct.mean() > plain["single"].correct.mean()


def test_sad_ignores_light_and_enhancement_centres():
    image = np.random.default_rng(2).integers(0, 256, (64, 128, 3), np.uint8)
    bright = vpr_peers.sad_thumbnail((image // 2 + 100).astype(np.uint8)).astype(int)
    plain = vpr_peers.sad_thumbnail((image // 2).astype(np.uint8)).astype(int)
    assert np.abs(bright - plain).max() <= 2
    assert not vpr_peers.sad_thumbnail(np.full((8, 8, 3), 40, np.uint8)).any()
    similarity = np.random.default_rng(3).standard_normal((3, 40)).astype(np.float32) - 50
    similarity[:, 20:] += 30  # a bright half of the map
    local = vpr_peers.enhanced(similarity)
    row = similarity[1, 5:16]
    assert local[1, 10] == pytest.approx((row[5] - row.mean()) / row.std(), abs=1e-2)
    assert abs(local[:, 30:35].mean()) < 1


def test_features_that_do_not_fit(drives, tmp_path):
    reference, query = traverses(drives, 9)
    path = tmp_path / "f.npz"
    for arrays in (
        {"reference": np.ones((10, 4))},
        {"reference": np.ones((9, 4)), "query": np.ones((10, 4))},
        {"reference": np.ones((10, 4)), "query": np.ones((10, 5))},
        {"reference": np.ones((10, 4), int), "query": np.ones((10, 4), int)},
        {"reference": np.full((10, 4), np.nan), "query": np.ones((10, 4))},
    ):
        np.savez(path, **arrays)
        with pytest.raises(InputError) as refused:
            vpr_peers.from_features(path, "t", reference, query)
        assert refused.value.reason == "features_do_not_fit"
    np.savez(path, reference=np.array([{}]), query=np.ones(3))
    huge = io.BytesIO()  # 2**62 bytes, none of which are there
    shape = {"descr": "<f4", "fortran_order": False, "shape": (1 << 60, 1)}
    np.lib.format.write_array_header_1_0(huge, shape)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as file:
        file.writestr("reference.npy", huge.getvalue())
    several = (path, tmp_path / "none.npz", tmp_path / "huge.npz", drives / "day" / "0.png")
    for wrong in several:
        with pytest.raises(InputError) as refused:
            vpr_peers.from_features(wrong, "t", reference, query)
        assert refused.value.reason == "features_unreadable"


def test_what_cannot_be_measured(drives, tmp_path, capsys):
    day, night = drives / "day", drives / "night"
    for wrong, reason in (
        (["--peers", "none"], "unknown_peer"),
        (["--first", 5, "--last", 4], "invalid_option"),
        (["--last", COUNT], "invalid_option"),
        (["--sequence", 0], "invalid_option"),
        (["--features", "teacher"], "invalid_option"),
        (["--descriptors", "none", "--peers"], "nothing_measured"),
    ):
        with pytest.raises(InputError) as refused:
            call(day, night, *wrong)
        assert refused.value.reason == reason
    with pytest.raises(InputError, match="24 images"):
        call(day, drives / "short")
    options = ["--peers", "vprtempo", "--vprtempo-python", tmp_path / "python"]
    assert call(day, night, "--descriptors", "patch_norm", *options) == 0
    assert "vprtempo not measured" in capsys.readouterr().out


def test_an_interpreter_without_vprtempo(drives, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(InputError, match="pip install vprtempo") as refused:
        vpr_peers.vprtempo(*traverses(drives, 3), Options(vprtempo_python=str(script)))
    assert refused.value.reason == "peer_missing"
    script.write_text('#!/bin/sh\n[ "$2" = -c ] && exit 0\necho "no memory" >&2\nexit 3\n')
    with pytest.raises(InputError, match="no memory") as refused:
        vpr_peers.vprtempo(*traverses(drives, 3), Options(vprtempo_python=str(script)))
    assert refused.value.reason == "peer_failed"


@pytest.mark.slow
def test_vprtempo_learns_a_drive(drives):
    options = Options(vprtempo_python=sys.executable, vprtempo_size=20, vprtempo_epochs=6)
    try:
        (found,) = vpr_peers.vprtempo(*traverses(drives, 11), options)
    except InputError as error:
        if error.reason != "peer_missing":
            raise
        pytest.skip(str(error))
    assert found.similarity.shape == (12, 12)
    assert found.parameters > 400 * 800
    assert (found.similarity.argmax(axis=1) == np.arange(12)).mean() >= 0.5


@pytest.mark.slow
def test_efficientnet_describes(drives):
    try:
        plain, centred = vpr_peers.efficientnet_gem(*traverses(drives, 5), Options())
    except InputError as error:
        assert error.reason == "peer_missing"
        pytest.skip(str(error))
    assert plain.similarity.shape == (6, 6)
    assert plain.descriptor_bytes == 1280 * 4
    assert 3_000_000 < plain.parameters < 4_000_000
    assert plain.similarity.max() <= 1.0001
    assert centred.similarity.mean() < plain.similarity.mean()
