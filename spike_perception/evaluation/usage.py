# SPDX-License-Identifier: Apache-2.0
"""What running processes take of the computer: processor time and memory."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import psutil
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

PERIOD_S = 0.25
MEGABYTE = 1e6


class UsageSampler:
    """Looks at processes from outside while the block runs.

    Args:
        processes: process id by name.
        period_s: time between two looks [s].
    """

    def __init__(self, processes: Mapping[str, int], period_s: float = PERIOD_S) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in processes.items()}
        self._period_s = period_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._seen: dict[str, list[tuple[float, float, float, float]]] = {n: [] for n in processes}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look()

    def figures(
        self, name: str, start_ns: int, end_ns: int, answers: int
    ) -> dict[str, float | None]:
        """What a process took between two times, nanoseconds since 1970.

        Returns:
            ``cpu_percent`` (100: one core), ``cpu_ms_per_answer`` (ms), ``memory_mb``, the largest
            resident memory (1e6 bytes), and ``memory_growth_mb``, how much more than at the start
            it was at the end. None where nothing was seen.
        """
        seen = np.array(self._seen[name], np.float64).reshape(-1, 4)
        span = (end_ns - start_ns) / 1e9
        if not len(seen) or span <= 0:
            nothing = ("cpu_percent", "cpu_ms_per_answer", "memory_mb", "memory_growth_mb")
            return dict.fromkeys(nothing)
        at, cpu, memory, _ = seen.T
        times = np.array([start_ns, end_ns]) / 1e9
        used = float(np.diff(np.interp(times, at, cpu))[0])
        return {
            "cpu_percent": 100.0 * used / span,
            "cpu_ms_per_answer": 1e3 * used / answers if answers else None,
            "memory_mb": float(memory.max()) / MEGABYTE,
            "memory_growth_mb": float(np.diff(np.interp(times, at, memory))[0]) / MEGABYTE,
        }

    def memory(self, name: str) -> NDArray[np.float64]:
        """``[N, 2]``: times (s since 1970) and resident memory then (1e6 bytes).

        Without segments of shared memory, as of DDS: they have one size, belong to the processes
        on both sides, and become resident little by little until all of them has been used.
        """
        at, _, memory, segments = np.array(self._seen[name], np.float64).reshape(-1, 4).T
        return np.stack([at, (memory - segments) / MEGABYTE], axis=1)

    def recent_percent(self, name: str, seconds: float) -> float:
        """Processor time of the last so many seconds, in percent of a core."""
        seen = list(self._seen[name])
        if not seen:
            return 0.0
        end, used, *_ = seen[-1]
        at, before, *_ = next(each for each in seen if each[0] >= end - seconds)
        return 100.0 * (used - before) / (end - at) if end > at else 100.0

    def _run(self) -> None:
        while not self._ended.wait(self._period_s):
            self._look()

    def _look(self) -> None:
        for name, process in self._processes.items():
            try:
                with process.oneshot():
                    times, memory = process.cpu_times(), process.memory_info().rss
                segments = shared_segments(process.pid)
            except (psutil.Error, OSError):  # it has ended
                continue
            used = times.user + times.system
            self._seen[name].append((time.time(), used, float(memory), segments))


def shared_segments(pid: int) -> float:
    """Resident bytes of the shared memory segments that a process uses; 0 but on Linux.

    Raises:
        OSError: the process has ended.
    """
    if not psutil.LINUX:
        return 0.0
    found = re.search(r"^RssShmem:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    return 1024.0 * int(found[1]) if found else 0.0
