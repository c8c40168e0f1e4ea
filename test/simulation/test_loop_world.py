# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ctypes

import pytest

from spike_perception.simulation.command import WORLDS
from spike_perception.simulation.loop_world import write_world
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import load_world


def test_the_shipped_files_are_what_the_code_writes(tmp_path):
    write_world(tmp_path)
    written = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert len(written) > 20
    assert sum(map(len, written.values())) < 300_000
    for path, content in written.items():
        assert (WORLDS / path).read_bytes() == content, f"{path}: run loop_world again"


def test_sdformat_finds_the_world_valid():
    try:
        sdformat = ctypes.CDLL("libsdformat12.so.12")
    except OSError:
        pytest.skip("libsdformat12 is absent: apt-get install libsdformat12-12 sdformat-sdf")
    assert sdformat.cmdCheck(str(WORLDS / "loop.sdf").encode()) == 0


def test_sdformat_would_find_a_fault(tmp_path):
    try:
        sdformat = ctypes.CDLL("libsdformat12.so.12")
    except OSError:
        pytest.skip("libsdformat12 is absent: apt-get install libsdformat12-12 sdformat-sdf")
    text = (WORLDS / "loop.sdf").read_text().replace('name="table_1"', 'name="chair_1"')
    (tmp_path / "bad.sdf").write_text(text)
    assert sdformat.cmdCheck(str(tmp_path / "bad.sdf").encode()) != 0


def test_every_object_is_named_after_its_class():
    world = load_world(WORLDS / "loop.sdf")
    labels = {model.label for model in world.models}
    assert {"chair", "table", "car", "person", "tree", "bench", "box", "traffic cone"} <= labels
    scene = Scene(world)
    assert set(scene.labels.values()) == labels
    assert scene.model.ngeom == sum(
        len(link.visuals) for model in world.models for link in model.links
    )
