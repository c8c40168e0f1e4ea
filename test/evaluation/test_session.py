# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from spike_perception.errors import InputError
from spike_perception.evaluation.session import clear

OWNER = """
import signal, sys, time
from pathlib import Path
from spike_perception.evaluation.session import RosSession

# A shell that runs the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
with RosSession(Path(sys.argv[1])) as session:
    session.start("deaf", "timeit", ["-n", "1", "-s", sys.argv[2], "time.sleep(60)"])
    print(session.pid("deaf"), flush=True)
    time.sleep(60)
"""
HEARING = "import time"
DEAF = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True)"


def test_what_an_earlier_run_left_goes_and_nothing_else(tmp_path):
    (tmp_path / "drive").mkdir()
    (tmp_path / "map.db").touch()
    with pytest.raises(InputError, match="another --out") as refused:
        clear(tmp_path, "drive", "map.db*")
    assert refused.value.reason == "folder_in_use"
    assert (tmp_path / "drive").is_dir() and (tmp_path / "map.db").is_file()
    for made in ("logs", "drive2"):
        (tmp_path / made).mkdir()
    (tmp_path / "map.db-wal").touch()
    clear(tmp_path, "drive", "map.db*")
    assert {each.name for each in tmp_path.iterdir()} == {"logs", "drive2"}
    clear(tmp_path / "new", "drive")
    assert (tmp_path / "new").is_dir()


@pytest.fixture
def start(tmp_path):
    """Starts a process with a session of one process, which runs this setup; its own and that."""
    started = []

    def make(setup: str) -> tuple[subprocess.Popen[str], psutil.Process]:
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(tmp_path), setup], stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        inner = psutil.Process(int(owner.stdout.readline()))
        started.extend([owner, inner])
        return owner, inner

    yield make
    for each in started:
        if each.poll() is None if isinstance(each, subprocess.Popen) else each.is_running():
            each.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_nothing_is_left_behind_whoever_ends_it(start, number, status):
    owner, inner = start(HEARING)
    owner.send_signal(number)
    assert owner.wait(40) == status
    assert not inner.is_running()


def test_told_to_stop_twice_it_waits_for_nobody(start, tmp_path):
    owner, inner = start(DEAF)
    while not (tmp_path / "deaf.log").read_text():  # it does not hear SIGINT from here on
        assert inner.is_running()
    owner.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        owner.wait(1)
    owner.send_signal(signal.SIGTERM)
    assert owner.wait(20) == 143
    assert not inner.is_running()
