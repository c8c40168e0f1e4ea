# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.bags.point_files import decode_points, read_points
from spike_perception.errors import InputError
from spike_perception.sensing.points import PointsError

DTYPE = np.dtype([("x", "<f4"), ("ring", "u1"), ("y", "<f4"), ("z", "<f8"), ("intensity", "<u2")])
TABLE = np.zeros(6, DTYPE)
for name in "xyz":
    TABLE[name] = np.random.default_rng(ord(name)).normal(0, 9, 6).astype(np.float32)
TABLE["intensity"] = np.arange(6) * 1000
TABLE["y"][2] = np.nan
FINITE = np.isfinite(TABLE["y"])
XYZ = np.stack([TABLE[name] for name in "xyz"], axis=1).astype(np.float32)[FINITE]
LINES = "".join(
    f"{p['x']} {p['ring']} {p['y']} {p['z']} {p['intensity']}\n" for p in TABLE
).encode()


def pcd(kind: str, body: bytes, header: str = "") -> bytes:
    header = header or (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x ring y z intensity\n"
        "SIZE 4 1 4 8 2\nTYPE F U F F U\nCOUNT 1 1 1 1 1\nWIDTH 3\nHEIGHT 2\n"
        "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 6\n"
    )
    return header.encode() + f"DATA {kind}\n".encode() + body


def compressed() -> bytes:
    lzf = pytest.importorskip("lzf", reason="python-neo-lzf")
    columns = b"".join(TABLE[name].tobytes() for name in DTYPE.names) + b""
    packed = lzf.compress(columns, 2 * len(columns))
    return struct.pack("<II", len(packed), len(columns)) + packed


def ply(kind: str, body: bytes, before: str = "") -> bytes:
    return (
        f"ply\nformat {kind} 1.0\ncomment a comment\n{before}element vertex 6\n"
        "property float x\nproperty uchar ring\nproperty float y\nproperty double z\n"
        "property ushort intensity\nelement face 1\nproperty list uchar int vertex_indices\n"
        "end_header\n"
    ).encode() + body


BIG = TABLE.astype(DTYPE.newbyteorder(">"))
FACE = struct.pack("<B3i", 3, 0, 1, 2)
OTHER = "element other {}\nproperty short a\nproperty char b\n"
FILES = {
    "ascii.pcd": pcd("ascii", LINES),
    "binary.pcd": pcd("binary", TABLE.tobytes()),
    "crlf.pcd": pcd("ascii", LINES).replace(b"\n", b"\r\n"),
    "ascii.ply": ply("ascii", b"0 0\n" + LINES + b"3 0 1 2\n", OTHER.format(1)),
    "little.ply": ply("binary_little_endian", TABLE.tobytes() + FACE),
    "big.ply": ply("binary_big_endian", b"\0" * 6 + BIG.tobytes(), OTHER.format(2)),
}


@pytest.mark.parametrize("name", [*FILES, "compressed.PCD"])
def test_every_variant(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES.get(name) or pcd("binary_compressed", compressed()))
    points = read_points(path)
    np.testing.assert_allclose(points.xyz, XYZ, rtol=1e-6)
    assert points.intensity is not None
    np.testing.assert_array_equal(points.intensity, TABLE["intensity"][FINITE])
    assert points.dropped == 1


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize(("width", "order"), [(3, "C"), (4, "C"), (6, "F")])
def test_npy(dtype: str, width: int, order: str) -> None:
    table = np.asarray(np.arange(5 * width).reshape(5, width), dtype, order=order)
    file = io.BytesIO()
    np.save(file, table)
    points = decode_points(file.getvalue(), ".npy")
    np.testing.assert_array_equal(points.xyz, table[:, :3].astype(np.float32))
    assert (points.intensity is not None) == (width == 4)


def test_kitti() -> None:
    table = np.arange(20, dtype="<f4").reshape(5, 4)
    points = decode_points(table.tobytes(), ".bin")
    np.testing.assert_array_equal(points.xyz, table[:, :3])
    np.testing.assert_array_equal(points.intensity, table[:, 3])


def npy_header(shape: tuple[int, ...]) -> bytes:
    """A header that says so, and enough zeros for two points."""
    file = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(24)


def npy(table: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, table)
    return file.getvalue()


HUGE = (
    "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 4000000000\nHEIGHT 1\n"
)


