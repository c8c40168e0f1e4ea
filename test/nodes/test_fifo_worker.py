# SPDX-License-Identifier: Apache-2.0
import threading
import time

from spike_perception.nodes.fifo_worker import FifoWorker, Limits


class Bench:
    """A worker whose first item is held until :meth:`finish`; an item below 1000 weighs 1."""

    def __init__(self, limit: int, age_s: float = 60.0) -> None:
        self.worked: list[tuple[list[int], bool]] = []
        self.dropped: list[int] = []
        self._started, self._release = threading.Event(), threading.Event()
        limits = Limits(limit, age_s, batch=64)
        self.worker = FifoWorker(self._process, self.dropped.append, self._weigh, limits)
        self.worker.offer(0)
        assert self._started.wait(5)

    def _weigh(self, item: int) -> int:
        return item if item >= 1000 else 1

    def _process(self, items: list[int], after_gap: bool) -> None:
        self.worked.append((items, after_gap))
        self._started.set()
        self._release.wait(5)

    def finish(self, last: int) -> None:
        self._release.set()
        done = threading.Event()
        while not done.wait(0.01):
            if self.worked[-1][0][-1] == last:
                done.set()
        self.worker.stop()


def test_every_item_is_worked_on_in_order():
    bench = Bench(limit=1000)
    for item in range(1, 200):
        bench.worker.offer(item)
    bench.finish(199)
    assert [item for items, _ in bench.worked for item in items] == list(range(200))
    assert bench.dropped == []
    assert not any(gap for _, gap in bench.worked)
    assert max(len(items) for items, _ in bench.worked) <= 64


def test_a_full_queue_is_let_go_at_once_and_the_gap_is_told_once():
    bench = Bench(limit=5)
    for item in range(1, 8):  # 1 to 5 wait, 6 takes their place
        bench.worker.offer(item)
    bench.finish(7)
    assert bench.worked == [([0], False), ([6, 7], True)]
    assert bench.dropped == [5]


def test_an_item_heavier_than_the_queue_is_worked_on_when_it_is_alone():
    worked, done = [], threading.Event()

    def process(items: list[int], after_gap: bool) -> None:
        worked.append((items, after_gap))
        done.set()

    limits = Limits(1, 60.0, batch=1)
    worker = FifoWorker(process, lambda number: None, lambda item: 10, limits)
    worker.offer(7)
    assert done.wait(5)
    worker.stop()
    assert worked == [([7], False)]


def test_stop_finishes_what_is_at_work_and_forgets_the_rest():
    bench = Bench(limit=10)
    bench.worker.offer(1)
    threading.Timer(0.05, bench._release.set).start()
    bench.worker.stop()
    assert bench.worked == [([0], False)]


def test_heavy_items_are_worked_on_one_by_one_so_that_stop_need_not_wait_for_all():
    bench = Bench(limit=100_000)
    for item in (1, 2, 1000, 1001, 3):
        bench.worker.offer(item)
    bench.finish(3)
    assert [items for items, _ in bench.worked] == [[0], [1, 2], [1000], [1001], [3]]


def test_what_waited_too_long_is_let_go_with_all_behind_it():
    bench = Bench(limit=1000, age_s=0.2)
    for item in (1, 2):
        bench.worker.offer(item)
    time.sleep(0.25)
    for item in (3, 4):
        bench.worker.offer(item)
    bench.finish(4)
    assert bench.worked == [([0], False), ([3, 4], True)]
    assert bench.dropped == [2]
