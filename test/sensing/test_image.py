# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.sensing.image import (
    ImageError,
    decode_compressed,
    encodings,
    image_from_message_fields,
)

RNG = np.random.default_rng(0)


def rgb(height: int = 6, width: int = 8) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def read(pixels: np.ndarray, encoding: str, *, big: bool = False, padding: int = 0) -> np.ndarray:
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return image_from_message_fields(height, width, encoding, big, rows.shape[1], rows.tobytes())


@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "8UC3", "8UC4"])
def test_colour_orders(encoding: str, padding: int) -> None:
    image = rgb()
    order = [2, 1, 0] if encoding in ("bgr8", "bgra8", "8UC3", "8UC4") else [0, 1, 2]
    pixels = image[..., order]
    if encoding in ("rgba8", "bgra8", "8UC4"):
        pixels = np.concatenate([pixels, np.full((6, 8, 1), 9, np.uint8)], axis=2)
    np.testing.assert_array_equal(read(pixels, encoding, padding=padding), image)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey(encoding: str) -> None:
    grey = rgb()[..., 0]
    np.testing.assert_array_equal(read(grey, encoding, padding=3), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", ["mono16", "rgb16", "bgr16", "rgba16"])
def test_sixteen_bits_keep_the_high_byte(encoding: str, big: bool) -> None:
    channels = {"mono16": 1, "rgba16": 4}.get(encoding, 3)
    values = RNG.integers(0, 1 << 16, (4, 6, channels), dtype=np.uint16)
    seen = read(values.astype(">u2" if big else "<u2"), encoding, big=big, padding=1)
    high = (values >> 8).astype(np.uint8)
    expected = {
        "mono16": high[..., [0, 0, 0]],
        "bgr16": high[..., ::-1],
    }.get(encoding, high[..., :3])
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("shape", [(2, 2), (6, 8), (5, 7), (1, 6)])
def test_bayer_of_one_colour_gives_that_colour(
    shape: tuple[int, int], pattern: str, bits: int
) -> None:
    colour = {"r": 200, "g": 90, "b": 30}
    mosaic = np.empty(shape, np.uint8)
    for at, letter in enumerate(pattern):
        mosaic[at // 2 :: 2, at % 2 :: 2] = colour[letter]
    pixels = mosaic if bits == 8 else mosaic.astype(np.uint16) << 8
    seen = read(pixels, f"bayer_{pattern}{bits}")
    assert seen.shape == (*shape, 3)
    if min(shape) > 1:  # one row of a mosaic lacks a colour
        np.testing.assert_array_equal(seen, np.broadcast_to([200, 90, 30], seen.shape))


@pytest.mark.parametrize("encoding", ["uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv21"])
def test_yuv_of_red(encoding: str) -> None:
    y, u, v = 81, 90, 240  # BT.601 limited range
    if encoding == "nv21":
        data = bytes([y] * 24 + [v, u] * 6)
        seen = image_from_message_fields(4, 6, encoding, 0, 6, data)
    else:
        pair = [u, y, v, y] if encoding in ("uyvy", "yuv422") else [y, u, y, v]
        seen = image_from_message_fields(4, 6, encoding, 0, 12, bytes(pair * 12))
    assert seen.shape == (4, 6, 3)
    assert np.abs(seen.astype(int) - [255, 0, 0]).max() <= 3


def test_rgb8_is_not_copied() -> None:
    data = np.arange(2 * 11, dtype=np.uint8)
    seen = image_from_message_fields(2, 3, "rgb8", 0, 11, data)
    assert np.shares_memory(seen, data)
    data[11] = 200
    assert seen[1, 0, 0] == 200


def test_last_row_may_lack_its_padding_and_more_may_follow() -> None:
    short = image_from_message_fields(2, 3, "rgb8", 0, 16, bytes(16 + 9))
    assert short.shape == (2, 3, 3)
    assert image_from_message_fields(2, 3, "rgb8", 0, 16, bytes(99)).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ((0, 4, "rgb8", 0, 12, b""), "zero_size"),
        ((4, 0, "mono8", 0, 0, b""), "zero_size"),
        ((2, 4, "rgb8", 0, 11, bytes(24)), "wrong_step"),
        ((2, 3, "uyvy", 0, 6, bytes(24)), "wrong_step"),
        ((2, 4, "rgb8", 0, 12, bytes(23)), "truncated_data"),
        ((2, 4, "mono16", 0, 8, bytes(8)), "truncated_data"),
        ((2, 4, "16UC1", 0, 8, bytes(16)), "unknown_encoding"),
        ((2, 4, "32FC1", 0, 16, bytes(32)), "unknown_encoding"),
        ((2, 4, "", 0, 16, bytes(32)), "unknown_encoding"),
        ((1 << 31, 1 << 31, "mono8", 0, 1 << 31, b""), "too_large"),
    ],
)
def test_refusals(fields: tuple, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        image_from_message_fields(*fields)
    assert caught.value.reason == reason


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    width=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    encoding=st.sampled_from(encodings()) | st.text(max_size=8),
    big=st.booleans(),
    step=st.integers(0, 200) | st.integers(0, 2**32 - 1),
    data=st.binary(max_size=4000),
)
def test_any_fields_give_an_image_or_an_image_error(
    height: int, width: int, encoding: str, big: bool, step: int, data: bytes
) -> None:
    try:
        seen = image_from_message_fields(height, width, encoding, big, step, data)
    except ImageError:
        return
    assert seen.dtype == np.uint8
    assert seen.shape == (height, width, 3)


