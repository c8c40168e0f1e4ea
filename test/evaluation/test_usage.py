# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import mmap
import os
import sys

import pytest

from spike_perception.evaluation.usage import UsageSampler, shared_segments

SIZE = 32_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of shared memory on Linux")
def test_memory_is_what_a_process_holds_itself():
    us = {"us": os.getpid()}
    with UsageSampler(us) as idle:
        before = shared_segments(os.getpid())
    with mmap.mmap(-1, SIZE) as segment:  # shared, and none of it used yet
        assert shared_segments(os.getpid()) - before < SIZE / 10
        segment.write(b"x" * SIZE)
        assert shared_segments(os.getpid()) - before == pytest.approx(SIZE, rel=0.05)
        with UsageSampler(us) as shared:
            pass
        with UsageSampler(us) as grown:
            held = b"x" * SIZE
    memory = [each.memory("us")[-1, 1] for each in (idle, shared, grown)]
    assert memory[1] - memory[0] == pytest.approx(0.0, abs=SIZE / 1e7)
    assert memory[2] - memory[1] == pytest.approx(len(held) / 1e6, rel=0.1)
