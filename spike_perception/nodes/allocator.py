# SPDX-License-Identifier: Apache-2.0
"""Memory that is freed goes back to the system."""

from __future__ import annotations

import ctypes
import platform

# Arrays from this size on get pages of their own, which are given back when they are freed; of
# smaller ones as much may stay at the end of the heap [bytes]. An image of 640x480 as float32 is
# below it: it is needed again with the next frame.
KEPT_BYTES = 1 << 22
# malloc.h of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def give_back_freed_memory() -> bool:
    """Bound what glibc's malloc keeps of freed memory; other C libraries are left as they are.

    By default glibc lifts both thresholds, up to 32 and 64 MB, whenever something larger is freed,
    as weights are after loading; and threads have heaps (arenas) of their own, eight a core. Each
    of them then keeps what the largest flood of messages took, and a node that is activated again
    begins another thread. Threads of Python take turns anyhow: they can share one heap.

    Call it before threads begin: heaps that are there stay in use.

    Returns:
        Whether it was done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    limits = {_M_ARENA_MAX: 1, _M_MMAP_THRESHOLD: KEPT_BYTES, _M_TRIM_THRESHOLD: KEPT_BYTES}
    return all(mallopt(name, limit) for name, limit in limits.items())
