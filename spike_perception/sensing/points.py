# SPDX-License-Identifier: Apache-2.0
"""Point arrays from the bytes of ``sensor_msgs/PointCloud2``.

Everything here comes from outside and is checked before anything is allocated: whatever the bytes
are, the answer is a cloud or a :class:`PointsError`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError

RawBytes: TypeAlias = "bytes | bytearray | memoryview | array[int] | NDArray[np.uint8]"

MAX_POINTS = 1 << 22
"""Largest accepted cloud (4.2 million points): several merged sensors, or a map in a file."""

# sensor_msgs/PointField: INT8 is 1, FLOAT64 is 8.
_DATATYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
DATATYPE = {np.dtype(name): number for number, name in enumerate(_DATATYPES, 1)}
"""Number in ``sensor_msgs/PointField`` of each NumPy type it knows."""
_INTENSITY = ("intensity", "intensities", "i", "reflectivity")


class PointsError(InputError):
    """A point cloud that cannot be used.

    Reasons: ``empty_cloud``, ``no_finite_point``, ``too_large``, ``wrong_step``,
    ``truncated_data``, ``missing_field``, ``bad_field``, ``unknown_type``; for files also
    ``unknown_encoding`` and ``undecodable``.
    """


@dataclass(frozen=True)
class Field:
    """One ``sensor_msgs/PointField``.

    Attributes:
        name: such as ``"x"``.
        offset: bytes from the start of a point.
        datatype: 1 to 8: int8, uint8, int16, uint16, int32, uint32, float32, float64.
        count: values; 0 is taken as 1, as PCL does.
    """

    name: str
    offset: int
    datatype: int
    count: int = 1


@dataclass(frozen=True)
class CloudLayout:
    """How the bytes of a cloud are laid out: ``sensor_msgs/PointCloud2`` less header and data.

    Attributes:
        height: rows; 1 for an unorganised cloud.
        width: points of a row.
        fields: of every point; those that are not asked for may be anything.
        is_bigendian: whether values have their high byte first.
        point_step: bytes from one point to the next.
        row_step: bytes from one row to the next; may exceed a row's own bytes (padding).
    """

    height: int
    width: int
    fields: Sequence[Field]
    is_bigendian: bool
    point_step: int
    row_step: int


class Points(NamedTuple):
    """The finite points of a cloud.

    Attributes:
        xyz: float32 ``[N, 3]`` (m), in the sensor's frame, N at least 1.
        intensity: float32 ``[N]`` in the driver's own unit, None where the cloud has none.
        dropped: points left out because a coordinate is NaN or infinite.
    """

    xyz: NDArray[np.float32]
    intensity: NDArray[np.float32] | None
    dropped: int


def columns_from_message_fields(
    layout: CloudLayout, data: RawBytes, names: Sequence[str]
) -> tuple[NDArray[Any], ...]:
    """The named fields of a cloud as views of its bytes.

    Args:
        layout: the message's own description.
        data: the bytes; what lies past the last row is ignored, and the last row's padding may be
            missing.
        names: fields wanted, of one value each.

    Returns:
        For each name ``[height, width]`` in the field's own type and byte order; a view of
        ``data``, read-only if ``data`` is.

    Raises:
        PointsError: ``empty_cloud``, ``too_large``, ``wrong_step``, ``truncated_data``,
            ``missing_field``, ``bad_field`` or ``unknown_type``.
    """
    height, width = layout.height, layout.width
    if height < 0 or width < 0:
        raise PointsError("bad_field", f"cloud is {width}x{height}; neither may be negative")
    if height * width > MAX_POINTS:
        raise PointsError(
            "too_large",
            f"cloud is {width}x{height} = {height * width} points; at most {MAX_POINTS} are "
            "accepted: thin it out first",
        )
    types = [_field_type(layout, name) for name in names]
    if height * width == 0:
        raise PointsError("empty_cloud", f"cloud is {width}x{height}; it holds no point")
    row_bytes = width * layout.point_step
    if layout.row_step < row_bytes:
        raise PointsError(
            "wrong_step",
            f"row_step is {layout.row_step} bytes, but {width} points of {layout.point_step} "
            f"bytes take {row_bytes}",
        )
    buffer = np.frombuffer(data, np.uint8)
    needed = layout.row_step * (height - 1) + row_bytes
    if buffer.size < needed:
        raise PointsError(
            "truncated_data",
            f"{buffer.size} bytes of data, but {width}x{height} points with point_step "
            f"{layout.point_step} and row_step {layout.row_step} take {needed}",
        )
    strides = (layout.row_step, layout.point_step)
    return tuple(
        np.ndarray((height, width), dtype, buffer.data, offset, strides) for dtype, offset in types
    )


def _field_type(layout: CloudLayout, name: str) -> tuple[np.dtype[Any], int]:
    """Type, with byte order, and offset of a field of one value."""
    found = [field for field in layout.fields if field.name == name]
    if not found:
        there = ", ".join(field.name for field in layout.fields) or "none"
        raise PointsError("missing_field", f"cloud has no field {name!r}; its fields: {there}")
    if len(found) > 1:
        raise PointsError("bad_field", f"cloud has {len(found)} fields named {name!r}")
    field = found[0]
    if not 1 <= field.datatype <= len(_DATATYPES):
        raise PointsError(
            "unknown_type",
            f"field {name!r} has datatype {field.datatype}; allowed are 1 (int8) to 8 (float64)",
        )
    if field.count not in (0, 1):
        raise PointsError("bad_field", f"field {name!r} holds {field.count} values; allowed is 1")
    dtype = np.dtype((">" if layout.is_bigendian else "<") + _DATATYPES[field.datatype - 1])
    if not 0 <= field.offset <= layout.point_step - dtype.itemsize:
        raise PointsError(
            "bad_field",
            f"field {name!r} takes bytes {field.offset} to {field.offset + dtype.itemsize}, but a "
            f"point has {layout.point_step} (point_step)",
        )
    return dtype, field.offset


def points_from_message_fields(layout: CloudLayout, data: RawBytes) -> Points:
    """Turn the fields of ``sensor_msgs/PointCloud2`` into finite points.

    ``is_dense`` is not asked for: drivers set it wrongly, and looking costs less than a fault.

    Args:
        layout: the message's own description. Coordinates are float32 or float64: integers are
            refused, since the message has no place for their scale. The intensity is the first
            field of the name ``intensity``, ``intensities``, ``i`` or ``reflectivity``, of any
            type; an unusable one counts as absent, and what is not finite in it becomes 0.
        data: the bytes, see :func:`columns_from_message_fields`.

    Returns:
        The points, row by row. Where x, y and z are neighbouring native float32, rows have no
        padding and every point is finite, ``xyz`` is a view of ``data``, not a copy, and read-only
        if ``data`` is.

    Raises:
        PointsError: as :func:`columns_from_message_fields`; ``unknown_type`` also for integer
            coordinates, and ``no_finite_point``.
    """
    columns = columns_from_message_fields(layout, data, ("x", "y", "z"))
    for name, column in zip("xyz", columns, strict=True):
        if column.dtype.kind != "f":
            raise PointsError(
                "unknown_type",
                f"coordinate {name!r} is {column.dtype.name}; allowed are float32 and float64 (m)",
            )
    intensity = None
    present = {field.name for field in layout.fields}
    for name in _INTENSITY:
        if name in present:
            try:
                (intensity,) = columns_from_message_fields(layout, data, (name,))
            except PointsError:
                continue
            break
    return finite_points(_joined(layout, data, columns), intensity)


def _joined(
    layout: CloudLayout, data: RawBytes, columns: tuple[NDArray[Any], ...]
) -> NDArray[np.float32]:
    """Three columns as float32 [height, width, 3]; a view of the bytes where they allow it."""
    x, y, z = (
        next(field.offset for field in layout.fields if field.name == name) for name in "xyz"
    )
    native = all(column.dtype == np.dtype(np.float32) for column in columns)
    if native and (y, z) == (x + 4, x + 8):
        shape, strides = (*columns[0].shape, 3), (*columns[0].strides, 4)
        buffer = np.frombuffer(data, np.uint8).data
        return np.ndarray(shape, np.dtype(np.float32), buffer, x, strides)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is dropped
        return np.stack(columns, axis=-1, dtype=np.float32, casting="same_kind")


def finite_points(xyz: NDArray[np.float32], intensity: NDArray[Any] | None = None) -> Points:
    """Leave out the points with a NaN or infinite coordinate, and what belongs to them.

    Args:
        xyz: float32 ``[..., 3]`` (m).
        intensity: ``[...]`` of any type, or None.

    Raises:
        PointsError: ``no_finite_point``.
    """
    xyz = xyz.reshape(-1, 3)
    finite = np.isfinite(xyz).all(axis=1)
    kept = int(np.count_nonzero(finite))
    if not kept:
        raise PointsError(
            "no_finite_point", f"none of the {len(xyz)} points has three finite coordinates"
        )
    if intensity is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            intensity = intensity.reshape(-1).astype(np.float32)
        intensity = np.nan_to_num(intensity, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    dropped = len(xyz) - kept
    if dropped:
        xyz = xyz[finite]
        intensity = None if intensity is None else intensity[finite]
    return Points(xyz, intensity, dropped)
