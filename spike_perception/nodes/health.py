# SPDX-License-Identifier: Apache-2.0
"""What a node tells on ``/diagnostics`` about its input and its work."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

# Percentiles and rates are of this many latest frames.
WINDOW = 300


class Health:
    """Counts what arrives, what is answered and what is dropped for which reason.

    Thread-safe. Times are of the monotonic clock: they go on while a simulated clock stands still.
    """

    def __init__(self, stale_after_s: float, now: Callable[[], float] = time.monotonic) -> None:
        """Start counting.

        Args:
            stale_after_s: input older than this [s] is reported as stale.
            now: clock [s], replaceable for tests.
        """
        self.stale_after_s = stale_after_s
        self._now = now
        self._lock = threading.Lock()
        self._started = now()
        self._received: deque[float] = deque(maxlen=WINDOW)
        self._answered: deque[float] = deque(maxlen=WINDOW)
        self._latencies_ms: deque[float] = deque(maxlen=WINDOW)
        self._drops: Counter[str] = Counter()
        self._reported: Counter[str] = Counter()
        self._last_message: dict[str, str] = {}
        self._total = Counter(received=0, answered=0)

    def received(self) -> None:
        """Count a message that arrived."""
        with self._lock:
            self._received.append(self._now())
            self._total["received"] += 1

    def answered(self, latency_ms: float) -> None:
        """Count an answer and its latency from arrival to publication [ms]."""
        with self._lock:
            self._answered.append(self._now())
            self._latencies_ms.append(latency_ms)
            self._total["answered"] += 1

    def dropped(self, reason: str, message: str = "", number: int = 1) -> None:
        """Count messages that were dropped, with a snake_case reason and a sentence for people."""
        with self._lock:
            self._drops[reason] += number
            self._last_message[reason] = message

    def drops(self) -> dict[str, int]:
        """Dropped messages by reason, since the node was configured."""
        with self._lock:
            return dict(self._drops)

    def status(self, name: str, active: bool) -> DiagnosticStatus:
        """Summarise as a diagnostic status; WARN tells of drops since the last call.

        Args:
            name: name of the status.
            active: whether the node is active; an inactive node is never stale.
        """
        with self._lock:
            now = self._now()
            age = now - (self._received[-1] if self._received else self._started)
            new = {r: n - self._reported[r] for r, n in self._drops.items()}
            new = {reason: count for reason, count in new.items() if count}
            self._reported = Counter(self._drops)
            level, message = DiagnosticStatus.OK, "active" if active else "inactive"
            if active and age > self.stale_after_s:
                level = DiagnosticStatus.STALE
                message = f"no input for {age:.1f} s" if self._received else "no input yet"
            elif new:
                level = DiagnosticStatus.WARN
                message = "; ".join(
                    f"{count} {reason}"
                    + (f" ({text})" if (text := self._last_message[reason]) else "")
                    for reason, count in new.items()
                )
            values = {
                "received": str(self._total["received"]),
                "answered": str(self._total["answered"]),
                "input rate [Hz]": f"{_rate(self._received, now):.2f}",
                "answer rate [Hz]": f"{_rate(self._answered, now):.2f}",
            }
            if self._latencies_ms:
                p50, p95, p99 = np.percentile(self._latencies_ms, (50, 95, 99))
                values["latency p50 [ms]"] = f"{p50:.2f}"
                values["latency p95 [ms]"] = f"{p95:.2f}"
                values["latency p99 [ms]"] = f"{p99:.2f}"
            values |= {f"dropped {r}": str(n) for r, n in sorted(self._drops.items())}
        return make_status(name, level, message, values)


def _rate(times: deque[float], now: float, window_s: float = 5.0) -> float:
    """Events per second over the last ``window_s`` seconds that the deque covers."""
    recent = [each for each in times if now - each <= window_s]
    span = min(window_s, now - times[0]) if times else 0.0
    return len(recent) / span if span > 0 else 0.0


def make_status(name: str, level: bytes, message: str, values: dict[str, str]) -> DiagnosticStatus:
    """A diagnostic status with its key-value pairs in order."""
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id="spike_perception",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
