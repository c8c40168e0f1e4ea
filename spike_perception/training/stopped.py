# SPDX-License-Identifier: Apache-2.0
"""The end of a training that somebody asked for."""

from __future__ import annotations

import signal


class Stopped(Exception):  # noqa: N818  (no error: somebody asked for it)
    """Training ended early on a signal; the checkpoint is written."""

    def __init__(self, number: int, step: int) -> None:
        """Keep the signal's number and the steps done."""
        super().__init__(f"stopped by {signal.Signals(number).name} after step {step}")
        self.number = number
        self.step = step
