# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.places.commands import calibrate, export, inspect, merge
from spike_perception.places.map import MapDescriptor, NewPlace, PlaceMap
from spike_perception.places.types import Pose

DESCRIPTOR = MapDescriptor("tiny", "float", 64, "weights-a")


def run(command: ModuleType, *words: object, capsys: pytest.CaptureFixture) -> dict:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args([*map(str, words), "--json", "-"])) == 0
    return json.loads(capsys.readouterr().out)


def road(path: Path, places: int, noise_seed: int | None = None, first: int = 0) -> Path:
    vectors = np.random.default_rng(1).standard_normal((500, 64))[first : first + places]
    if noise_seed is not None:
        vectors = vectors + 0.5 * np.random.default_rng(noise_seed).standard_normal((places, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    with PlaceMap.create(path, DESCRIPTOR, {"sequence.length": 5}) as place_map:
        place_map.add_many(
            [
                NewPlace(v, n + 1, "cam", Pose((first + n, 0, 0)), bytes([n % 256]))
                for n, v in enumerate(vectors)
            ]
        )
    return path


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = road(tmp_path / "a.db", 12)
    found = run(inspect, path, capsys=capsys)
    assert (found["places"], found["descriptor"], found["weights_id"]) == (12, "tiny", "weights-a")
    assert found["config"] == {"sequence.length": 5}
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError) as error:
        run(inspect, path, capsys=capsys)
    assert error.value.reason == "map_corrupt"
    assert path.exists()  # looking at a map never moves it


def test_export_holds_everything(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, folder = road(tmp_path / "a.db", 12), tmp_path / "out"
    with PlaceMap.open(path) as place_map:
        place_map.remove([3])
        place_map.add(np.ones(64, dtype=np.float32), 99)
    assert run(export, path, folder, capsys=capsys)["places"] == 12
    vectors = np.load(folder / "descriptors.npy", allow_pickle=False)
    with (folder / "places.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(r["place_id"]) for r in rows] == [1, 2, *range(4, 14)]
    with PlaceMap.open(path, read_only=True) as place_map:
        for vector, row in zip(vectors, rows, strict=True):
            place = place_map.get(int(row["place_id"]))
            np.testing.assert_array_equal(vector, place.descriptor)
            assert float(row["x_m"] or -1) == (place.pose.position[0] if place.pose else -1)
    assert (folder / "thumbnails" / "4.jpg").read_bytes() == b"\x03"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["descriptor"], manifest["places"]) == ("tiny", 12)
    with pytest.raises(InputError) as error:
        run(export, path, folder, capsys=capsys)
    assert error.value.reason == "not_empty"


def test_export_of_an_empty_map(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = road(tmp_path / "a.db", 0)
    assert run(export, path, tmp_path / "out", capsys=capsys)["places"] == 0
    assert np.load(tmp_path / "out" / "descriptors.npy").shape == (0, 64)


def test_merge_numbers_anew_and_keeps_sessions_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first, second = road(tmp_path / "a.db", 5), road(tmp_path / "b.db", 4, first=100)
    with PlaceMap.open(first) as place_map:
        place_map.remove([2])
        place_map.begin_session()
        place_map.add(np.ones(64, dtype=np.float32), 99)
    merged = tmp_path / "c.db"
    found = run(merge, first, second, "-o", merged, capsys=capsys)
    assert found["places"] == 9
    assert [(p["first_id"], p["last_id"]) for p in found["parts"]] == [(1, 5), (6, 9)]
    with PlaceMap.open(merged, DESCRIPTOR, read_only=True) as place_map:
        places = [p for batch in place_map.places() for p in batch]
        assert place_map.thumbnail(6) == b"\x00"
        assert place_map.config == {"sequence.length": 5}
    assert [p.session for p in places] == [1] * 4 + [2] + [3] * 4
    assert places[5].pose == Pose((100, 0, 0))
    with pytest.raises(InputError) as error:
        run(merge, first, second, "-o", merged, capsys=capsys)
    assert error.value.reason == "map_exists"


def test_merge_refuses_other_weights_before_it_makes_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = road(tmp_path / "a.db", 5)
    PlaceMap.create(tmp_path / "b.db", MapDescriptor("tiny", "float", 64, "weights-b")).close()
    with pytest.raises(InputError) as error:
        run(merge, first, tmp_path / "b.db", "-o", tmp_path / "c.db", capsys=capsys)
    assert error.value.reason == "map_other_weights"
    assert not (tmp_path / "c.db").exists()


def test_calibrate_by_a_second_traverse(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = road(tmp_path / "a.db", 100)
    # Half of the second traverse lies beyond the map.
    query = road(tmp_path / "b.db", 120, noise_seed=2, first=40)
    dry = run(calibrate, path, "--query", query, "--dry-run", "--tolerance", 2, capsys=capsys)
    with PlaceMap.open(path, read_only=True) as place_map:
        assert place_map.calibration is None
    found = run(calibrate, path, "--query", query, "--tolerance", 2, capsys=capsys)
    assert found == dry
    assert (found["source"], found["length"]) == ("labels", 5)
    with PlaceMap.open(path, read_only=True) as place_map:
        assert place_map.calibration["threshold"] == found["threshold"]
    alone = run(calibrate, path, "--length", 3, "--dry-run", capsys=capsys)
    assert (alone["source"], alone["length"]) == ("map", 3)


def test_calibrate_needs_overlap(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, query = road(tmp_path / "a.db", 50), road(tmp_path / "b.db", 50, first=300)
    with pytest.raises(InputError) as error:
        run(calibrate, path, "--query", query, capsys=capsys)
    assert error.value.reason == "calibration_impossible"
