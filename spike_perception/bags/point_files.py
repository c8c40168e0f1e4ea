# SPDX-License-Identifier: Apache-2.0
"""Point clouds as files: PCL's ``.pcd``, Stanford's ``.ply``, NumPy's ``.npy``, KITTI's ``.bin``.

The libraries at hand either are licensed otherwise than this project (plyfile) or allocate what a
header claims before they look at the data. Both formats are a header before the bytes of a
``PointCloud2``, so only the headers are read here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spike_perception.bags.npy_header import read_npy_header
from spike_perception.errors import InputError
from spike_perception.sensing.points import (
    DATATYPE,
    MAX_POINTS,
    CloudLayout,
    Field,
    Points,
    PointsError,
    finite_points,
    points_from_message_fields,
)

POINT_SUFFIXES = (".bin", ".npy", ".pcd", ".ply")
MAX_FILE_BYTES = 1 << 30
"""Largest accepted file of points."""

_HEADER_BYTES = 1 << 16


def read_points(path: str | Path) -> Points:
    """The finite points of one file, told apart by its suffix.

    Raises:
        InputError: ``points_missing`` if there is no such file, else as :func:`decode_points`; the
            message names the file.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PointsError("too_large", f"it has more than {MAX_FILE_BYTES} bytes")
        return decode_points(path.read_bytes(), path.suffix)
    except OSError as error:
        raise InputError("points_missing", f"{path} cannot be read: {error}") from error
    except InputError as error:
        raise type(error)(error.reason, f"{path}: {error}") from error


def decode_points(data: bytes, suffix: str) -> Points:
    """Decode the bytes of a file of points.

    Args:
        data: the whole file.
        suffix: ``.pcd`` (ascii, binary or binary_compressed), ``.ply`` (ascii or binary, the
            ``vertex`` element), ``.npy`` (``[N, 3]`` or more columns; the fourth of four is the
            intensity), ``.bin`` (KITTI: x, y, z, intensity as little-endian float32); any case.

    Raises:
        PointsError: ``unknown_encoding`` for another suffix or a variant that is not read,
            ``undecodable`` for a header that makes no sense, or a reason of
            :func:`~spike_perception.sensing.points.points_from_message_fields`.
        InputError: ``package_missing`` for a compressed ``.pcd`` where python-neo-lzf is not
            installed.
    """
    decoders = {".pcd": _from_pcd, ".ply": _from_ply, ".npy": _from_npy, ".bin": _from_bin}
    decode = decoders.get(suffix.lower())
    if decode is None:
        raise PointsError(
            "unknown_encoding",
            f"a file of points ends in {', '.join(POINT_SUFFIXES)}; this one in {suffix!r}",
        )
    return decode(data)


@dataclass(frozen=True)
class _Column:
    """One field as a header declares it; ``dtype`` None: a type PointCloud2 does not know."""

    name: str
    size: int
    dtype: np.dtype[np.generic] | None
    count: int = 1


def _layout(columns: Sequence[_Column], width: int, height: int, big: bool) -> CloudLayout:
    """The layout of columns that follow one another in every point."""
    fields, offset = [], 0
    for column in columns:
        datatype = 0 if column.dtype is None else DATATYPE[column.dtype]
        fields.append(Field(column.name, offset, datatype, column.count))
        offset += column.size * column.count
    return CloudLayout(height, width, fields, big, offset, offset * width)


def _from_text(data: bytes, columns: Sequence[_Column], count: int, skip: int = 0) -> Points:
    """Points written as numbers in lines, after ``skip`` lines of something else."""
    if count > MAX_POINTS:
        raise PointsError("too_large", f"cloud of {count} points; at most {MAX_POINTS} are read")
    if len(data) < 2 * count:
        raise PointsError("truncated_data", f"{len(data)} bytes cannot hold {count} lines")
    wanted, values = [], 0
    for column in columns:
        wanted += [(column, values)] * (column.name in ("x", "y", "z", "intensity"))
        values += column.count
    lines = io.BytesIO(data)
    for _ in range(skip):
        lines.readline()
    try:
        table = np.loadtxt(
            lines, np.float64, usecols=[at for _, at in wanted], max_rows=count, ndmin=2
        )
    except (ValueError, OverflowError) as error:
        raise PointsError("undecodable", f"a line of points cannot be read: {error}") from error
    if len(table) != count:
        raise PointsError("truncated_data", f"{len(table)} lines of points; header: {count}")
    kept = [_Column(column.name, 8, np.dtype(np.float64)) for column, _ in wanted]
    native = np.ascontiguousarray(table, "<f8")
    return points_from_message_fields(_layout(kept, count, 1, False), native.view(np.uint8).ravel())


