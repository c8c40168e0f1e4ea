# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from spike_perception.bags.event_files import events_from_bs2
from spike_perception.bags.labelled_events import open_event_set
from spike_perception.errors import InputError


def bs2(*rows: tuple[int, int, int, int]) -> bytes:
    return b"".join(
        (x << 32 | y << 24 | polarity << 23 | t).to_bytes(5, "big") for x, y, polarity, t in rows
    )


ONE, TWO, TEN = (bs2((k, 33, 1, 0), (0, 2, 0, 900 + k)) for k in (1, 2, 10))
TABLE = b"sample,digit\r\n10,seven\r\n1,four\r\n2,seven\r\n3,four\r\n"


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


FILES = {
    "labels.csv": TABLE,
    "events/1.bs2": ONE,
    "events/2.bs2": TWO,
    "events/10.bs2": TEN,
    "events/3.bs2": ONE[:-1],
}


def test_a_table_of_labels(tmp_path: Path) -> None:
    paths = [write_zip(tmp_path / "set.zip", FILES), write_folder(tmp_path / "set", FILES)]
    sets = [open_event_set(path) for path in paths]
    for each in sets:
        assert each.classes == ("four", "seven")
        assert each.names == ["events/1.bs2", "events/2.bs2", "events/10.bs2"]
        assert each.labels.tolist() == [0, 1, 1]
        assert list(each.skipped) == ["events/3.bs2"]
        assert "truncated_packet" in each.skipped["events/3.bs2"]
        assert each.size == (34, 34)
        assert each.events(2).x.tolist() == [10, 0]
    assert sets[0].id == sets[1].id
    changed = write_zip(tmp_path / "other.zip", FILES | {"events/2.bs2": TEN})
    assert open_event_set(changed).id != sets[0].id


def test_a_table_without_a_header_loses_no_recording(tmp_path: Path) -> None:
    table = TABLE.partition(b"\r\n")[2]
    found = open_event_set(write_zip(tmp_path / "set.zip", FILES | {"labels.csv": table}))
    assert found.names == ["events/1.bs2", "events/2.bs2", "events/10.bs2"]
    assert found.labels.tolist() == [0, 1, 1]


def test_one_folder_a_class(tmp_path: Path) -> None:
    files = {"train/b/2.bs2": TWO, "train/b/10.bs2": TEN, "train/a/1.bs2": ONE}
    path = write_zip(tmp_path / "set.zip", files | {"train/a/2.bs2": bs2((200, 90, 1, 0))})
    found = open_event_set(path, "train")
    assert found.classes == ("a", "b")
    assert found.names == ["a/1.bs2", "a/2.bs2", "b/2.bs2", "b/10.bs2"]
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.size == (201, 91)
    assert open_event_set(path / "train", limit=2).names == ["a/1.bs2", "b/2.bs2"]
    flat = open_event_set(path / "train" / "b")
    assert (flat.classes, flat.labels.tolist()) == ((), [-1, -1])


@pytest.mark.parametrize("zipped", [False, True])
def test_aedat4(tmp_path: Path, zipped: bool) -> None:
    dv = pytest.importorskip("dv_processing")
    path = tmp_path / "wave" / "run.aedat4"
    path.parent.mkdir()
    writer = dv.io.MonoCameraWriter(
        str(path), dv.io.MonoCameraWriter.EventOnlyConfig("DVXplorer_1", (64, 48))
    )
    store = dv.EventStore()
    for k in range(5):
        store.push_back(1_700_000_000_000_000 + k, k, 2 * k, k % 2 == 0)
    writer.writeEvents(store)
    del writer
    source = tmp_path
    if zipped:
        source = write_zip(tmp_path / "set.zip", {"wave/run.aedat4": path.read_bytes()})
    found = open_event_set(source)
    assert (found.classes, found.size) == (("wave",), (64, 48))
    assert found.events(0).x.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "files",
    [
        {"labels.csv": b"sample,digit\n1,2,3\n", "events/1.bs2": ONE},
        {"labels.csv": b"sample,digit\n7,2\n", "events/1.bs2": ONE},
        {"labels.csv": b"sample,digit\n", "events/1.bs2": ONE},
        {"labels.csv": b"\xff\xfe\xfd", "events/1.bs2": ONE},
        {"labels.csv": b"sample,digit\n../1,2\n", "events/1.bs2": ONE},
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(InputError, match=r"labels\.csv") as caught:
        open_event_set(write_zip(tmp_path / "set.zip", files))
    assert caught.value.reason == "events_unreadable"


def test_what_holds_no_recording_is_refused(tmp_path: Path) -> None:
    for files, reason in (
        ({"a/1.txt": b"x"}, "events_missing"),
        ({"a/1.bs2": b""}, "no_readable_recording"),
    ):
        with pytest.raises(InputError) as caught:
            open_event_set(write_zip(tmp_path / "set.zip", files))
        assert caught.value.reason == reason
    with pytest.raises(InputError, match="does not exist"):
        open_event_set(tmp_path / "none")


def test_nmnist(data: Path) -> None:
    path = data / "nmnist_1000.zip"
    if not path.exists():
        pytest.skip(f"no {path}")
    found = open_event_set(path, limit=20)
    assert found.classes == tuple("0123456789")
    assert (len(found), found.size, found.skipped) == (20, (34, 34), {})
    with zipfile.ZipFile(path) as file:
        first = events_from_bs2(file.read(found.names[0]))
    np.testing.assert_array_equal(found.events(0).t_ns, first.t_ns)
