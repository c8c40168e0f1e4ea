# SPDX-License-Identifier: Apache-2.0
"""Processes as on a robot: each node its own, talking over real DDS in a domain of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from spike_perception.errors import InputError
from spike_perception.share import fast_dds_environment

if TYPE_CHECKING:
    from typing_extensions import Self

# First discovery port of a domain and ports per domain, by the RTPS specification (9.6.1.1).
PORT_BASE = 7400
PORTS_PER_DOMAIN = 250
# An engine that is let go on a busy computer takes its time [s].
STOP_TIMEOUT_S = 30.0
POLL_S = 0.05
# What tells a folder of our own runs from others.
LOGS = "logs"


def free_domain() -> int:
    """A DDS domain in which nobody on this machine listens."""
    for attempt in range(100):
        domain = 1 + (os.getpid() + attempt) % 100
        if is_free(domain):
            return domain
    raise InputError("no_free_domain", "every DDS domain from 1 to 100 is in use on this machine")


def is_free(domain: int) -> bool:
    """Whether nobody on this machine listens in a DDS domain."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", PORT_BASE + PORTS_PER_DOMAIN * domain + 10))
        except OSError:
            return False
    return True


def clear(out: Path, *patterns: str) -> None:
    """Make a run's folder, without what an earlier run left in it.

    Args:
        out: the folder.
        patterns: of the files and folders in it that are to go, such as ``map.db*``.

    Raises:
        InputError: ``folder_in_use`` if there is such a thing in a folder without an earlier run's
            logs: it may be the user's own.
    """
    found = sorted(path for pattern in patterns for path in out.glob(pattern))
    if found and not (out / LOGS).is_dir():
        raise InputError(
            "folder_in_use",
            f"{found[0]} is not of an earlier run and would be deleted; give another --out",
        )
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    out.mkdir(parents=True, exist_ok=True)


class RosSession:
    """Starts processes in a fresh DDS domain and stops them when the block ends, by SIGTERM too.

    Told to stop once more while it does so, it kills them. Each process writes what it prints to
    ``LOGS/NAME.log``.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._before: Any = None  # what SIGTERM did
        self.environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(free_domain()),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            **fast_dds_environment(),
        }

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, _terminated)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            for name in reversed(list(self._processes)):
                self.stop(name)
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait()
            if self._before is not None:
                signal.signal(signal.SIGTERM, self._before)

    def start(self, name: str, module: str, arguments: Sequence[str]) -> None:
        """Start ``python -m module arguments`` under ``name``."""
        with (self._logs / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
            )

    def start_node(self, name: str, module: str, parameters: Mapping[str, object]) -> None:
        """Start a node of which this module makes one; ``LOGS/NAME.yaml`` keeps its parameters."""
        file = self._logs / f"{name}.yaml"  # JSON is a part of YAML
        file.write_text(json.dumps({"/**": {"ros__parameters": dict(parameters)}}, indent=2))
        self.start(name, module, ["--ros-args", "--params-file", str(file)])

    def run(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Start a process and wait for its end; its errors and progress are shown with our own.

        Args:
            name: what it is called.
            module: as for :meth:`start`.
            arguments: as for :meth:`start`.
            check: called while it runs; if it raises, the process is stopped.

        Raises:
            InputError: ``process_failed`` if it ended with another status than 0, or if one of
                the processes beside it has died.
        """
        with (self._logs / f"{name}.log").open("wb") as log:
            process = self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=log, env=self.environment
            )
        while process.poll() is None:
            time.sleep(POLL_S)
            if process.poll() is None:
                self.require_alive()
                check()
        del self._processes[name]
        self.require_alive()
        check()
        if process.returncode:
            raise InputError("process_failed", f"{name} ended with status {process.returncode}")

    def log(self, name: str) -> str:
        """What a process has written so far."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def status(self, name: str) -> int | None:
        """Exit status of a process, None while it runs."""
        return self._processes[name].poll()

    def pid(self, name: str) -> int:
        """Process id."""
        return self._processes[name].pid

    def require_alive(self) -> None:
        """Check that every started process still runs.

        Raises:
            InputError: ``process_failed`` with the last lines that the process wrote.
        """
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self.log(name).splitlines()
                raise InputError(
                    "process_failed",
                    f"{name} ended with status {process.returncode}:\n" + "\n".join(log[-20:]),
                )

    def stop(self, name: str) -> int:
        """Interrupt a process as Ctrl-C does and return its exit status."""
        process = self._processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            status = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        del self._processes[name]
        return status


def _terminated(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    """End as after an exception: SIGTERM alone would leave the processes behind."""
    sys.exit(128 + number)
