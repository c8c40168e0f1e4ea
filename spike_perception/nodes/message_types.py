# SPDX-License-Identifier: Apache-2.0
"""Message types by name, of packages that may not be installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def message_class(message_type: str) -> Any | None:
    """The Python class of ``package/msg/Name``, or None where it is not installed."""
    package, _, name = message_type.partition("/msg/")
    if not (package.isidentifier() and name.isidentifier()):  # as a bag may have it
        return None
    try:
        return getattr(import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None
