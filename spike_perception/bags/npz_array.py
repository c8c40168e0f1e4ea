# SPDX-License-Identifier: Apache-2.0
"""One array of an ``.npz`` file, its header checked before it is unpacked."""

from __future__ import annotations

import sys
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.folder_files import UNREADABLE
from spike_perception.bags.npy_header import read_npy_header

MAX_ARRAY_BYTES = 4 << 30
"""Largest accepted array, unpacked."""


def read_npz_array(archive: zipfile.ZipFile, key: str, kinds: str, dimensions: int) -> NDArray[Any]:
    """Read an array whose header fits what is wanted and the bytes that there are.

    Args:
        archive: the opened file.
        key: name of the array.
        kinds: allowed kinds of element, as NumPy's ``dtype.kind``; never objects.
        dimensions: number of axes.

    Raises:
        ValueError: for anything else, beginning with the key.
    """
    try:
        entry = archive.getinfo(f"{key}.npy")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("its compression is neither none nor deflate")
        with archive.open(entry) as stream:
            header = read_npy_header(stream)
            size = entry.file_size - stream.tell()
            if (
                header.dtype.kind not in kinds
                or len(header.shape) != dimensions
                or min(header.shape, default=0) < 0
            ):
                raise ValueError(f"it is {header.dtype} {list(header.shape)}")
            if header.data_bytes != size or size > MAX_ARRAY_BYTES:
                raise ValueError(
                    f"{size} bytes for {header.dtype} {list(header.shape)}, at most "
                    f"{MAX_ARRAY_BYTES} are read"
                )
            data = stream.read(size)
        if len(data) != size:
            raise ValueError(f"it ends after {len(data)} of {size} bytes")
        if header.dtype.kind == "U":
            _check_characters(data, header.dtype)
    except (ValueError, *UNREADABLE) as error:
        raise ValueError(f"{key}: {error}") from error
    array = np.frombuffer(data, header.dtype, header.elements)
    return array.reshape(header.shape, order="F" if header.by_columns else "C")


def _check_characters(data: bytes, dtype: np.dtype[Any]) -> None:
    """Refuse what is no character of Unicode: of it Python makes no string, or none to be written.

    Raises:
        ValueError: for a number out of range, and for a surrogate.
    """
    codes = np.frombuffer(data, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
    if ((codes > sys.maxunicode) | ((codes >= 0xD800) & (codes < 0xE000))).any():
        raise ValueError("it holds numbers that are no characters")
