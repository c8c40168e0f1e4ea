# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.places import map as map_module
from spike_perception.places.map import MapDescriptor, NewPlace, PlaceMap
from spike_perception.places.types import Pose

FLOATS = MapDescriptor("tiny", "float", 16, "weights-a")
BITS = MapDescriptor("tiny_bits", "bits", 16, "weights-a")


def vector(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(16).astype(np.float32)


def filled(path: Path, places: int = 5) -> PlaceMap:
    made = PlaceMap.create(path, FLOATS, {"sequence.length": 5})
    for number in range(1, places + 1):
        made.add(vector(number), number * 10, "camera", Pose((number, 0, 0)), bytes([number]))
    return made


def refused(reason: str):
    return pytest.raises(InputError, check=lambda error: error.reason == reason)


def snapshot(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        p.name: (p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).hexdigest())
        for p in folder.iterdir()
    }


def test_what_was_added_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    filled(path).close()
    assert [p.name for p in tmp_path.iterdir()] == ["map.db"]
    with PlaceMap.open(path, FLOATS) as place_map:
        assert place_map.config == {"sequence.length": 5}
        assert place_map.ids().tolist() == [1, 2, 3, 4, 5]
        place = place_map.get(3)
        np.testing.assert_array_equal(place.descriptor, vector(3))
        assert place.pose == Pose((3, 0, 0))
        assert (place.stamp_ns, place.frame_id, place.session) == (30, "camera", 1)
        assert place_map.thumbnail(3) == b"\x03"
        info = place_map.info()
    assert (info["places"], info["places_with_pose"], info["sessions"]) == (5, 5, 1)
    assert (info["first_stamp_ns"], info["last_stamp_ns"]) == (10, 50)


def test_bits_are_kept_as_bits(tmp_path: Path) -> None:
    with PlaceMap.create(tmp_path / "map.db", BITS) as place_map:
        place_map.add(np.array([3, 200], dtype=np.uint8), 1)
        assert place_map.get(1).descriptor.tolist() == [3, 200]
        with refused("invalid_descriptor"):
            place_map.add(vector(1), 2)


