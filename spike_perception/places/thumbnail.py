# SPDX-License-Identifier: Apache-2.0
"""Small pictures kept with the places, so that people can see what the map holds."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError

JPEG_QUALITY = 80


def encode_thumbnail(image: NDArray[np.uint8], width: int) -> bytes:
    """Shrink to at most ``width`` pixels across, keeping the shape, and encode as JPEG.

    Args:
        image: uint8 [H, W, 3], RGB.
        width: greatest width in pixels; the height is bounded by four times that.
    """
    rows, columns = image.shape[:2]
    scale = min(1.0, width / columns, 4 * width / rows)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes()


def decode_thumbnail(data: bytes) -> NDArray[np.uint8]:
    """Decode what :func:`encode_thumbnail` made, to uint8 [H, W, 3], RGB.

    Raises:
        InputError: ``invalid_image`` if it is no picture.
    """
    bgr = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR) if data else None
    if bgr is None:
        raise InputError("invalid_image", f"thumbnail of {len(data)} bytes is no picture")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
