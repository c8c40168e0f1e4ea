# SPDX-License-Identifier: Apache-2.0
import threading

from spike_perception.nodes.latest_worker import LatestWorker


def test_under_overload_the_newest_item_is_worked_on_and_the_rest_counted():
    started, release, done = threading.Event(), threading.Event(), threading.Event()
    processed, dropped = [], []

    def process(item):
        processed.append(item)
        started.set()
        release.wait(5)
        if item == 9:
            done.set()

    worker = LatestWorker(process, lambda: dropped.append(1))
    worker.offer(0)
    assert started.wait(5)
    for item in range(1, 10):
        worker.offer(item)
    release.set()
    assert done.wait(5)
    worker.stop()
    assert processed == [0, 9]
    assert len(dropped) == 8


def test_stop_finishes_the_item_at_work_and_forgets_the_one_that_waits():
    started, release = threading.Event(), threading.Event()
    finished = []

    def process(item):
        started.set()
        release.wait(5)
        finished.append(item)

    worker = LatestWorker(process, lambda: None)
    worker.offer("at work")
    assert started.wait(5)
    worker.offer("waits")
    threading.Timer(0.05, release.set).start()
    worker.stop()
    assert finished == ["at work"]