# --- .pcd ---------------------------------------------------------------------------------------


def _from_pcd(data: bytes) -> Points:
    """PCD v0.7 and its forerunners, https://pointclouds.org/documentation/tutorials/pcd_file_format.html."""
    found = re.search(rb"^DATA[ \t]+(\w+)[ \t]*\r?\n", data[:_HEADER_BYTES], re.MULTILINE)
    if not found:
        raise PointsError("undecodable", "no line DATA in the header of the PCD file")
    header: dict[str, list[str]] = {}
    for line in data[: found.start()].decode("latin-1").splitlines():
        key, *words = line.split("#")[0].split() or [""]
        header[key.upper()] = words
    columns, width, height = _pcd_columns(header)
    kind, body = found[1].decode().lower(), memoryview(data)[found.end() :]
    layout = _layout(columns, width, height, False)
    if kind == "ascii":
        return _from_text(bytes(body), columns, width * height)
    if kind == "binary":
        return points_from_message_fields(layout, body)
    if kind == "binary_compressed":
        return _from_compressed_pcd(bytes(body), columns, layout)
    raise PointsError(
        "unknown_encoding", f"PCD data is {kind!r}; read are ascii, binary and binary_compressed"
    )


_PCD_KINDS = {"F": "f", "I": "i", "U": "u"}


def _pcd_columns(header: dict[str, list[str]]) -> tuple[list[_Column], int, int]:
    """Columns, width and height; COUNT defaults to 1 and HEIGHT to 1, as PCL has it."""
    try:
        names = header.get("FIELDS") or header["COLUMNS"]
        sizes = [int(word) for word in header["SIZE"]]
        kinds = [_PCD_KINDS[word] for word in header["TYPE"]]
        counts = [int(word) for word in header.get("COUNT", ["1"] * len(names))]
        width = int(header["WIDTH"][0] if header.get("WIDTH") else header["POINTS"][0])
        height = int(header["HEIGHT"][0]) if header.get("HEIGHT") else 1
        points = int(header["POINTS"][0]) if header.get("POINTS") else width * height
        if min(*sizes, *counts, width, height, 1) < 0 or points != width * height:
            raise ValueError(f"{width} columns and {height} rows for {points} points")
        known = {(str(each.kind), each.itemsize): each for each in DATATYPE}
        columns = [
            _Column(name, size, known.get((kind, size)), count)
            for name, size, kind, count in zip(names, sizes, kinds, counts, strict=True)
        ]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise PointsError("undecodable", f"the PCD header is wrong: {error!r}") from error
    return columns, width, height


def _from_compressed_pcd(data: bytes, columns: Sequence[_Column], layout: CloudLayout) -> Points:
    """LZF-compressed columns, each of them whole, after two uint32: packed and unpacked bytes."""
    count = layout.width * layout.height
    if count > MAX_POINTS:
        raise PointsError("too_large", f"cloud of {count} points; at most {MAX_POINTS} are read")
    if len(data) < 8:
        raise PointsError("truncated_data", "PCD data ends before the sizes of its packed bytes")
    packed, unpacked = (int(size) for size in np.frombuffer(data, "<u4", 2))
    if unpacked != layout.point_step * count or unpacked > MAX_FILE_BYTES:
        raise PointsError(
            "undecodable",
            f"PCD data unpacks to {unpacked} bytes; the header says {layout.point_step * count}",
        )
    if len(data) - 8 < packed:
        raise PointsError("truncated_data", f"{len(data) - 8} packed bytes; header: {packed}")
    try:
        import lzf
    except ImportError as error:
        raise InputError(
            "package_missing", "a compressed PCD file needs: pip install python-neo-lzf"
        ) from error
    try:
        plain = lzf.decompress(data[8 : 8 + packed], unpacked)
    except ValueError as error:
        raise PointsError("undecodable", f"PCD data cannot be unpacked: {error}") from error
    if plain is None or len(plain) != unpacked:
        raise PointsError("undecodable", "PCD data cannot be unpacked to the size it states")
    # Each column is whole, one after the other; side by side they are points as elsewhere.
    rows = np.empty((count, layout.point_step), np.uint8)
    at = 0
    for column, field in zip(columns, layout.fields, strict=True):
        size = column.size * column.count
        part = np.frombuffer(plain, np.uint8, size * count, at).reshape(count, size)
        rows[:, field.offset : field.offset + size] = part
        at += size * count
    return points_from_message_fields(layout, rows.reshape(-1))


