# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.sensing.points import (
    DATATYPE,
    MAX_POINTS,
    CloudLayout,
    Field,
    PointsError,
    columns_from_message_fields,
    points_from_message_fields,
)

TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")
XYZ = [Field(name, 4 * k, 7) for k, name in enumerate("xyz")]


def message(
    rows: np.ndarray, *, padding: int = 0, big: bool = False, cut: int = 0
) -> tuple[CloudLayout, bytes]:
    """Layout and bytes of a structured array [height, width], rows padded, the end cut off."""
    height, width = rows.shape
    row_step = width * rows.dtype.itemsize + padding
    data = np.full((height, row_step), 0xA5, np.uint8)
    data[:, : row_step - padding] = (
        np.ascontiguousarray(rows).view(np.uint8).reshape(height, row_step - padding)
    )
    fields = [
        Field(name, offset, DATATYPE[dtype.newbyteorder("=")])
        for name, (dtype, offset, *_) in (rows.dtype.fields or {}).items()
    ]
    layout = CloudLayout(height, width, fields, big, rows.dtype.itemsize, row_step)
    return layout, data.tobytes()[: data.size - cut]


def simple(xyz: np.ndarray) -> tuple[CloudLayout, bytes]:
    """An unorganised cloud of float32 coordinates."""
    return CloudLayout(1, len(xyz), XYZ, False, 12, 12 * len(xyz)), xyz.astype("<f4").tobytes()


@st.composite
def clouds(draw: st.DrawFn) -> dict[str, Any]:
    """A structured array of any layout, and how it is sent."""
    big = draw(st.booleans())
    names = ["x", "y", "z", *draw(st.lists(st.sampled_from("abcdef"), max_size=4, unique=True))]
    if draw(st.booleans()):
        names.append("intensity")
    kinds = {name: draw(st.sampled_from(TYPES)) for name in names}
    kinds |= {name: draw(st.sampled_from(("f4", "f8"))) for name in "xyz"}
    if draw(st.booleans()):
        kinds |= dict.fromkeys("xyz", "f4")
    offsets, at = {}, 0
    for name in draw(st.permutations(names)) if draw(st.booleans()) else names:
        at += draw(st.integers(0, 3))
        offsets[name] = at
        at += np.dtype(kinds[name]).itemsize
    dtype = np.dtype(
        {
            "names": names,
            "formats": [(">" if big else "<") + kinds[name] for name in names],
            "offsets": [offsets[name] for name in names],
            "itemsize": at + draw(st.integers(0, 5)),
        }
    )
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    raw = rng.integers(0, 256, (height, width, dtype.itemsize), dtype=np.uint8)
    rows = raw.view(dtype)[..., 0]
    for name in "xyz":
        values = rng.normal(0, 30, (height, width))
        values[rng.random((height, width)) < draw(st.sampled_from((0, 0.3)))] = draw(
            st.sampled_from((np.nan, np.inf, -np.inf))
        )
        rows[name] = values
    padding = draw(st.integers(0, 7))
    return {
        "rows": rows,
        "big": big,
        "padding": padding,
        "cut": draw(st.sampled_from((0, padding))),
    }


@settings(max_examples=150, deadline=None)
@given(clouds())
def test_any_layout(cloud: dict[str, Any]) -> None:
    rows = cloud["rows"]
    layout, data = message(**cloud)
    xyz = np.stack([rows[name].astype(np.float32).ravel() for name in "xyz"], axis=1)
    finite = np.isfinite(xyz).all(axis=1)
    if not finite.any():
        with pytest.raises(PointsError) as refused:
            points_from_message_fields(layout, data)
        assert refused.value.reason == "no_finite_point"
        return
    points = points_from_message_fields(layout, data)
    np.testing.assert_array_equal(points.xyz, xyz[finite])
    assert points.xyz.dtype == np.float32
    assert points.dropped == np.count_nonzero(~finite)
    if "intensity" not in rows.dtype.names:
        assert points.intensity is None
        return
    with np.errstate(all="ignore"):
        expected = rows["intensity"].astype(np.float32).ravel()[finite]
    expected[~np.isfinite(expected)] = 0
    assert points.intensity is not None and points.intensity.dtype == np.float32
    np.testing.assert_array_equal(points.intensity, expected)


