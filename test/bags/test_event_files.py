# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from spike_perception.bags.event_files import Aedat4Recording, events_from_bs2
from spike_perception.errors import InputError
from spike_perception.sensing.events import EventError, concatenate


def bs2(rows: list[tuple[int, int, int, int]]) -> bytes:
    return b"".join(
        (x << 32 | y << 24 | polarity << 23 | t).to_bytes(5, "big") for x, y, polarity, t in rows
    )


def test_bs2() -> None:
    rows = [(33, 2, 1, 0), (0, 33, 0, 937), (255, 255, 1, (1 << 23) - 1)]
    events = events_from_bs2(bs2(rows))
    assert events.x.tolist() == [33, 0, 255]
    assert events.y.tolist() == [2, 33, 255]
    assert events.polarity.tolist() == [True, False, True]
    assert events.t_ns.tolist() == [0, 937_000, ((1 << 23) - 1) * 1000]
    assert len(events_from_bs2(b"")) == 0


def test_bs2_lapses() -> None:
    events = events_from_bs2(bs2([(1, 1, 0, 8000), (0, 240, 0, 0), (2, 1, 0, 5)]))
    assert events.x.tolist() == [1, 2]
    assert events.t_ns.tolist() == [8_000_000, (8192 + 5) * 1000]


def test_bs2_cut_short() -> None:
    with pytest.raises(EventError) as caught:
        events_from_bs2(bs2([(1, 1, 0, 8)])[:-1])
    assert caught.value.reason == "truncated_packet"


def test_nmnist(data: Path) -> None:
    path = data / "nmnist_1000.zip"
    if not path.exists():
        pytest.skip(f"no {path}")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".bs2")][:20]
        for name in names:
            events = events_from_bs2(archive.read(name))
            assert len(events) > 500
            assert max(events.x.max(), events.y.max()) < 34
            assert 0.25e9 < events.t_ns[-1] < 0.4e9


def test_aedat4(tmp_path: Path) -> None:
    dv = pytest.importorskip("dv_processing")
    path = tmp_path / "run.aedat4"
    start = 1_700_000_000_000_000
    config = dv.io.MonoCameraWriter.EventOnlyConfig("DVXplorer_1", (64, 48))
    writer = dv.io.MonoCameraWriter(str(path), config)
    store = dv.EventStore()
    for k in range(500):
        store.push_back(start + 10 * k, k % 64, k % 48, k % 2 == 0)
    writer.writeEvents(store)
    del writer
    recording = Aedat4Recording(path)
    assert (recording.width, recording.height) == (64, 48)
    for _ in range(2):  # it can be read again
        events = concatenate(list(recording))
        np.testing.assert_array_equal(events.t_ns, (start + 10 * np.arange(500)) * 1000)
        np.testing.assert_array_equal(events.x, np.arange(500) % 64)
        np.testing.assert_array_equal(events.y, np.arange(500) % 48)
        np.testing.assert_array_equal(events.polarity, np.arange(500) % 2 == 0)


def test_aedat4_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Aedat4Recording(tmp_path / "none.aedat4")
    assert caught.value.reason == "recording_missing"
    pytest.importorskip("dv_processing")
    broken = tmp_path / "broken.aedat4"
    for content in (b"", b"#!AER-DAT4.0\r\n" + bytes(100), bytes(1000)):
        broken.write_bytes(content)
        with pytest.raises(InputError) as caught:
            Aedat4Recording(broken)
        assert caught.value.reason == "recording_unreadable"
        assert "Stacktrace" not in str(caught.value) and "\n" not in str(caught.value)
