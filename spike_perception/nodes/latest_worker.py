# SPDX-License-Identifier: Apache-2.0
"""One thread that works on the newest item only.

Inference in a callback would starve timers and services of a single-threaded executor, and
rclpy's MultiThreadedExecutor loses most frames to contention; one worker with a one-slot mailbox
keeps both: under overload it is always the newest frame that is worked on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestWorker(Generic[T]):
    """Runs ``process(item)`` in its own thread for the newest offered item.

    An item that still waits when a newer one is offered is dropped: ``dropped`` is called for it,
    in the offering thread.
    """

    def __init__(self, process: Callable[[T], None], dropped: Callable[[], None]) -> None:
        self._process = process
        self._dropped = dropped
        self._condition = threading.Condition()
        self._waiting: T | None = None
        self._running = True
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def offer(self, item: T) -> None:
        """Put ``item`` in the slot, in place of one that still waits there."""
        with self._condition:
            overwritten = self._waiting is not None
            self._waiting = item
            self._condition.notify()
        if overwritten:
            self._dropped()

    def stop(self) -> None:
        """Finish the item at work, drop the one that waits, and end the thread."""
        with self._condition:
            self._running = False
            self._waiting = None
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._running and self._waiting is None:
                    self._condition.wait()
                if not self._running or self._waiting is None:
                    return
                item, self._waiting = self._waiting, None
            self._process(item)
