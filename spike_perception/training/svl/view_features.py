# SPDX-License-Identifier: Apache-2.0
"""A teacher's features of pictures of shapes, computed once and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spike_perception.config import to_flat
from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.sensing.image import decode_compressed
from spike_perception.training.svl.render import VERSION, RenderConfig, render_views
from spike_perception.training.svl.shapes import Shapes
from spike_perception.training.teachers.features import ImageTeacher
from spike_perception.training.teachers.store import Rows, stored

_SHARD = 64  # shapes after which work is safe on the disk


def cached_view_features(
    teacher: ImageTeacher,
    shapes: Shapes,
    cache: Path,
    views: int = 3,
    config: RenderConfig | None = None,
    *,
    progress: bool = True,
) -> NDArray[np.float16]:
    """Unit features of every shape from every side, memory-mapped float16 [M, V, C].

    Pictures that a set brings along are taken; of other sets they are made, and not kept. A run
    that was killed goes on after its last 64 shapes.

    Args:
        teacher: encodes the pictures.
        shapes: what is pictured.
        cache: folder that holds the features of any number of teachers, sets and renderings.
        views: directions (see :func:`~.render.render_views`).
        config: how shapes are pictured.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: as :func:`~spike_perception.training.teachers.store.stored`.
    """
    config = config or RenderConfig()

    def compute(sheets: list[NDArray[np.uint8]]) -> Rows:
        pictures = np.concatenate(sheets).reshape(-1, config.size, config.size, 3)
        features = teacher.encode_images(pictures).features
        return {"features": features.reshape(len(sheets), views, -1)}

    key = sha256_json([VERSION, teacher.id, shapes.id, views, to_flat(config)])[:32]
    found = stored(
        cache / f"views-{key}",
        _Sheets(shapes, views, config),
        compute,
        shard=_SHARD,
        label=f"picture {shapes.name}",
        progress=progress,
    )
    return found.arrays["features"]


@dataclass(eq=False)
class _Sheets:
    """The views of each shape as one tall image, made when asked for."""

    shapes: Shapes
    views: int
    config: RenderConfig
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path(self.shapes.name)

    @property
    def id(self) -> str:
        return self.shapes.id

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.shapes.name}[{row}]" for row in range(len(self.shapes)))

    def __len__(self) -> int:
        return len(self.shapes)

    def image(self, index: int) -> NDArray[np.uint8]:
        if self.shapes.pictures:
            return self._sheet(self.shapes.pictures[index])
        colours = None if self.shapes.colours is None else self.shapes.colours[index]
        pictures = render_views(self.shapes.points[index], self.views, self.config, colours)
        return pictures.reshape(-1, self.config.size, 3)

    def _sheet(self, file: Path) -> NDArray[np.uint8]:
        """Pictures that the set brings along, repeated or left out to be as many as wanted."""
        found = read_picture(file)
        count = max(1, len(found) // found.shape[1])
        size = (self.config.size, self.config.size * count)
        sheet = cv2.resize(found, size, interpolation=cv2.INTER_AREA)
        rows = np.arange(self.views) % count
        each = sheet.reshape(count, self.config.size, self.config.size, 3)[rows]
        return np.asarray(each.reshape(-1, self.config.size, 3), np.uint8)


def read_picture(file: Path) -> NDArray[np.uint8]:
    """A picture file, uint8 [H, W, 3] RGB.

    Raises:
        InputError: ``corrupt_image``.
    """
    try:
        return decode_compressed(file.read_bytes())
    except (OSError, InputError) as error:
        raise InputError("corrupt_image", f"{file}: {error}") from error
