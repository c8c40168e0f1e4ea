# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pytest

from spike_perception.evaluation.usage import UsageSampler, shared_segments

SIZE = 32_000_000
# A process of its own: what the one of the tests holds depends on the tests before. Anonymous
# pages, since malloc may find room in what was freed.
HOLDER = f"""
import mmap
def step(said):
    print(said, flush=True)
    input()
step("began")
segment = mmap.mmap(-1, {SIZE})
step("shared, and none of it used yet")
for at in range(0, {SIZE}, 4096):
    segment[at] = 1
step("shared and used")
held = mmap.mmap(-1, {SIZE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, {SIZE}, 4096):
    held[at] = 1
step("held")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of shared memory on Linux")
def test_memory_is_what_a_process_holds_itself():
    memory, segments = [], []
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None and process.stdout is not None
        while process.stdout.readline():
            with UsageSampler({"it": process.pid}) as sampler:
                pass
            memory.append(sampler.memory("it")[-1, 1])
            segments.append(shared_segments(process.pid))
            process.stdin.write(b"\n")
            process.stdin.flush()
    megabytes = SIZE / 1e6
    assert [each - segments[0] for each in segments] == pytest.approx(
        [0.0, 0.0, SIZE, SIZE], abs=0.05 * SIZE
    )
    assert [each - memory[0] for each in memory] == pytest.approx(
        [0.0, 0.0, 0.0, megabytes], abs=0.05 * megabytes
    )
