# SPDX-License-Identifier: Apache-2.0
"""Pictures of point sets: what an image tower is shown of a shape that was never photographed.

Every point becomes a small elliptic disc in the plane of its neighbourhood, as long as the
neighbourhood is, so legs and rods stay thin and plates close. Discs are sampled, projected,
z-buffered and blended within a thin depth band, which gives a closed, smoothly shaded surface.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spike_perception.config import setting
from spike_perception.errors import InputError

Float = NDArray[np.float32]
Image = NDArray[np.uint8]

#: Counts up when the same settings give another picture.
VERSION = 1


@dataclass(frozen=True)
class RenderConfig:
    """How a shape is pictured."""

    size: int = setting(160, "side of the square image (pixels)", minimum=16, maximum=2048)
    azimuth: float = setting(
        -90.0, "direction in the middle of all views, from +x towards +y (degrees)"
    )
    arc: float = setting(
        120.0, "all views are spread over it, evenly (degrees)", minimum=0.0, maximum=360.0
    )
    elevation: float = setting(
        20.0, "height of the camera over the horizon (degrees)", minimum=-89.0, maximum=89.0
    )
    distance: float = setting(
        3.5, "from camera to centre, in radii of the shape", minimum=1.2, maximum=1e3
    )
    fill: float = setting(
        0.8, "share of the image that the shape's longer side takes", minimum=0.1, maximum=0.95
    )
    neighbours: int = setting(20, "points of a neighbourhood", minimum=4, maximum=64)
    disc: float = setting(
        1.2, "radius of a disc, in standard deviations of the neighbourhood", minimum=0.1
    )
    samples: int = setting(40000, "samples of all discs together", minimum=1000, maximum=10**7)
    grey: float = setting(
        0.62, "of the surface, without colours (0 to 1)", minimum=0.0, maximum=1.0
    )
    background: float = setting(0.95, "grey of the background (0 to 1)", minimum=0.0, maximum=1.0)
    band: float = setting(
        0.04, "what lies so near behind the front is blended in (share of the depth)", minimum=0.0
    )
    ambient: float = setting(0.5, "share of light from everywhere", minimum=0.0, maximum=1.0)
    fog: float = setting(
        0.3, "darkening of the farthest point against the nearest", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True, eq=False)
class Discs:
    """Elliptic discs of a point set; or, with one sample each, a surface sampled densely.

    Attributes:
        samples: points on the discs, float32 [P * K, 3]; K samples of a disc in a row.
        normals: unit, of unknown sign, float32 [P, 3].
    """

    samples: Float
    normals: Float

    @property
    def each(self) -> int:
        """Samples of one disc."""
        return len(self.samples) // len(self.normals)


def discs(points: Float, config: RenderConfig | None = None) -> Discs:
    """Discs that cover the surface that the points were sampled from.

    Args:
        points: float32 [P, 3], P >= 4.
        config: sizes.

    Raises:
        InputError: ``wrong_input`` for another shape or fewer points.
    """
    config = config or RenderConfig()
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 4:
        raise InputError(
            "wrong_input", f"a shape to picture is [P, 3] with P >= 4, not {list(points.shape)}"
        )
    count = min(config.neighbours, len(points) - 1) + 1
    _, rows = cKDTree(points).query(points, count)
    offset = points[rows] - points[rows].mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(offset.transpose(0, 2, 1) @ offset / count)  # normal first
    spread = np.sqrt(np.maximum(values[:, 1:], 0.0)) * config.disc
    # A rod of one or two points across must not vanish.
    spread = np.maximum(spread, 0.15 * spread[:, 1:])
    axes = vectors[:, :, 1:] * spread[:, None, :]
    pattern = _pattern(max(7, config.samples // len(points)))
    samples = points[:, None] + np.einsum("kj,pij->pki", pattern, axes)
    return Discs(np.asarray(samples.reshape(-1, 3), np.float32), _smooth(vectors[:, :, 0], rows))


def _smooth(normals: Float, rows: NDArray[np.int64]) -> Float:
    """Normals averaged over neighbours that agree, whatever their signs."""
    for _ in range(2):
        around = normals[rows]
        cosine = np.einsum("pki,pi->pk", around, normals)
        around *= (np.sign(cosine) * cosine**4)[..., None]
        normals = around.sum(1)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    return np.asarray(normals, np.float32)


def render(
    shape: Discs | Float,
    azimuth: float,
    config: RenderConfig | None = None,
    colours: Float | None = None,
) -> Image:
    """One picture, uint8 [size, size, 3] RGB.

    Args:
        shape: discs, or points float32 [P, 3], z up.
        azimuth: direction of the camera, from +x towards +y (degrees).
        config: sizes, light, camera.
        colours: of the points, float32 [P, 3] in 0..1; grey without.

    Raises:
        InputError: ``wrong_input``.
    """
    config = config or RenderConfig()
    if not isinstance(shape, Discs):
        shape = discs(shape, config)
    right, up, forward = _camera(math.radians(azimuth), math.radians(config.elevation))
    frame = np.stack([right, up, forward], 1).astype(np.float32)
    eye = np.float32(config.distance) * np.abs(shape.samples).max()
    seen = frame.T @ shape.samples.T  # [3, n]: right, up, away from the camera
    depth = seen[2] + eye
    across, above = seen[:2] / np.maximum(depth, np.float32(1e-3))
    width, height = float(np.ptp(across)), float(np.ptp(above))
    scale = np.float32(config.fill * config.size / max(width, height, 1e-9))
    middle = np.float32(config.size / 2)
    column = middle + (across - (across.min() + np.float32(width / 2))) * scale
    row = middle - (above - (above.min() + np.float32(height / 2))) * scale
    place = row.astype(np.int32) * config.size + column.astype(np.int32)
    shade, alpha = _blend(shape, frame, depth, place, config, colours)
    return _finish(shade, alpha, config)


def render_views(
    shape: Discs | Float,
    views: int,
    config: RenderConfig | None = None,
    colours: Float | None = None,
) -> Image:
    """Pictures from several sides, see :func:`angles`; uint8 [views, size, size, 3] RGB."""
    config = config or RenderConfig()
    made = shape if isinstance(shape, Discs) else discs(shape, config)
    return np.stack([render(made, each, config, colours) for each in angles(views, config)])


def angles(views: int, config: RenderConfig) -> list[float]:
    """Directions of the cameras: each in the middle of its share of the arc (degrees)."""
    return [config.azimuth + config.arc * ((view + 0.5) / views - 0.5) for view in range(views)]


def _blend(
    shape: Discs,
    frame: Float,
    depth: Float,
    place: NDArray[np.int32],
    config: RenderConfig,
    colours: Float | None,
) -> tuple[Float, NDArray[np.bool_]]:
    """Surface colours [S, S, 3] (0..1) and where there is a surface."""
    pixels = config.size**2
    nearest = np.full(pixels, np.inf, np.float32)
    np.minimum.at(nearest, place, depth)
    span = float(np.ptp(depth))
    front = depth <= nearest[place] + np.float32(config.band * span)
    owner = np.flatnonzero(front) // shape.each
    where = place[front]
    normals = shape.normals @ frame
    normals *= np.where(normals[:, 2:] > 0, -1.0, 1.0)  # towards the camera
    light = np.array([-0.45, 0.75, -0.6], np.float32)
    light /= np.linalg.norm(light)
    diffuse = np.maximum(normals @ light, 0.0)
    lit = config.ambient + (1.0 - config.ambient) * diffuse
    weight = np.bincount(where, minlength=pixels)
    base = np.full((1, 1), config.grey, np.float32) if colours is None else colours
    albedo = np.broadcast_to(base, (len(lit), base.shape[1])) * lit[:, None]
    planes = [
        np.bincount(where, albedo[owner, channel], pixels) for channel in range(albedo.shape[1])
    ]
    shade = np.stack(planes, 1) / np.maximum(weight, 1)[:, None]
    away = np.where(weight > 0, nearest - depth.min(), 0.0) / max(span, 1e-9)
    shade *= (1.0 - config.fog * away)[:, None]
    shade = shade.reshape(config.size, config.size, -1).astype(np.float32)
    return np.repeat(shade, 3 // shade.shape[2], 2), (weight > 0).reshape(config.size, -1)


def _finish(shade: Float, alpha: NDArray[np.bool_], config: RenderConfig) -> Image:
    """Pinholes closed, edges softened, background put behind; uint8 [S, S, 3]."""
    kernel = np.ones((3, 3), np.uint8)
    solid = cv2.morphologyEx(alpha.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    known = alpha.astype(np.float32)
    # A hole takes the mean of the surface around it.
    local = cv2.blur(shade * known[..., None], (3, 3))
    share = cv2.blur(known, (3, 3))[..., None]
    smooth = local / np.maximum(share, 1e-6)
    cover = cv2.GaussianBlur(solid.astype(np.float32), (3, 3), 0.6)[..., None]
    picture = smooth * cover + np.float32(config.background) * (1.0 - cover)
    return np.asarray(np.clip(picture * 255.0 + 0.5, 0, 255), np.uint8)


def _pattern(count: int) -> Float:
    """Points spread evenly over the unit disc (sunflower), float32 [count, 2]."""
    index = np.arange(count, dtype=np.float64)
    radius = np.sqrt((index + 0.5) / count)
    angle = index * math.pi * (3.0 - math.sqrt(5.0))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)


def _camera(
    azimuth: float, elevation: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Right, up and forward of a camera that looks at the origin from that direction."""
    towards = np.array(
        [
            math.cos(elevation) * math.cos(azimuth),
            math.cos(elevation) * math.sin(azimuth),
            math.sin(elevation),
        ]
    )
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    return right, np.cross(towards, right), -towards
