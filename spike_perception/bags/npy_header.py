# SPDX-License-Identifier: Apache-2.0
"""The header of a NumPy array file, read before the array is."""

from __future__ import annotations

import math
import tokenize
from typing import IO, Any, NamedTuple

import numpy as np


class NpyHeader(NamedTuple):
    """What a header declares.

    Attributes:
        shape: of the array; sides may be negative, whoever reads on must refuse that.
        by_columns: whether the elements are in Fortran's order.
        dtype: as declared, also of Python objects; whoever reads on must refuse those.
    """

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[Any]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def data_bytes(self) -> int:
        """Bytes that must follow the header."""
        return self.elements * self.dtype.itemsize


def read_npy_header(stream: IO[bytes]) -> NpyHeader:
    """Read the header; the stream then stands at the array's first byte.

    Raises:
        ValueError: for what is no array.
    """
    version = np.lib.format.read_magic(stream)
    try:
        # Headers of later versions, which only tables of many named columns need, may claim 4 GiB,
        # and NumPy reads them whole before it refuses them.
        if version != (1, 0):
            raise ValueError(f"version {version} of the format; 1.0 is read")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    except (tokenize.TokenError, SyntaxError, TypeError, RecursionError) as error:
        raise ValueError(f"a header that makes no sense: {error}") from error
    shape = tuple(int(each) for each in shape)  # a header's True passes for a number
    return NpyHeader(shape, by_columns, dtype)