def test_ids_are_never_used_again(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    with filled(path) as place_map:
        assert place_map.remove([2, 5, 77, -1, 1 << 70]) == 2
        assert place_map.ids().tolist() == [1, 3, 4]
        with refused("unknown_place"):
            place_map.get(2)
        assert place_map.thumbnail(2) is None
    with PlaceMap.open(path, FLOATS) as place_map:
        assert place_map.add(vector(6), 60) == 6
        assert place_map.session == 2  # another opening, another session
        assert place_map.get(4).session == 1


def test_places_are_read_in_batches(tmp_path: Path) -> None:
    with filled(tmp_path / "map.db") as place_map:
        batches = [[p.place_id for p in batch] for batch in place_map.places(after=1, batch=3)]
    assert batches == [[2, 3, 4], [5]]


def test_counts_follow_additions_removals_and_sessions(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    with filled(path) as place_map:
        place_map.begin_session()
        place_map.add(vector(6), 5)
        live = place_map.info()
    with PlaceMap.open(path, read_only=True) as place_map:
        loaded = place_map.info()
    for key in ("places", "sessions", "places_with_pose", "first_stamp_ns", "last_stamp_ns"):
        assert live[key] == loaded[key], key
    assert live["sessions"] == 2


def test_sessions_must_not_fall(tmp_path: Path) -> None:
    with filled(tmp_path / "map.db") as place_map:
        place_map.begin_session()
        place_map.add(vector(6), 60)
        with pytest.raises(ValueError, match="sessions must not fall"):
            place_map.add_many([NewPlace(vector(7), 70, session=1)])


def test_all_or_none(tmp_path: Path) -> None:
    with filled(tmp_path / "map.db") as place_map:
        bad = np.full(16, np.nan, dtype=np.float32)
        with refused("invalid_descriptor"):
            place_map.add_many([NewPlace(vector(6), 60), NewPlace(bad, 70)])
        assert len(place_map) == 5
        assert place_map.add(vector(6), 60) == 6


# ------------------------------------------------------------------ size


def test_a_full_map_refuses(tmp_path: Path) -> None:
    with filled(tmp_path / "map.db") as place_map:
        place_map.set_limit(5)
        with refused("map_full"):
            place_map.add(vector(6), 60)
        assert len(place_map) == 5


def test_a_full_map_drops_its_oldest(tmp_path: Path) -> None:
    with filled(tmp_path / "map.db") as place_map:
        place_map.set_limit(5, drop_oldest=True)
        assert place_map.add(vector(6), 60) == 6
        assert place_map.ids().tolist() == [2, 3, 4, 5, 6]
        assert place_map.info()["first_stamp_ns"] == 20
        with refused("map_full"):
            place_map.add_many([NewPlace(vector(n), n) for n in range(7, 14)])
        assert len(place_map) == 5


# ------------------------------------------------------------------ read only, several processes


def test_read_only_writes_no_byte(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    filled(path).close()
    before = snapshot(tmp_path)
    with PlaceMap.open(path, FLOATS, read_only=True) as place_map:
        assert len(place_map.ids()) == 5
        place_map.get(1)
        place_map.refresh()
        for change in (
            lambda: place_map.add(vector(6), 60),
            lambda: place_map.remove([1]),
            lambda: place_map.set_calibration({}),
        ):
            with refused("map_read_only"):
                change()
        assert snapshot(tmp_path) == before
    assert snapshot(tmp_path) == before


KILLED_WRITER = """
import os, signal, sys
import numpy as np
from spike_perception.places.map import MapDescriptor, PlaceMap
place_map = PlaceMap.open(sys.argv[1], MapDescriptor("tiny", "float", 16, "weights-a"))
place_map.add(np.ones(16, dtype=np.float32), 60)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("with_index", [True, False])
def test_read_only_sees_the_log_of_a_killed_writer(tmp_path: Path, with_index: bool) -> None:
    path = tmp_path / "map.db"
    filled(path).close()
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False)
    assert (tmp_path / "map.db-wal").stat().st_size > 0
    if not with_index:
        (tmp_path / "map.db-shm").unlink()
    before = snapshot(tmp_path)
    with PlaceMap.open(path, FLOATS, read_only=True) as place_map:
        assert place_map.ids().tolist() == [1, 2, 3, 4, 5, 6]
        np.testing.assert_array_equal(place_map.get(6).descriptor, np.ones(16))
    assert snapshot(tmp_path) == before
    with PlaceMap.open(path, FLOATS) as place_map:  # and the next writer is not locked out
        assert place_map.add(vector(7), 70) == 7


def test_read_only_in_a_folder_that_takes_nothing(tmp_path: Path) -> None:
    """As another user, because for root no folder is read only."""
    path = tmp_path / "map.db"
    filled(path).close()
    code = (
        "import os, sys\n"
        "from spike_perception.errors import InputError\n"
        "from spike_perception.places.map import PlaceMap\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "print(len(PlaceMap.open(sys.argv[1], read_only=True).ids()))\n"
        "try: PlaceMap.open(sys.argv[1])\n"
        "except InputError as error: print(error.reason)\n"
    )
    for folder in tmp_path.parents:  # pytest shuts its folders to others
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(0o755)
    tmp_path.chmod(0o555)
    path.chmod(0o444)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
        )
    finally:
        tmp_path.chmod(0o755)
    assert done.stdout.split() == ["5", "map_not_writable"], done.stderr


def test_one_writer_many_readers(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    with filled(path) as writer:
        with refused("map_in_use"):
            PlaceMap.open(path, FLOATS)
        with PlaceMap.open(path, FLOATS, read_only=True) as reader:
            writer.add(vector(6), 60)
            writer.remove([1])
            assert len(reader) == 5
            assert [p.place_id for batch in reader.places() for p in batch] == [2, 3, 4, 5]
            with refused("unknown_place"):
                reader.get(6)
            generation = reader.generation
            reader.refresh()
            assert reader.ids().tolist() == [2, 3, 4, 5, 6]
            assert reader.generation > generation
    PlaceMap.open(path, FLOATS).close()  # the lock went with the writer


def test_another_process_is_locked_out(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    code = (
        "import sys\nfrom spike_perception.errors import InputError\n"
        "from spike_perception.places.map import PlaceMap\n"
        "print(len(PlaceMap.open(sys.argv[1], read_only=True)))\n"
        "try: PlaceMap.open(sys.argv[1])\n"
        "except InputError as error: print(error.reason)\n"
    )
    with filled(path):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
    assert done.stdout.split() == ["5", "map_in_use"]


# ------------------------------------------------------------------ damage


def test_missing_map(tmp_path: Path) -> None:
    with refused("map_missing"):
        PlaceMap.open(tmp_path / "none.db", FLOATS)
    with refused("map_not_writable"):
        PlaceMap.create(tmp_path / "no" / "folder.db", FLOATS)
    assert list(tmp_path.iterdir()) == []


def test_create_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    path.write_text("something dear to the user")
    with refused("map_exists"):
        PlaceMap.create(path, FLOATS)
    assert path.read_text() == "something dear to the user"


def _flip_in_descriptor(path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = data.index(vector(3).tobytes())
    data[start + 5] ^= 1
    path.write_bytes(data)


def _swap_ids(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE place SET place_id = 100 WHERE place_id = 1")
        connection.execute("UPDATE place SET place_id = 1 WHERE place_id = 2")
    connection.close()


def _blob_of_other_size(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE place SET descriptor = zeroblob(100000000) WHERE place_id = 2")
    connection.close()


def _other_dimension(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "UPDATE manifest SET value = replace(value, '\"dimension\":16', '\"dimension\":8')"
        )
    connection.close()


def _trigger(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON place BEGIN DELETE FROM place; END")
    connection.close()


def _manifest_gone(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM manifest WHERE key = 'descriptor'")
    connection.close()


def _rewritten(path: Path, column: int, value: object) -> None:
    """A row that holds what it must not, with a checksum that fits."""
    connection = sqlite3.connect(path)
    with connection:
        found = connection.execute("SELECT * FROM place WHERE place_id = 2")
        row = list(found.fetchone()[:-1])
        row[column] = value
        connection.execute("DELETE FROM place WHERE place_id = 2")
        connection.execute(
            "INSERT INTO place VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, map_module._checksum(*row))
        )
    connection.close()


DAMAGE = {
    "not_finite": lambda path: _rewritten(path, 6, np.full(16, np.nan, np.float32).tobytes()),
    "frame_no_text": lambda path: _rewritten(path, 3, b"\xff\xfe"),
    "no_sqlite": lambda path: path.write_bytes(b"no database at all " * 100),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped_bit": _flip_in_descriptor,
    "swapped_ids": _swap_ids,
    "huge_blob": _blob_of_other_size,
    "other_dimension": _other_dimension,
    "trigger": _trigger,
    "manifest_gone": _manifest_gone,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_refused_and_set_aside_never_overwritten(tmp_path: Path, damage) -> None:
    path = tmp_path / "map.db"
    filled(path).close()
    damage(path)
    before = path.read_bytes()
    with refused("map_corrupt"):
        PlaceMap.open(path, FLOATS, read_only=True)
    assert [p.name for p in tmp_path.iterdir()] == ["map.db"]
    assert path.read_bytes() == before
    with refused("map_corrupt"):
        PlaceMap.open_or_create(path, FLOATS)
    assert [p.name for p in tmp_path.iterdir()] == ["map.db.corrupt-1"]
    kept = tmp_path / "map.db.corrupt-1"
    if damage is not DAMAGE["huge_blob"]:
        assert len(kept.read_bytes()) == len(before)
    # A second casualty does not replace the first.
    shutil.copyfile(kept, path)
    with refused("map_corrupt"):
        PlaceMap.open(path, FLOATS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.db.corrupt-1", "map.db.corrupt-2"]
    PlaceMap.open_or_create(path, FLOATS).close()


def test_a_foreign_database_and_a_later_schema_are_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE music (title)")
    connection.close()
    later = tmp_path / "later.db"
    filled(later).close()
    connection = sqlite3.connect(later)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    for path in (foreign, later):
        for read_only in (True, False):
            with refused("map_schema"):
                PlaceMap.open(path, FLOATS, read_only=read_only)
        assert path.exists()


def test_other_descriptor_and_other_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    filled(path).close()
    with refused("map_other_descriptor") as error:
        PlaceMap.open(path, BITS)
    assert "'tiny'" in str(error.value)
    assert "'tiny_bits'" in str(error.value)
    with refused("map_other_weights") as error:
        PlaceMap.open(path, MapDescriptor("tiny", "float", 16, "weights-b"))
    assert "weights-a" in str(error.value)
    assert "weights-b" in str(error.value)
    assert path.exists()
    PlaceMap.open(path, FLOATS).close()  # the refusal kept no lock


def test_a_damaged_thumbnail_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    filled(path).close()
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE thumbnail SET image = x'FF' WHERE place_id = 2")
    connection.close()
    with PlaceMap.open(path, FLOATS, read_only=True) as place_map:
        assert place_map.thumbnail(1) == b"\x01"
        with refused("map_corrupt"):
            place_map.thumbnail(2)


def test_full_disk_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    with filled(path) as place_map:
        connection = place_map._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 1}")  # SQLite's own SQLITE_FULL
        with refused("map_not_writable"):
            place_map.add(vector(6), 60, thumbnail=bytes(100_000))
        assert len(place_map) == 5
        assert place_map.ids().tolist() == [1, 2, 3, 4, 5]
        connection.execute("PRAGMA max_page_count=1000000")
        assert place_map.add(vector(6), 60, thumbnail=bytes(100_000)) == 6
    with PlaceMap.open(path, FLOATS) as place_map:
        assert len(place_map) == 6


def test_calibration_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    with filled(path) as place_map:
        assert place_map.calibration is None
        place_map.set_calibration({"threshold": 2.5})
    with PlaceMap.open(path, read_only=True) as place_map:
        assert place_map.calibration == {"threshold": 2.5}


def test_a_closed_map_says_so(tmp_path: Path) -> None:
    place_map = filled(tmp_path / "map.db")
    place_map.close()
    place_map.close()
    with refused("map_closed"):
        place_map.ids()
    with refused("map_closed"):
        place_map.add(vector(1), 1)


@pytest.mark.parametrize(
    "values",
    [((np.nan, 0, 0), (0, 0, 0, 1)), ((0, 0, 0), (0, 0, 0, 0)), ((0, np.inf, 0), (0, 0, 0, 1))],
)
def test_impossible_poses_are_refused(values) -> None:
    with refused("invalid_pose"):
        Pose(*values)