@pytest.mark.parametrize(
    ("data", "suffix", "reason"),
    [
        (b"", ".pcd", "undecodable"),
        (b"", ".ply", "undecodable"),
        (b"", ".npy", "undecodable"),
        (b"", ".bin", "empty_cloud"),
        (b"\0" * 15, ".bin", "truncated_data"),
        (b"", ".xyz", "unknown_encoding"),
        (pcd("binary", TABLE.tobytes()[:-1]), ".pcd", "truncated_data"),
        (pcd("ascii", b"".join(LINES.splitlines(True)[:3])), ".pcd", "truncated_data"),
        (pcd("ascii", b"a" + LINES), ".pcd", "undecodable"),
        (pcd("zipped", b""), ".pcd", "unknown_encoding"),
        (pcd("binary", b"", HUGE), ".pcd", "too_large"),
        (pcd("ascii", b"", HUGE), ".pcd", "too_large"),
        (pcd("binary_compressed", b"", HUGE), ".pcd", "too_large"),
        (pcd("binary", b"", HUGE.replace("4 4 4", "4 4")), ".pcd", "undecodable"),
        (pcd("binary", b"", HUGE.replace("4 4 4", "4 -4 4")), ".pcd", "undecodable"),
        (pcd("binary_compressed", b"\0\0\0"), ".pcd", "truncated_data"),
        (pcd("binary_compressed", struct.pack("<II", 4, 114) + b"abc"), ".pcd", "truncated_data"),
        (pcd("binary_compressed", struct.pack("<II", 4, 1 << 31) + b"abcd"), ".pcd", "undecodable"),
        (ply("ascii", b""), ".ply", "truncated_data"),
        (ply("binary_little_endian", TABLE.tobytes()[:-1]), ".ply", "truncated_data"),
        (ply("zipped", b""), ".ply", "unknown_encoding"),
        (ply("ascii", b"").replace(b"float x", b"half x"), ".ply", "undecodable"),
        (ply("ascii", b"").replace(b"vertex 6", b"vertex -6"), ".ply", "undecodable"),
        (ply("ascii", b"").replace(b"vertex 6", b"corner 6"), ".ply", "missing_field"),
        (ply("binary_big_endian", TABLE.tobytes()).replace(b"float x", b"float q"), ".ply",
         "missing_field"),
        (npy(np.zeros((2, 2))), ".npy", "unknown_type"),
        (npy(np.zeros((2, 3), np.int16)), ".npy", "unknown_type"),
        (npy(np.zeros((0, 3))), ".npy", "empty_cloud"),
        (npy_header((0, 10**30)), ".npy", "empty_cloud"),
        (npy_header((-2, 3)), ".npy", "unknown_type"),
        (npy_header((True, 30)), ".npy", "truncated_data"),
        (
            b"FIELDS a x y z\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1%s 1 1 1\nWIDTH 1\n"
            b"DATA ascii\n1 2\n" % (b"0" * 30),
            ".pcd",
            "undecodable",
        ),
        (npy(np.zeros((9, 3)))[:-8], ".npy", "truncated_data"),
        (npy(np.full((9, 3), np.nan)), ".npy", "no_finite_point"),
    ],
)  # fmt: skip
def test_refusals(data: bytes, suffix: str, reason: str) -> None:
    with pytest.raises(PointsError) as refused:
        decode_points(data, suffix)
    assert refused.value.reason == reason


def test_a_damaged_compressed_file() -> None:
    good = compressed()
    bad = good[:8] + bytes(255 - byte for byte in good[8:])
    with pytest.raises(PointsError) as refused:
        decode_points(pcd("binary_compressed", bad), ".pcd")
    assert refused.value.reason == "undecodable"


def test_without_the_package_for_compressed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pcd("binary_compressed", compressed())
    monkeypatch.setitem(sys.modules, "lzf", None)
    with pytest.raises(InputError, match="python-neo-lzf") as refused:
        decode_points(data, ".pcd")
    assert refused.value.reason == "package_missing"


def test_refusals_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_points(tmp_path / "absent.pcd")
    assert refused.value.reason == "points_missing"
    (tmp_path / "short.bin").write_bytes(b"123")
    with pytest.raises(PointsError, match=r"short\.bin"):
        read_points(tmp_path / "short.bin")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damaged_files_are_refused_or_read(name: str, data: st.DataObject) -> None:
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            del content[at : at + data.draw(st.integers(1, 9))]
        if not content:
            break
    try:
        points = decode_points(bytes(content), Path(name).suffix)
    except InputError:
        return
    assert np.isfinite(points.xyz).all()