@settings(max_examples=300, deadline=None)
@given(
    st.builds(
        CloudLayout,
        st.integers(-1, 5),
        st.integers(-1, 5) | st.just(1 << 31),
        st.lists(
            st.builds(
                Field,
                st.sampled_from(["x", "y", "z", "intensity", ""]),
                st.integers(-4, 40) | st.just(1 << 32),
                st.integers(-1, 10),
                st.integers(0, 3),
            ),
            max_size=6,
        ),
        st.booleans(),
        st.integers(0, 48),
        st.integers(0, 300),
    ),
    st.binary(max_size=400),
)
def test_nonsense_is_refused_or_read(layout: CloudLayout, data: bytes) -> None:
    try:
        points = points_from_message_fields(layout, data)
    except PointsError:
        return
    assert len(points.xyz) + points.dropped == layout.width * layout.height


def test_a_plain_cloud_is_not_copied() -> None:
    xyz = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    layout, data = simple(xyz)
    assert not points_from_message_fields(layout, data).xyz.flags.writeable
    buffer = bytearray(data)
    seen = points_from_message_fields(layout, buffer).xyz
    assert np.shares_memory(seen, np.frombuffer(buffer, np.uint8))


def test_columns_of_events() -> None:
    dtype = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<u4"), ("p", "u1")])
    rows = np.zeros((1, 7), dtype)
    rows["t"] = np.arange(7)
    t, p = columns_from_message_fields(*message(rows), ("t", "p"))
    assert t.dtype == np.uint32 and p.dtype == np.uint8
    np.testing.assert_array_equal(t, rows["t"])


def test_doubles_beyond_float32_are_dropped() -> None:
    rows = np.zeros((1, 3), [("x", "<f8"), ("y", "<f8"), ("z", "<f8")])
    rows["y"][0, 1] = 1e300
    points = points_from_message_fields(*message(rows))
    assert points.dropped == 1
    assert points.xyz.shape == (2, 3)


def test_a_million_points() -> None:
    xyz = np.ones((1_000_000, 3), np.float32)
    xyz[::2, 1] = np.nan
    points = points_from_message_fields(*simple(xyz))
    assert points.xyz.shape == (500_000, 3)
    assert points.dropped == 500_000


def test_a_count_of_zero_is_one() -> None:
    layout, data = simple(np.ones((2, 3), np.float32))
    old = [dataclasses.replace(field, count=0) for field in layout.fields]
    assert len(points_from_message_fields(dataclasses.replace(layout, fields=old), data).xyz) == 2


def test_an_unusable_intensity_counts_as_absent() -> None:
    layout, data = simple(np.ones((2, 3), np.float32))
    layout = dataclasses.replace(layout, fields=[*XYZ, Field("intensity", 0, 99)])
    assert points_from_message_fields(layout, data).intensity is None


def swapped(name: str, **change: int) -> list[Field]:
    return [dataclasses.replace(f, **change) if f.name == name else f for f in XYZ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"width": 0, "row_step": 0}, "empty_cloud"),
        ({"height": 0}, "empty_cloud"),
        ({"width": -1}, "bad_field"),
        ({"width": MAX_POINTS + 1}, "too_large"),
        ({"width": 1 << 31, "height": 1 << 31}, "too_large"),
        ({"row_step": 47}, "wrong_step"),
        ({"row_step": 0}, "wrong_step"),
        ({"point_step": 11}, "bad_field"),
        ({"point_step": 13}, "wrong_step"),
        ({"height": 2}, "truncated_data"),
        ({"width": 5, "row_step": 60}, "truncated_data"),
        ({"fields": XYZ[:2]}, "missing_field"),
        ({"fields": []}, "missing_field"),
        ({"fields": [*XYZ, XYZ[0]]}, "bad_field"),
        ({"fields": swapped("y", count=3)}, "bad_field"),
        ({"fields": swapped("y", offset=-1)}, "bad_field"),
        ({"fields": swapped("z", offset=9)}, "bad_field"),
        ({"fields": swapped("z", datatype=0)}, "unknown_type"),
        ({"fields": swapped("z", datatype=9)}, "unknown_type"),
        ({"fields": swapped("z", datatype=5)}, "unknown_type"),
    ],
)
def test_refusals(change: dict[str, Any], reason: str) -> None:
    layout, data = simple(np.ones((4, 3), np.float32))
    with pytest.raises(PointsError) as refused:
        points_from_message_fields(dataclasses.replace(layout, **change), data)
    assert refused.value.reason == reason


def test_nothing_finite() -> None:
    with pytest.raises(PointsError) as refused:
        points_from_message_fields(*simple(np.full((9, 3), np.nan, np.float32)))
    assert refused.value.reason == "no_finite_point"
