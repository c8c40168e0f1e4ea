# SPDX-License-Identifier: Apache-2.0
"""What a result was made with, written beside it."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from typing import Any

from spike_perception import __version__

_LIBRARIES = ("numpy", "cv2", "faiss", "torch", "openvino", "onnxruntime", "mujoco")


def versions() -> dict[str, str]:
    """Versions of the suite, of Python and of the libraries in use by this process."""
    found = {"spike_perception": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        if name in sys.modules:
            found[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
    return found


def provenance() -> dict[str, Any]:
    """Command line, software versions and machine, under the keys used in every result."""
    return {
        "command_line": shlex.join(sys.argv),
        "versions": versions(),
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        },
    }
