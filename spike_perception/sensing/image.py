# SPDX-License-Identifier: Apache-2.0
"""RGB arrays from the bytes of camera messages and image files.

Everything here comes from outside and is checked before anything is allocated: whatever the bytes
are, the answer is an image or an :class:`ImageError`.
"""

from __future__ import annotations

import re
import struct
from array import array
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from spike_perception.errors import InputError

RgbImage = npt.NDArray[np.uint8]
RawBytes: TypeAlias = "bytes | bytearray | memoryview | array[int] | npt.NDArray[np.uint8]"

MAX_PIXELS = 1 << 26
"""Largest accepted image (67 megapixels): beyond any camera, far below what exhausts memory."""


class ImageError(InputError):
    """An image that cannot be used.

    Reasons: ``zero_size``, ``wrong_step``, ``truncated_data``, ``unknown_encoding``,
    ``undecodable``, ``too_large``.
    """


class _Packing(NamedTuple):
    """How an encoding lays a row of pixels out."""

    channels: int  # samples of one pixel
    depth: int  # bytes of one sample
    to_rgb: int | None  # OpenCV conversion code from the 8-bit samples; None: they are RGB


_PACKINGS = {
    "rgb8": _Packing(3, 1, None),
    "bgr8": _Packing(3, 1, cv2.COLOR_BGR2RGB),
    "rgba8": _Packing(4, 1, cv2.COLOR_RGBA2RGB),
    "bgra8": _Packing(4, 1, cv2.COLOR_BGRA2RGB),
    "mono8": _Packing(1, 1, cv2.COLOR_GRAY2RGB),
    "8uc1": _Packing(1, 1, cv2.COLOR_GRAY2RGB),
    # The nUCm names carry no colour order; OpenCV's own is the one their writers use.
    "8uc3": _Packing(3, 1, cv2.COLOR_BGR2RGB),
    "8uc4": _Packing(4, 1, cv2.COLOR_BGRA2RGB),
    "rgb16": _Packing(3, 2, None),
    "bgr16": _Packing(3, 2, cv2.COLOR_BGR2RGB),
    "rgba16": _Packing(4, 2, cv2.COLOR_RGBA2RGB),
    "bgra16": _Packing(4, 2, cv2.COLOR_BGRA2RGB),
    "mono16": _Packing(1, 2, cv2.COLOR_GRAY2RGB),
    "uyvy": _Packing(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": _Packing(2, 1, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": _Packing(2, 1, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": _Packing(2, 1, cv2.COLOR_YUV2RGB_YUY2),
    "nv21": _Packing(1, 1, cv2.COLOR_YUV2RGB_NV21),
    "bayer_rggb8": _Packing(1, 1, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr8": _Packing(1, 1, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg8": _Packing(1, 1, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg8": _Packing(1, 1, cv2.COLOR_BayerGRBG2RGB),
    "bayer_rggb16": _Packing(1, 2, cv2.COLOR_BayerRGGB2RGB),
    "bayer_bggr16": _Packing(1, 2, cv2.COLOR_BayerBGGR2RGB),
    "bayer_gbrg16": _Packing(1, 2, cv2.COLOR_BayerGBRG2RGB),
    "bayer_grbg16": _Packing(1, 2, cv2.COLOR_BayerGRBG2RGB),
}
_PAIRED_COLUMNS = ("uyvy", "yuv422", "yuyv", "yuv422_yuy2", "nv21")


def encodings() -> tuple[str, ...]:
    """Names of the encodings of ``sensor_msgs/Image`` that are understood, in lower case."""
    return tuple(_PACKINGS)


def image_from_message_fields(
    height: int,
    width: int,
    encoding: str,
    is_bigendian: bool | int,
    step: int,
    data: RawBytes,
) -> RgbImage:
    """Turn the fields of ``sensor_msgs/Image`` into an RGB image.

    16-bit samples keep their high byte. Bayer mosaics are demosaiced bilinearly. YUV is read as
    ITU-R BT.601 with limited range, as camera drivers write it. Depth images (``16UC1``,
    ``32FC1``) are refused: distances are not intensities.

    Args:
        height: rows.
        width: columns.
        encoding: name from ``sensor_msgs/image_encodings``, in any case.
        is_bigendian: whether 16-bit samples have their high byte first.
        step: bytes from one row to the next; may exceed a row's own bytes (padding).
        data: the bytes; what lies past the last row is ignored, and the last row's padding may
            be missing.

    Returns:
        uint8 ``[height, width, 3]``, RGB. For ``rgb8`` this is a view of ``data``, not a copy,
        read-only if ``data`` is; with padding its rows are not contiguous.

    Raises:
        ImageError: ``zero_size``, ``wrong_step``, ``truncated_data``, ``unknown_encoding`` or
            ``too_large``.
    """
    name = encoding.lower()
    packing = _PACKINGS.get(name)
    if packing is None:
        raise ImageError(
            "unknown_encoding",
            f"image encoding {encoding!r} is not one of {', '.join(_PACKINGS)}",
        )
    _check_size(height, width)
    if name in _PAIRED_COLUMNS and (width % 2 or (name == "nv21" and height % 2)):
        raise ImageError(
            "wrong_step", f"a {width}x{height} image cannot be {name}: its pixels come in pairs"
        )
    row_bytes = width * packing.channels * packing.depth
    if step < row_bytes:
        raise ImageError(
            "wrong_step",
            f"step is {step} bytes, but a row of {width} {name} pixels takes {row_bytes}",
        )
    rows = height * 3 // 2 if name == "nv21" else height  # chroma rows follow the luma rows
    buffer = np.frombuffer(data, np.uint8)
    needed = step * (rows - 1) + row_bytes
    if buffer.size < needed:
        raise ImageError(
            "truncated_data",
            f"{buffer.size} bytes of data, but {width}x{height} {name} with step {step} takes "
            f"{needed}",
        )
    # Padding is skipped by strides, so that no byte is copied before the conversion needs it.
    samples = np.lib.stride_tricks.as_strided(
        buffer, (rows, row_bytes), (step, 1), writeable=buffer.flags.writeable
    )
    if packing.depth == 2:
        samples = samples[:, (0 if is_bigendian else 1) :: 2]
    if packing.channels > 1:
        samples = samples.reshape(rows, width, packing.channels)
    return _converted(samples, name, packing)


def _converted(samples: npt.NDArray[np.uint8], name: str, packing: _Packing) -> RgbImage:
    """8-bit samples ``[H, W]`` or ``[H, W, C]`` of an encoding as RGB."""
    if packing.to_rgb is None:
        return samples
    samples = np.ascontiguousarray(samples)
    if not name.startswith("bayer_"):
        return np.asarray(cv2.cvtColor(samples, packing.to_rgb), np.uint8)
    # OpenCV leaves the border of tiny mosaics black; two mirrored pixels a side keep the phase.
    mirrored = cv2.copyMakeBorder(
        samples, 2, 2, 2, 2, cv2.BORDER_REFLECT_101 if min(samples.shape) > 2 else cv2.BORDER_WRAP
    )
    return np.ascontiguousarray(cv2.cvtColor(mirrored, packing.to_rgb)[2:-2, 2:-2], np.uint8)


def decode_compressed(data: RawBytes, format: str = "") -> RgbImage:  # noqa: A002
    """Decode a JPEG, PNG, WebP, BMP or PNM file, such as ``sensor_msgs/CompressedImage`` holds.

    The file's own header decides what it is, and its size is read and checked before anything is
    decoded. 16-bit samples keep their high byte, transparency is dropped, and the orientation
    that a photograph's EXIF block states is applied.

    Args:
        data: the file's bytes.
        format: the message's ``format`` field, such as ``"jpeg"`` or
            ``"bayer_rggb8; png compressed bayer_rggb8"``; only depth images and mosaics are told
            by it.

    Returns:
        uint8 ``[H, W, 3]``, RGB.

    Raises:
        ImageError: ``unknown_encoding``, ``undecodable``, ``truncated_data``, ``zero_size`` or
            ``too_large``.
    """
    words = format.lower().replace(";", " ").split()
    if "compresseddepth" in words or (words and words[0] in ("16uc1", "32fc1")):
        raise ImageError("unknown_encoding", f"{format!r} is a depth image; a camera's is needed")
    content = np.frombuffer(data, np.uint8).data
    height, width = _size_in_header(bytes(content[:_HEADER_BYTES]), content)
    _check_size(height, width)
    mosaic = words[-1] if words and words[-1].startswith("bayer_") else ""
    try:
        decoded = cv2.imdecode(
            np.frombuffer(content, np.uint8),
            cv2.IMREAD_GRAYSCALE if mosaic in _PACKINGS else cv2.IMREAD_COLOR,
        )
    except cv2.error as error:
        raise ImageError("undecodable", f"image data cannot be decoded: {error}") from error
    if decoded is None:
        raise ImageError("undecodable", "image data has a good header but cannot be decoded")
    if mosaic in _PACKINGS:
        return _converted(np.asarray(decoded, np.uint8), mosaic, _PACKINGS[mosaic])
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ImageError("zero_size", f"image is {width}x{height}; both must be at least 1")
    if height * width > MAX_PIXELS:
        raise ImageError(
            "too_large", f"image is {width}x{height}; at most {MAX_PIXELS} pixels are accepted"
        )


_HEADER_BYTES = 64
_PNM = re.compile(rb"P[2356]\s(?:\s|#[^\n]*\n)*(\d{1,9})\s+(?:#[^\n]*\n)*(\d{1,9})\s")


def _size_in_header(head: bytes, content: memoryview) -> tuple[int, int]:
    """Height and width as the file's header states them; also refuses a file cut short."""
    try:
        if head.startswith(b"\xff\xd8\xff"):
            return _jpeg_size(content)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            if bytes(content).rfind(b"IEND", 8) < 0:
                raise ImageError("truncated_data", "PNG data ends before its last chunk")
            width, height = struct.unpack_from(">II", head, 16)
            return height, width
        if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
            if len(content) < struct.unpack_from("<I", head, 4)[0] + 8:
                raise ImageError("truncated_data", "WebP data is shorter than its header states")
            return _webp_size(head)
        if head.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", head, 18)
            return abs(height), width  # a negative height means rows from the top
        if found := _PNM.match(head):
            return int(found[2]), int(found[1])
    except struct.error:
        raise ImageError("truncated_data", "image data ends within its header") from None
    raise ImageError(
        "undecodable",
        f"{len(content)} bytes starting with {head[:8]!r} are no JPEG, PNG, WebP, BMP or PNM",
    )


def _jpeg_size(content: memoryview) -> tuple[int, int]:
    """Walk a JPEG's marker segments to its frame header (ITU-T T.81, B.2.2)."""
    data = bytes(content)
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFFFF:  # fill byte
            at += 1
            continue
        if marker < 0xFF01:
            raise ImageError("undecodable", "JPEG data has no marker where one must be")
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">xHH", data, at + 4)
            if data.rfind(b"\xff\xd9", at) < 0:
                raise ImageError("truncated_data", "JPEG data ends before its end marker")
            return height, width
        at += 2 + max(length, 2)


def _webp_size(head: bytes) -> tuple[int, int]:
    kind = head[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(head[24:27], "little") + 1
        return int.from_bytes(head[27:30], "little") + 1, width
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", head, 21)
        return (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise ImageError("undecodable", f"WebP data has an unknown chunk {kind!r}")
