# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# As in a node: weights are loaded and let go, then a thread works off a flood and rests.
FLOOD = """
import sys, threading
import numpy as np
from spike_perception.nodes.perception_node import spin

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

def work():
    flood = [np.ones(size, np.uint8) for size in (500_000, 6_000_000) for _ in range(8)]
    flooded.append(resident())
    flood.clear()
    worked.set()
    ended.wait()

def no_node():
    raise ValueError

if sys.argv[1] == "in a node's process":
    assert spin(no_node) == 2
weights = np.ones(30_000_000, np.uint8)
del weights
flooded = []
worked, ended = threading.Event(), threading.Event()
before = resident()
thread = threading.Thread(target=work)
thread.start()
worked.wait()
print(flooded[0] - before, resident() - before)
ended.set()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="thresholds of glibc")
def test_what_a_flood_took_is_given_back():
    took, kept = (float(each) for each in _run("in a node's process"))
    assert took > 40
    assert kept < 5
    assert float(_run("in any other")[1]) > 40  # what it is for


def _run(how: str) -> list[str]:
    command = [sys.executable, "-c", FLOOD, how]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
