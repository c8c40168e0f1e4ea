# SPDX-License-Identifier: Apache-2.0
"""Views of a place: what light, season, viewpoint and sensor make of one image.

Grey images throughout: colour changes with light and season, and cameras disagree on it. Geometry
is drawn image by image, light for a whole batch at once. Every draw comes from the generator given,
so a batch is a function of its seed. The ranges are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spike_perception.config import setting

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ViewConfig:
    """How far two views of a place may differ."""

    shift: float = setting(0.15, "greatest shift (share of the image)", minimum=0.0, maximum=0.5)
    min_scale: float = setting(0.85, "smallest scale", minimum=0.2, maximum=1.0)
    max_scale: float = setting(1.2, "largest scale", minimum=1.0, maximum=5.0)
    rotation_deg: float = setting(4.0, "greatest rotation (degrees)", minimum=0.0, maximum=45.0)
    perspective: float = setting(
        0.06, "greatest shift of a corner (share of the image)", minimum=0.0, maximum=0.3
    )
    still: float = setting(
        0.3, "share of the views without any geometric change", minimum=0.0, maximum=1.0
    )
    light: float = setting(
        1.0, "strength of changes of light; 0 switches them off", minimum=0.0, maximum=3.0
    )
    occlusion: float = setting(0.15, "share of the views partly hidden", minimum=0.0, maximum=1.0)
    night: float = setting(0.12, "share of the views at night", minimum=0.0, maximum=1.0)
    snow: float = setting(0.15, "share of the views with bright ground", minimum=0.0, maximum=1.0)
    coarse: float = setting(
        0.2, "share of the views from a coarse or compressing sensor", minimum=0.0, maximum=1.0
    )


def warp(
    images: NDArray[np.uint8], size: tuple[int, int], config: ViewConfig, rng: np.random.Generator
) -> tuple[Grey, NDArray[np.bool_]]:
    """Views from other positions.

    Args:
        images: uint8 [B, H, W], grey.
        size: rows and columns of the views.
        config: ranges.
        rng: source of all draws.

    Returns:
        Views uint8 [B, rows, columns], and for each whether it shows the whole image unmoved.
    """
    rows, columns = size
    count, height, width = images.shape
    still = np.asarray(rng.random(count) < config.still)
    reach = np.where(still, 0.0, rng.random(count))  # small changes are the more frequent ones
    shift = rng.uniform(-config.shift, config.shift, (count, 2)) * reach[:, None]
    scale = np.exp(reach * rng.uniform(np.log(config.min_scale), np.log(config.max_scale), count))
    angle = np.radians(config.rotation_deg) * rng.uniform(-1, 1, count) * reach
    corners = config.perspective * rng.uniform(-1, 1, (count, 4, 2)) * reach[:, None, None]
    # In units of half the image: the corners of a view, then where they lie in the image.
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    ratio = np.array([width / height, 1.0])  # a rotation is one in pixels of the scene
    placed = ((square + 2 * corners) * ratio) @ turn.transpose(0, 2, 1) / ratio
    placed = placed / scale[:, None, None] + 2 * shift[:, None]
    source = ((placed + 1) / 2 * [width, height] - 0.5).astype(np.float32)
    target = ((square + 1) / 2 * [columns, rows] - 0.5).astype(np.float32)
    found = np.empty((count, rows, columns), np.uint8)
    for k, image in enumerate(images):
        if still[k] and (height, width) == size:
            found[k] = image
            continue
        matrix = cv2.getPerspectiveTransform(source[k], target)
        found[k] = cv2.warpPerspective(
            image, matrix, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return found, still


def relight(images: Grey, config: ViewConfig, rng: np.random.Generator) -> Grey:
    """Views in another light, season and sensor, [B, H, W] like the images."""
    if config.light == 0.0:
        return images
    count = len(images)
    x = images.astype(np.float32) / np.float32(255)
    x = _seasons(x, config, rng)
    x = _lights(x, config, rng)
    dark = np.asarray(rng.random(count) < config.night)
    if dark.any():
        x[dark] = _night(x[dark], rng)
    noise = config.light * 0.04 * rng.random((count, 1, 1), dtype=np.float32) ** 2
    x += noise * rng.standard_normal(x.shape, dtype=np.float32)
    found = np.asarray(np.clip(x * 255 + 0.5, 0, 255), np.uint8)
    hidden, coarse = rng.random(count) < config.occlusion, rng.random(count) < config.coarse
    for k in np.flatnonzero(hidden):
        _hide(found[k], rng)
    for k in np.flatnonzero(coarse):
        found[k] = _degrade(found[k], rng)
    return found


def _smooth(shape: tuple[int, int, int], rng: np.random.Generator, cells: int = 3) -> Floats:
    """Smooth random fields of about unit variance, float32 [B, H, W]."""
    count, rows, columns = shape
    coarse = rng.standard_normal((count, cells, 2 * cells), dtype=np.float32)
    return np.stack(
        [cv2.resize(each, (columns, rows), interpolation=cv2.INTER_CUBIC) for each in coarse]
    )


def _curves(count: int, rng: np.random.Generator, strength: float, wild: float) -> Floats:
    """Tone curves as tables of 256 values: gamma, gain, offset, and a bend of lower frequency."""
    tone = np.linspace(0, 1, 256, dtype=np.float32)[None]
    gamma = np.exp(strength * rng.uniform(-0.8, 0.8, (count, 1)))
    gain = np.exp(strength * rng.uniform(-0.5, 0.3, (count, 1)))
    offset = strength * rng.uniform(-0.12, 0.12, (count, 1))
    curve = gain * tone**gamma + offset
    phase, waves = rng.uniform(0, 2 * np.pi, (count, 1)), rng.uniform(0.5, 1.5, (count, 1))
    height = np.where(rng.random((count, 1)) < wild, 0.35, 0.08) * rng.random((count, 1)) * strength
    return np.asarray(curve + height * np.sin(2 * np.pi * waves * tone + phase), np.float32)


def _toned(x: Floats, curves: Floats) -> Floats:
    index = np.asarray(np.clip(x * 255, 0, 255), np.intp)
    rows = np.arange(len(x))[:, None, None]
    return np.asarray(curves[rows, index], np.float32)


def _seasons(x: Floats, config: ViewConfig, rng: np.random.Generator) -> Floats:
    """Two tone curves, blended by a smooth mask; some with bright ground."""
    count, rows, _ = x.shape
    mask = 1 / (1 + np.exp(-3 * _smooth(x.shape, rng)))
    one = _toned(x, _curves(count, rng, config.light, 0.25))
    other = _toned(x, _curves(count, rng, config.light, 0.25))
    x = one + mask * (other - one)
    snowy = np.asarray(rng.random(count) < config.snow)
    if snowy.any():
        # Snow lies on the ground, below a horizon, more on what is flat; it hides texture.
        part = x[snowy]
        horizon = rng.uniform(0.3, 0.7, (len(part), 1, 1)) * rows
        below = 1 / (1 + np.exp(-(np.arange(rows)[None, :, None] - horizon) / (0.06 * rows)))
        cover = np.clip(0.5 + _smooth(part.shape, rng, 4), 0, 1)
        share = below * cover * rng.uniform(0.4, 0.95, (len(part), 1, 1))
        x[snowy] = part + share * (rng.uniform(0.6, 1.0, (len(part), 1, 1)) - part)
    return np.asarray(x, np.float32)


def _lights(x: Floats, config: ViewConfig, rng: np.random.Generator) -> Floats:
    """Shade and glow over parts of the image."""
    strength = config.light * 0.5 * rng.random((len(x), 1, 1))
    return np.asarray(x * np.exp(strength * _smooth(x.shape, rng, 2)), np.float32)


def _night(x: Floats, rng: np.random.Generator) -> Floats:
    """Little light, lamps, and the noise of few photons."""
    count, rows, columns = x.shape
    level = np.exp(rng.uniform(np.log(0.06), np.log(0.5), (count, 1, 1)))
    pool = np.exp(0.8 * _smooth(x.shape, rng, 3))
    x = np.asarray(x * level * pool, np.float32)
    y, z = np.mgrid[:rows, :columns].astype(np.float32)
    for k in range(count):
        for _ in range(int(rng.integers(0, 4))):
            row, column = rng.uniform(0, 0.7 * rows), rng.uniform(0, columns)
            width = rng.uniform(0.02, 0.06) * columns
            glow = np.exp(-((y - row) ** 2 + (z - column) ** 2) / (2 * width**2))
            x[k] += rng.uniform(0.3, 1.0) * glow
    noise = rng.uniform(0.005, 0.04, (count, 1, 1))
    noisy = x + noise * rng.standard_normal(x.shape) * np.sqrt(np.clip(x, 0.02, 1))
    lift = np.where(rng.random((count, 1, 1)) < 0.5, 1.0, rng.uniform(1.0, 4.0, (count, 1, 1)))
    return np.asarray(noisy * lift, np.float32)  # many cameras raise their gain


def _hide(image: Grey, rng: np.random.Generator) -> None:
    """Put a thing in front of the scene, in place."""
    rows, columns = image.shape
    height = int(rng.uniform(0.15, 0.6) * rows)
    width = int(rng.uniform(0.08, 0.35) * columns)
    top, left = int(rng.integers(0, rows - height + 1)), int(rng.integers(0, columns - width + 1))
    part = image[top : top + height, left : left + width]
    if rng.random() < 0.5:
        part[:] = rng.integers(0, 256)
    else:  # with a texture of its own: another part of the image
        row, column = rng.integers(0, rows - height + 1), rng.integers(0, columns - width + 1)
        part[:] = image[row : row + height, column : column + width].copy()


def _degrade(image: Grey, rng: np.random.Generator) -> Grey:
    """Blur, coarse pixels or compression."""
    rows, columns = image.shape
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.3)), np.uint8)
    if kind == 1:
        factor = rng.uniform(1.3, 2.5)
        small = (max(1, int(columns / factor)), max(1, int(rows / factor)))
        shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(shrunk, (columns, rows)), np.uint8)
    code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 70))])[1]
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE), np.uint8)
