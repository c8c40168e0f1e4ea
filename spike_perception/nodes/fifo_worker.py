# SPDX-License-Identifier: Apache-2.0
"""One thread that works on every item, in order.

For sensors whose messages are pieces of one stream: a piece that is lost breaks what follows, so
pieces wait in a queue. When the queue is full, or its first item has waited too long, all of it is
let go at once: one gap in the stream, and the worker is up to date again, where dropping single
pieces would leave nothing but gaps.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What may wait for a :class:`FifoWorker`, and what it works on in one go.

    Attributes:
        weight: of all that waits; an item that exceeds it alone still finds its place in an empty
            queue.
        age_s: since the first item that waits came (s).
        batch: weight of what is worked on before the worker looks whether it is to stop; one item
            may exceed it alone.
    """

    weight: int
    age_s: float
    batch: int


class _Waiting(NamedTuple, Generic[T]):
    item: T
    weight: int
    since_s: float


class FifoWorker(Generic[T]):
    """Runs ``process(items, after_gap)`` in its own thread for the items that wait.

    ``after_gap`` tells that items before these were dropped. ``dropped(number)`` is called when
    that happens, in the offering thread.
    """

    def __init__(
        self,
        process: Callable[[list[T], bool], None],
        dropped: Callable[[int], None],
        weigh: Callable[[T], int],
        limits: Limits,
    ) -> None:
        """Start the thread.

        Args:
            process: works on items.
            dropped: told of items that were let go.
            weigh: weight of an item, such as its bytes.
            limits: in that weight.
        """
        self._process = process
        self._dropped = dropped
        self._weigh = weigh
        self._limits = limits
        self._condition = threading.Condition()
        self._waiting: deque[_Waiting[T]] = deque()
        self._weight = 0
        self._gap = False
        self._running = True
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def offer(self, item: T) -> None:
        """Put ``item`` at the end of the queue; past a limit, everything before it goes."""
        new = _Waiting(item, self._weigh(item), time.monotonic())
        dropped = 0
        with self._condition:
            if self._waiting and self._exceeds(new):
                dropped = len(self._waiting)
                self._waiting.clear()
                self._weight, self._gap = 0, True
            self._waiting.append(new)
            self._weight += new.weight
            self._condition.notify()
        if dropped:
            self._dropped(dropped)

    def _exceeds(self, new: _Waiting[T]) -> bool:
        return (
            self._weight + new.weight > self._limits.weight
            or new.since_s - self._waiting[0].since_s > self._limits.age_s
        )

    def stop(self) -> None:
        """Finish the items at work, drop those that wait, and end the thread."""
        with self._condition:
            self._running = False
            self._waiting.clear()
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._running and not self._waiting:
                    self._condition.wait()
                if not self._running:
                    return
                items, gap = self._batch(), self._gap
                self._gap = False
            self._process(items, gap)

    def _batch(self) -> list[T]:
        """Take the first item, and those behind it that fit into a batch."""
        items: list[T] = []
        weight = 0
        while self._waiting and (
            not items or weight + self._waiting[0].weight <= self._limits.batch
        ):
            first = self._waiting.popleft()
            items.append(first.item)
            weight += first.weight
        self._weight -= weight
        return items
