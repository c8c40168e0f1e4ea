# SPDX-License-Identifier: Apache-2.0
"""A writer killed at any moment: what it acknowledged is there, and in its place."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spike_perception.places.map import MapDescriptor, PlaceMap

DESCRIPTOR = MapDescriptor("counted", "float", 64, "none")
KILLS = 100

# One process forks writers, so that the kills fall on writing and not on the interpreter's start.
# A place's vector can be told from its stamp. Removals mix in, so that ids have gaps.
NURSERY = """
import os, sys
import numpy as np
from spike_perception.places.map import MapDescriptor, PlaceMap
assert "faiss" not in sys.modules and "cv2" not in sys.modules

def write(stamp):
    place_map = PlaceMap.open(sys.argv[1], MapDescriptor("counted", "float", 64, "none"))
    os.write(1, f"ready {os.getpid()} 0\\n".encode())
    while True:
        stamp += 1
        vector = np.full(64, stamp, dtype=np.float32)
        place_id = place_map.add(vector, stamp, thumbnail=str(stamp).encode() * 100)
        os.write(1, f"added {place_id} {stamp}\\n".encode())
        if stamp % 7 == 0:
            place_map.remove([place_id])
            os.write(1, f"removed {place_id} {stamp}\\n".encode())

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        write(int(line))
    os.waitpid(child, 0)
    os.write(1, b"dead 0 0\\n")
"""


@pytest.mark.slow
def test_sigkill_at_random_moments_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "map.db"
    PlaceMap.create(path, DESCRIPTOR).close()
    moments = random.Random(7)
    acknowledged: dict[int, int] = {}
    gone: set[int] = set()
    stamp = 0
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    for _ in range(KILLS):
        print(stamp, file=nursery.stdin, flush=True)
        what, writer, _ = nursery.stdout.readline().split()
        assert what == "ready", "the map did not open after the last kill"
        time.sleep(moments.uniform(0, 0.05))
        os.kill(int(writer), signal.SIGKILL)
        doubtful: set[int] = set()  # whether the last removal was done is not known
        for line in iter(nursery.stdout.readline, "dead 0 0\n"):
            what, place_id, stamp_text = line.split()
            stamp = int(stamp_text)
            if what == "added":
                acknowledged[int(place_id)] = stamp
                doubtful = {int(place_id)} if stamp % 7 == 0 else set()
            else:
                gone.add(int(place_id))
                doubtful = set()
        stamp += 1  # this one may be there without an acknowledgement
        with PlaceMap.open(path, DESCRIPTOR, read_only=True) as place_map:
            found = {p.place_id: p for batch in place_map.places() for p in batch}
        gone |= doubtful - found.keys()
        assert not acknowledged.keys() - gone - found.keys()
        assert not gone & found.keys()
        for place_id, place in found.items():
            assert (place.descriptor == np.float32(place.stamp_ns)).all()
            assert acknowledged.get(place_id, place.stamp_ns) == place.stamp_ns
    nursery.stdin.close()
    assert nursery.wait() == 0
    assert len(acknowledged) > KILLS
    with PlaceMap.open(path, DESCRIPTOR) as place_map:
        for place_id, place in list(found.items())[-5:]:
            assert place_map.thumbnail(place_id) == str(place.stamp_ns).encode() * 100
        assert place_map.add(np.zeros(64, dtype=np.float32), stamp) > max(acknowledged)
