# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json

import cv2
import numpy as np
import pytest

from spike_perception.deploy import command_energy
from spike_perception.errors import InputError


def call(*words):
    parser = argparse.ArgumentParser()
    command_energy.configure(parser)
    return command_energy.run(parser.parse_args([str(each) for each in words]))


@pytest.fixture
def file(bundle, tmp_path):
    def make(kind, **settings):
        path = tmp_path / f"{kind}.safetensors"
        bundle(kind, **settings).save(path)
        return path

    return make


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        image = rng.integers(0, 256, (40 + index, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def test_images_to_json(file, images, capsys):
    assert call(file("spikformer"), "--data", images, "--samples", 3, "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert {"student_mj", "ann_twin_mj", "ratio_to_ann_twin", "mean_firing_rate"} <= result.keys()
    assert result["samples"] == 3 and result["estimated"] and "not measured" in result["nature"]
    assert result["ratio_to_ann_twin"] == pytest.approx(
        result["student_mj"] / result["ann_twin_mj"]
    )
    assert 0 < result["mean_firing_rate"] < 4
    assert [each["loose_type"] for each in result["layers"]].count("MAC") == 1
    first = result["layers"][0]
    assert (first["name"], first["loose_type"]) == ("first", "MAC")


def test_the_table_says_that_it_is_an_estimate(file, images, capsys):
    assert call(file("spikformer"), "--data", images) == 0
    text = capsys.readouterr().out
    assert "Estimated" in text and "not measured" in text and "blocks.0.attention.qkv" in text


@pytest.mark.parametrize("kind", ["pointformer", "spike-pointnet"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_points(kind, suffix, file, tmp_path, capsys):
    rng = np.random.default_rng(0)
    path = tmp_path / f"points{suffix}"
    if suffix == ".npy":
        np.save(path, rng.standard_normal((4, 120, 4)))
    else:
        clouds = {"a": rng.standard_normal((120, 4)), "b": rng.standard_normal((2, 30, 4))}
        np.savez(path, **clouds, labels=np.arange(3), names=np.array(["x", "y", "z"]))
    integer = [file(kind), "--data", path, "--json", "-"]
    assert call(*integer) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] == (4 if suffix == ".npy" else 3)
    # Unfolded it costs the same under the loose rule, and spikes count as ACs under the strict one.
    assert call(*integer, "--binary", "--classes", 10, "--teacher-macs", 1e9) == 0
    binary = json.loads(capsys.readouterr().out)
    assert binary["student_mj"] == pytest.approx(result["student_mj"], rel=1e-3)
    assert binary["student_strict_mj"] == pytest.approx(binary["student_mj"], rel=1e-6)
    assert binary["head_mj"] > 0 and binary["teacher_mj"] == pytest.approx(4.6)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not numpy",
        b"PK\x03\x04 broken",
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".txt"])
def test_broken_points_are_refused(content, suffix, file, tmp_path):
    path = tmp_path / f"points{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError):
        call(file("spike-pointnet"), "--data", path)


def test_pickles_and_foreign_arrays_are_refused(file, tmp_path):
    bundle = file("spike-pointnet")
    path = tmp_path / "points.npy"
    wrong = (
        np.array([{"a": 1}], dtype=object),
        np.array(["text"]),
        np.zeros(4),
        np.zeros((0, 5, 4)),
        np.zeros((5, 3)),
        np.full((5, 4), np.nan),
    )
    for each in wrong:
        np.save(path, each, allow_pickle=True)
        with pytest.raises(InputError):
            call(bundle, "--data", path)
    with pytest.raises(InputError):
        call(bundle, "--data", tmp_path / "absent.npy")
    np.save(path, np.zeros((5, 4)))
    with pytest.raises(InputError):
        call(bundle, "--data", path, "--samples", 0)


def test_images_need_images(file, tmp_path):
    with pytest.raises(InputError):
        call(file("spikformer"), "--data", tmp_path / "absent")


def test_real_data(data, file, bundle, tmp_path, capsys):
    """On photographs and scanned objects, where they are at hand."""
    images = data / "flickr8k_128px.zip" / "images"
    assert call(file("spikformer"), "--data", images, "--samples", 8, "--json", "-") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] == 8 and 0 < result["ratio_to_ann_twin"] < 1
    path = tmp_path / "points.safetensors"
    bundle("spike-pointnet", {"channels": ["x", "y", "z"]}, point_features=0).save(path)
    assert call(path, "--data", data / "modelnet40_1024pts.npz", "--samples", 8, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 8