def encoded(extension: str, image: np.ndarray | None = None) -> bytes:
    image = np.kron(rgb(), np.ones((8, 8, 1), np.uint8)) if image is None else image
    return cv2.imencode(extension, image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


@pytest.mark.parametrize("extension", [".png", ".bmp", ".ppm", ".jpg", ".webp"])
def test_files(extension: str) -> None:
    image = np.kron(rgb(), np.ones((8, 8, 1), np.uint8))
    seen = decode_compressed(encoded(extension, image), "jpeg")
    assert seen.shape == image.shape
    error = np.abs(seen.astype(int) - image).mean()
    assert error == 0 if extension in (".png", ".bmp", ".ppm") else error < 30


def test_grey_and_sixteen_bit_files() -> None:
    grey = rgb()[..., 0]
    np.testing.assert_array_equal(decode_compressed(encoded(".png", grey))[..., 1], grey)
    deep = grey.astype(np.uint16) * 256 + 255
    np.testing.assert_array_equal(decode_compressed(encoded(".png", deep))[..., 1], grey)


def test_a_compressed_mosaic_is_demosaiced() -> None:
    mosaic = np.tile(np.array([[200, 90], [90, 30]], np.uint8), (4, 4))
    seen = decode_compressed(encoded(".png", mosaic), "bayer_rggb8; png compressed bayer_rggb8")
    np.testing.assert_array_equal(seen, np.broadcast_to([200, 90, 30], seen.shape))


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "stated", "reason"),
    [
        (b"", "", "undecodable"),
        (b"not an image", "jpeg", "undecodable"),
        (png_of_size(60000, 60000), "", "too_large"),
        (png_of_size(0, 5), "", "zero_size"),
        (b"P6 100000 100000 255\n", "", "too_large"),
        (b"\x89PNG\r\n\x1a\n", "", "truncated_data"),
        (b"\xff\xd8\xff\xe0", "", "truncated_data"),
        (png_of_size(4, 4), "16UC1; compressedDepth png", "unknown_encoding"),
    ],
)
def test_file_refusals(data: bytes, stated: str, reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_compressed(data, stated)
    assert caught.value.reason == reason


@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp"])
def test_a_file_cut_short_is_refused(extension: str) -> None:
    data = encoded(extension)
    for share in (0.2, 0.5, 0.9, 0.99):
        with pytest.raises(ImageError) as caught:
            decode_compressed(data[: int(len(data) * share)])
        assert caught.value.reason == "truncated_data"


FILES = {e: encoded(e, rgb(16, 16)) for e in (".png", ".jpg", ".webp", ".bmp", ".ppm")}


@settings(max_examples=200, deadline=None)
@given(
    extension=st.sampled_from(sorted(FILES)),
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=12),
    keep=st.integers(0, 2000),
    stated=st.text(max_size=8) | st.sampled_from(["bayer_rggb8; png compressed bayer_rggb8"]),
)
def test_any_bytes_give_an_image_or_an_image_error(
    extension: str, edits: list[tuple[int, int]], keep: int, stated: str
) -> None:
    data = bytearray(FILES[extension])
    for at, value in edits:
        data[at % len(data)] = value
    try:
        seen = decode_compressed(bytes(data[:keep]), stated)
    except ImageError:
        return
    assert seen.dtype == np.uint8
    assert seen.ndim == 3
