# SPDX-License-Identifier: Apache-2.0
"""Sensor data to network input, as a bundle's ``preprocessing`` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.sensing.image import RgbImage

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


def prepare_image(image: RgbImage, preprocessing: Mapping[str, Any]) -> NDArray[np.float32]:
    """One image as network input.

    Args:
        image: uint8 [H, W, 3], RGB.
        preprocessing: of an ``image`` or ``place`` bundle. ``resize`` is ``stretch``,
            ``shorter_side_crop`` (the largest centred part of the input's aspect ratio) or
            ``letterbox`` (the whole image; what it leaves free holds the mean, 0 once normalised).
            ``gray`` repeats the luminance in all three channels. With ``patch_norm`` values
            scaled to 0..1 are normalised locally before mean and standard deviation are applied
            (see :func:`patch_normalised`).

    Returns:
        float32 [3, H', W'].

    Raises:
        InputError: ``wrong_input`` for another shape or dtype, ``bad_metadata`` for settings that
            contradict one another.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            "wrong_input",
            f"an image is uint8 [H, W, 3], RGB; this one is {image.dtype} {list(image.shape)}",
        )
    height, width = preprocessing["input_size"]
    interpolation = _INTERPOLATION[preprocessing["interpolation"]]
    if preprocessing["resize"] == "shorter_side_crop":
        image = _centre(image, width / height)
    rows, columns = image.shape[:2]
    inner = (height, width)
    if preprocessing["resize"] == "letterbox":
        scale = min(height / rows, width / columns)
        inner = (max(1, round(rows * scale)), max(1, round(columns * scale)))
    if (rows, columns) != inner:
        image = np.asarray(
            cv2.resize(image, (inner[1], inner[0]), interpolation=interpolation), np.uint8
        )
    if preprocessing["channel_order"] == "bgr":
        image = image[..., ::-1]
    elif preprocessing["channel_order"] == "gray":
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
    # One value, or one per channel: 255 * std and 255 * mean save a pass over the pixels.
    mean = np.asarray(preprocessing["mean"], np.float32) * np.float32(255)
    std = np.asarray(preprocessing["std"], np.float32) * np.float32(255)
    if not {mean.size, std.size} <= {1, 3}:
        raise InputError(
            "bad_metadata", f"mean and std have {mean.size} and {std.size} values; allowed 1 or 3"
        )
    if "patch_norm" in preprocessing:
        local = patch_normalised(
            image.astype(np.float32) / np.float32(255),
            preprocessing["patch_norm"],
            preprocessing["patch_norm_floor"],
        )
        values = (local * np.float32(255) - mean) / std
    else:
        values = (image.astype(np.float32) - mean) / std
    if values.shape[:2] != (height, width):
        whole = np.zeros((height, width, 3), np.float32)
        top, left = (height - values.shape[0]) // 2, (width - values.shape[1]) // 2
        whole[top : top + values.shape[0], left : left + values.shape[1]] = values
        values = whole
    return np.ascontiguousarray(np.broadcast_to(values, (height, width, 3)).transpose(2, 0, 1))


def patch_normalised(
    values: NDArray[np.float32], patch: int | Sequence[int], floor: float
) -> NDArray[np.float32]:
    """Every pixel less the mean of the patch around it, divided by its deviation plus a floor.

    What changes slowly over the image, such as light, goes; see ``places.descriptors.patch_norm``.

    Args:
        values: float32 [H, W, 1] or [H, W, 3], 0..1.
        patch: side of the square patch (pixels, odd); or three, which give three channels.
        floor: keeps flat parts from being blown up (share of full scale, above 0).

    Returns:
        float32 [H, W, channels].

    Raises:
        InputError: ``bad_metadata`` if three patches are given for a colour image.
    """
    sides = [patch] if isinstance(patch, int) else list(patch)
    if len(sides) > 1 and values.shape[2] > 1:
        raise InputError(
            "bad_metadata", "patch_norm gives a patch per channel, which needs channel_order gray"
        )
    channels = []
    for side in sides:
        mean = cv2.blur(values, (side, side))
        variance = cv2.blur(values * values, (side, side)) - mean * mean
        spread = np.sqrt(np.maximum(variance, 0.0))  # rounding can leave it below zero
        local = (values.reshape(mean.shape) - mean) / (spread + np.float32(floor))
        channels.append(local.reshape(values.shape))
    return np.asarray(np.concatenate(channels, 2), np.float32)


def _centre(image: RgbImage, aspect: float) -> RgbImage:
    """The largest centred part of an image with that aspect ratio, width to height."""
    rows, columns = image.shape[:2]
    height = min(rows, max(1, round(columns / aspect)))
    width = min(columns, max(1, round(rows * aspect)))
    top, left = (rows - height) // 2, (columns - width) // 2
    return image[top : top + height, left : left + width]


def prepare_points(
    points: NDArray[np.floating[Any]], preprocessing: Mapping[str, Any]
) -> NDArray[np.float32]:
    """One cloud of points, or window of events, as the network expects it.

    A cloud of another size is thinned evenly in the order of its points, or its points are
    repeated, so equal input gives equal output.

    Args:
        points: [N, 3 + F], coordinates (m, or pixels and time), then the other channels.
        preprocessing: of a ``points`` or ``events`` bundle.

    Returns:
        float32 [P, 3 + F]; ``unit_sphere``: centred on the mean, the farthest at distance 1;
        ``unit_cube``: every coordinate's range mapped to 0..1.

    Raises:
        InputError: ``wrong_input`` for another shape, ``not_finite`` for NaN or infinities.
    """
    width = len(preprocessing["channels"])
    if points.ndim != 2 or points.shape[1] != width or not len(points):
        raise InputError(
            "wrong_input",
            f"a cloud has shape [N, {width}] with at least one point, channels "
            f"{', '.join(preprocessing['channels'])}; this one has {list(points.shape)}",
        )
    count = preprocessing["points"]
    if len(points) >= count:
        rows = np.arange(count, dtype=np.int64) * len(points) // count
    else:
        rows = np.arange(count, dtype=np.int64) % len(points)
    cloud = points[rows].astype(np.float64)
    if not np.isfinite(cloud).all():
        raise InputError("not_finite", "the cloud holds NaN or infinite values; remove them first")
    place = cloud[:, :3]
    if preprocessing["normalise"] == "unit_sphere":
        place -= place.mean(0)
        radius = np.sqrt((place**2).sum(1).max())
        place /= radius if radius > 0 else 1.0
    elif preprocessing["normalise"] == "unit_cube":
        place -= place.min(0)
        spread = place.max(0)
        place /= np.where(spread > 0, spread, 1.0)
    return np.asarray(cloud, np.float32)