# --- .ply ---------------------------------------------------------------------------------------

_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_PLY_END = re.compile(rb"^end_header[ \t]*\r?\n", re.MULTILINE)


def _from_ply(data: bytes) -> Points:
    """PLY 1.0 (Turk, 1994); other elements than ``vertex`` are passed over."""
    found = _PLY_END.search(data[:_HEADER_BYTES])
    if not data.startswith(b"ply") or not found:
        raise PointsError("undecodable", "no line 'ply' or 'end_header' in the PLY file")
    kind, elements = "", list[tuple[str, int, list[_Column]]]()
    lists = set[str]()
    for line in data[: found.start()].decode("latin-1").splitlines()[1:]:
        try:
            match line.split():
                case ["format", kind, "1.0"]:
                    pass
                case ["element", name, number]:
                    elements.append((name, int(number), []))
                case ["property", "list", _, _, _]:
                    lists.add(elements[-1][0])
                case ["property", word, name]:
                    dtype = np.dtype(_PLY_TYPES[word])
                    elements[-1][2].append(_Column(name, dtype.itemsize, dtype))
                case ["comment" | "obj_info", *_] | []:
                    pass
                case _:
                    raise ValueError("not understood")
        except (ValueError, KeyError, IndexError) as error:
            raise PointsError("undecodable", f"PLY header, line {line!r}: {error!r}") from error
    skip_lines = skip_bytes = 0
    for name, count, columns in elements:
        if count < 0 or (name in lists and name == "vertex"):
            raise PointsError("undecodable", f"PLY element {name}: {count} of them, or with lists")
        if name == "vertex":
            break
        if name in lists and kind != "ascii":
            raise PointsError("unknown_encoding", f"PLY element {name}, with lists, before vertex")
        skip_lines += count
        skip_bytes += count * sum(column.size for column in columns)
    else:
        raise PointsError("missing_field", "the PLY file has no element vertex")
    body = memoryview(data)[found.end() :]
    if kind == "ascii":
        if skip_lines > len(body):
            raise PointsError("truncated_data", f"PLY: {len(body)} bytes for {skip_lines} lines")
        return _from_text(bytes(body), columns, count, skip_lines)
    if kind not in ("binary_little_endian", "binary_big_endian"):
        raise PointsError("unknown_encoding", f"PLY format {kind!r} is not known")
    layout = _layout(columns, count, 1, kind == "binary_big_endian")
    return points_from_message_fields(layout, body[skip_bytes:])


# --- .npy and .bin ------------------------------------------------------------------------------


def _from_npy(data: bytes) -> Points:
    file = io.BytesIO(data)
    try:
        header = read_npy_header(file)
    except ValueError as error:
        raise PointsError("undecodable", f"no NumPy array: {error!r}") from error
    shape, by_columns, dtype = header
    if len(shape) != 2 or shape[0] < 0 or shape[1] < 3 or dtype.kind != "f":
        raise PointsError(
            "unknown_type",
            f"array {dtype} {list(shape)}; points are an array of floats [N, 3] or wider (m)",
        )
    body = memoryview(data)[file.tell() :]
    if shape[0] > MAX_POINTS:
        raise PointsError("too_large", f"cloud of {shape[0]} points; at most {MAX_POINTS}")
    if not shape[0]:
        raise PointsError("empty_cloud", "the array holds no point")
    if len(body) < header.data_bytes:
        raise PointsError("truncated_data", f"{len(body)} bytes for {dtype} {list(shape)}")
    table = np.frombuffer(body, dtype, header.elements)
    table = table.reshape(shape, order="F" if by_columns else "C")
    with np.errstate(over="ignore"):
        xyz = table[:, :3].astype(np.float32, copy=False)
    return finite_points(xyz, table[:, 3] if shape[1] == 4 else None)


def _from_bin(data: bytes) -> Points:
    if len(data) % 16:
        raise PointsError("truncated_data", f"{len(data)} bytes; a point takes 16")
    names = ("x", "y", "z", "intensity")
    columns = [_Column(name, 4, np.dtype(np.float32)) for name in names]
    return points_from_message_fields(_layout(columns, len(data) // 16, 1, False), data)
