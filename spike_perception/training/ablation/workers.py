# SPDX-License-Identifier: Apache-2.0
"""Several runs at the same time, each in a process of its own.

On a CPU two processes of one thread do more than one of two threads: small networks leave the
second thread waiting.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

from spike_perception.errors import InputError
from spike_perception.training.ablation.config import AblationConfig
from spike_perception.training.ablation.rows import Run
from spike_perception.training.ablation.sets import LearningSet
from spike_perception.training.ablation.training import carry_out
from spike_perception.training.stopped import Stopped


@dataclass(frozen=True)
class Task:
    """One run to carry out."""

    run: Run
    identity: str
    command: str


@dataclass(frozen=True, eq=False)
class Work:
    """What all runs share."""

    sets: Mapping[str, LearningSet]
    config: AblationConfig
    out: Path

    def do(self, task: Task) -> dict[str, Any]:
        """Carry out one run."""
        learning = self.sets[task.run.set]
        return carry_out(task.run, learning, self.config, self.out, task.identity, task.command)


@dataclass(frozen=True)
class _Ended:
    """Why a run gave no result: exceptions with several arguments do not cross processes."""

    reason: str = ""
    message: str = ""
    number: int = 0
    step: int = 0

    def error(self) -> Exception:
        """The exception again."""
        if self.number:
            return Stopped(self.number, self.step)
        return InputError(self.reason, self.message)


_work: Work | None = None


def results_of(work: Work, tasks: Sequence[Task], workers: int) -> Iterator[dict[str, Any]]:
    """Results as they come.

    Args:
        work: what the runs share.
        tasks: the runs.
        workers: processes; 1 works in this one.

    Raises:
        InputError: the first that a run raises.
        Stopped: after a signal to a process that trains, once its checkpoint is written.
        SystemExit: after SIGTERM, once all processes ended.
    """
    if workers == 1 or len(tasks) <= 1:
        yield from map(work.do, tasks)
        return
    # A new interpreter each: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, context, _begin, (work,))
    with _ends_on_terminate():
        try:
            for future in as_completed([pool.submit(_one, task) for task in tasks]):
                done = future.result()
                if isinstance(done, _Ended):
                    raise done.error()
                yield done
        except BaseException:
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()  # the training loop answers with a checkpoint
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(work: Work) -> None:
    """In a new process: keep what runs share; Ctrl-C ends it through the training loop alone."""
    global _work  # what a process of a pool keeps has no other place
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _one(task: Task) -> dict[str, Any] | _Ended:
    work = cast(Work, _work)
    try:
        return work.do(task)
    except InputError as error:
        return _Ended(reason=error.reason, message=f"{task.run.key}: {error}")
    except Stopped as stopped:
        return _Ended(number=stopped.number, step=stopped.step)


@contextmanager
def _ends_on_terminate() -> Iterator[None]:
    """Turn SIGTERM into ``SystemExit``, so that the processes of the pool are ended too."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
