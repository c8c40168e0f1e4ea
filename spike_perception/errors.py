# SPDX-License-Identifier: Apache-2.0
"""The one error family of the suite: input that cannot be used, and why."""

from __future__ import annotations


class InputError(ValueError):
    """Input from outside (message, file, parameter, command line) that cannot be used.

    Nodes count these by ``reason`` in ``/diagnostics`` and go on; commands print the message and
    end with status 2.

    Attributes:
        reason: short snake_case key, stable across releases, such as ``"truncated_data"``.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Store the reason beside the message.

        Args:
            reason: short snake_case key under which the event is counted.
            message: what was given, what is allowed and what to do, in one or two sentences.
        """
        super().__init__(message)
        self.reason = reason
