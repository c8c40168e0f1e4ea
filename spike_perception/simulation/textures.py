# SPDX-License-Identifier: Apache-2.0
"""Paint the textures of the shipped worlds, each from its own name alone.

``python -m spike_perception.simulation.textures FOLDER`` writes them as palette PNG files.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIZE = 128  # pixels along each edge
Image = NDArray[np.float64]  # [SIZE, SIZE, 3], 0-255
Colour = tuple[int, int, int]
Painter = Callable[[np.random.Generator], Image]


def _plain(colour: Colour) -> Image:
    return np.tile(np.asarray(colour, np.float64), (SIZE, SIZE, 1))


def _clouds(rng: np.random.Generator, cells: int) -> NDArray[np.float64]:
    """Smooth noise ``[SIZE, SIZE]`` in -1..1 that repeats at the edges."""
    grid = rng.uniform(-1, 1, (cells, cells))
    at = np.arange(SIZE) * cells / SIZE
    low = at.astype(int)
    share = at - low
    share = share * share * (3 - 2 * share)
    rows = grid[low] * (1 - share)[:, None] + grid[(low + 1) % cells] * share[:, None]
    return np.asarray(rows[:, low] * (1 - share) + rows[:, (low + 1) % cells] * share)


def _mottled(rng: np.random.Generator, colour: Colour, coarse: float, fine: float) -> Image:
    shade = coarse * (_clouds(rng, 5) + 0.5 * _clouds(rng, 16)) + fine * _clouds(rng, 64)
    return _plain(colour) + shade[..., None]


def _bricks(
    rng: np.random.Generator, brick: Colour, mortar: Colour, rows: int, columns: int
) -> Image:
    image = _plain(mortar)
    height, width = SIZE // rows, SIZE // columns
    for row in range(rows):
        for column in range(-1, columns):
            left = column * width + (row % 2) * width // 2
            shade = rng.uniform(-25, 25)
            image[
                row * height + 1 : (row + 1) * height, max(left + 1, 0) : max(left + width, 0)
            ] = np.asarray(brick) + shade
    return image


def _facade(
    wall: Callable[[np.random.Generator], Image],
    frame: Colour,
    floors: int,
    windows: int,
    *,
    door: Colour | None = None,
    shop: Colour | None = None,
) -> Painter:
    """A house front: rows of windows, and at street level a door or a shop window."""

    def paint(rng: np.random.Generator) -> Image:
        image = wall(rng)
        height, width = SIZE // floors, SIZE // windows
        entrance = int(rng.integers(windows))
        for floor in range(floors):
            top = floor * height + height // 5
            for column in range(windows):
                left = column * width + width // 4
                right, bottom = left + width // 2 + 1, top + height // 2
                street = floor == floors - 1
                if street and shop:
                    continue
                if street and door and column == entrance:
                    image[top - 2 : SIZE, left:right] = door
                    image[(top + SIZE) // 2, right - 3] = (230, 210, 90)
                    continue
                image[top - 2 : bottom + 3, left - 2 : right + 2] = frame
                pane = (
                    np.asarray((60, 75, 95))
                    + rng.uniform(-25, 60)
                    + np.linspace(40, -10, bottom - top)[:, None, None]
                )
                image[top:bottom, left:right] = pane
                if rng.uniform() < 0.35:
                    curtain = (right - left) // 3
                    image[top:bottom, left : left + curtain] = (215, 205, 190)
                image[top:bottom, (left + right) // 2] = frame
        if shop:
            top = SIZE - height + 3
            image[top : top + height // 4] = shop
            image[top + height // 4 : SIZE - 5, 8 : SIZE - 8] = (70, 85, 100)
            for _ in range(9):
                x = int(rng.integers(10, SIZE - 22))
                y = int(rng.integers(top + height // 3, SIZE - 14))
                w, h = (int(v) for v in rng.integers(4, 12, 2))
                image[y : y + h, x : x + w] = rng.uniform(40, 250, 3)
            image[top + height // 4 : SIZE - 5, SIZE // 2 - 1 : SIZE // 2 + 1] = frame
        return image

    return paint


def _mural(rng: np.random.Generator) -> Image:
    """Overlapping discs, bars and triangles of strong colours."""
    image = _plain((225, 222, 212))
    y, x = np.mgrid[:SIZE, :SIZE]
    for _ in range(14):
        cx, cy, r = rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(8, 32)
        colour = rng.uniform(20, 240, 3)
        kind = int(rng.integers(3))
        if kind == 0:
            inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r
        elif kind == 1:
            angle = rng.uniform(0, np.pi)
            inside = abs((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) < r / 4
        else:
            inside = (y > cy - r) & (y < cy + r) & (abs(x - cx) < (y - cy + r) / 2)
        image[inside] = colour
    return image


def _planks(colour: Colour, planks: int, *, upright: bool) -> Painter:
    def paint(rng: np.random.Generator) -> Image:
        image = _plain(colour)
        width = SIZE // planks
        grain = _clouds(rng, 32).mean(axis=1, keepdims=True) * 60
        for plank in range(planks):
            left = plank * width
            image[:, left : left + width] += rng.uniform(-22, 22)
            image[:, left : left + width] += np.roll(grain, int(rng.integers(SIZE)))[..., None]
            image[:, left] *= 0.5
        return image if upright else image.transpose(1, 0, 2)

    return paint


def _tiles(a: Colour, b: Colour, count: int) -> Painter:
    def paint(rng: np.random.Generator) -> Image:
        image = _plain(a)
        size = SIZE // count
        for row in range(count):
            for column in range(count):
                tile = image[row * size : (row + 1) * size, column * size : (column + 1) * size]
                tile[:] = np.asarray(a if (row + column) % 2 else b) + rng.uniform(-10, 10)
                tile[0] = tile[:, 0] = (120, 118, 112)
        return image

    return paint


def _books(rng: np.random.Generator) -> Image:
    image = _plain((92, 62, 38))
    shelves = 5
    height = SIZE // shelves
    for shelf in range(shelves):
        left = 3
        while left < SIZE - 6:
            width = int(rng.integers(3, 8))
            tall = int(rng.integers(height * 6 // 10, height - 3))
            floor = (shelf + 1) * height - 2
            if rng.uniform() < 0.9:
                image[floor - tall : floor, left : left + width - 1] = rng.uniform(30, 230, 3)
            left += width
    return image


def _road(rng: np.random.Generator) -> Image:
    image = _mottled(rng, (88, 88, 92), 7, 7)
    for start in range(0, SIZE, 32):
        image[SIZE // 2 - 2 : SIZE // 2 + 2, start : start + 18] = (205, 205, 198)
    image[:4] = image[-4:] = (150, 148, 142)
    return image


def _corrugated(colour: Colour) -> Painter:
    def paint(rng: np.random.Generator) -> Image:
        image = _plain(colour)
        image += 26 * np.sin(np.arange(SIZE) * 2 * np.pi / 8)[None, :, None]
        image[SIZE // 3 : SIZE // 2, SIZE // 4 : SIZE // 2] += 45
        image += (10 * _clouds(rng, 9))[..., None]
        return image

    return paint


def _leaves(colour: Colour) -> Painter:
    return lambda rng: (
        _plain(colour) + (32 * _clouds(rng, 9) + 26 * _clouds(rng, 24))[..., None] * (0.7, 1.0, 0.5)
    )


def _brick(colour: Colour, mortar: Colour = (170, 164, 155)) -> Painter:
    return lambda rng: _bricks(rng, colour, mortar, 16, 8)


def _plaster(colour: Colour) -> Painter:
    return lambda rng: _mottled(rng, colour, 8, 2)


PAINTERS: dict[str, Painter] = {
    "grass": _leaves((92, 122, 62)),
    "hedge": _leaves((52, 88, 40)),
    "leaves": _leaves((74, 112, 46)),
    "autumn_leaves": _leaves((168, 106, 44)),
    "road": _road,
    "paving": lambda rng: _bricks(rng, (158, 152, 144), (118, 114, 108), 8, 8),
    "gravel": lambda rng: _mottled(rng, (150, 140, 124), 8, 22),
    "tiles": _tiles((205, 198, 184), (168, 150, 130), 8),
    "parquet": _planks((150, 104, 62), 12, upright=False),
    "fence": _planks((140, 110, 80), 14, upright=True),
    "gate": _planks((70, 96, 84), 8, upright=True),
    "brick_wall": _brick((150, 74, 58)),
    "concrete": lambda rng: _mottled(rng, (158, 156, 150), 12, 4),
    "plaster": _plaster((218, 208, 188)),
    "house_red": _facade(_brick((152, 70, 54)), (228, 224, 214), 3, 5, door=(40, 66, 52)),
    "house_yellow": _facade(_plaster((216, 182, 104)), (240, 238, 230), 3, 4, door=(110, 60, 36)),
    "house_white": _facade(_plaster((226, 224, 218)), (78, 84, 96), 2, 4, door=(150, 40, 40)),
    "house_blue": _facade(_plaster((112, 142, 172)), (236, 236, 232), 4, 3, door=(60, 50, 44)),
    "house_green": _facade(_plaster((142, 164, 122)), (70, 56, 44), 3, 6, door=(200, 180, 60)),
    "office": _facade(_plaster((132, 136, 142)), (52, 56, 62), 5, 7),
    "shop_red": _facade(_brick((170, 120, 90)), (236, 232, 224), 3, 4, shop=(182, 44, 40)),
    "shop_green": _facade(_plaster((204, 196, 176)), (60, 60, 58), 3, 3, shop=(36, 110, 70)),
    "container_blue": _corrugated((52, 92, 148)),
    "container_orange": _corrugated((196, 102, 42)),
    "books": _books,
    "mural_1": _mural,
    "mural_2": _mural,
    "mural_3": _mural,
    "mural_4": _mural,
}


def paint(name: str) -> NDArray[np.uint8]:
    """The texture of this name: ``[SIZE, SIZE, 3]`` RGB, the same on every machine."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return PAINTERS[name](rng).clip(0, 255).astype(np.uint8)


def palette_png(pixels: NDArray[np.uint8], colours: int = 24) -> bytes:
    """Encode RGB pixels ``[H, W, 3]`` as a small palette PNG (median cut)."""
    flat = pixels.reshape(-1, 3).astype(np.int32)
    boxes = [np.arange(len(flat))]
    while len(boxes) < colours:
        spreads = [int(np.ptp(flat[box], axis=0).max()) * len(box) ** 0.5 for box in boxes]
        widest = int(np.argmax(spreads))
        if spreads[widest] == 0:
            break
        box = boxes.pop(widest)
        channel = int(np.argmax(np.ptp(flat[box], axis=0)))
        values = flat[box, channel]
        middle = (int(values.min()) + int(values.max())) // 2
        boxes += [box[values <= middle], box[values > middle]]
    palette = np.array([flat[box].mean(axis=0).round() for box in boxes], np.uint8)
    index = np.empty(len(flat), np.uint8)
    for number, box in enumerate(boxes):
        index[box] = number
    rows = index.reshape(pixels.shape[:2])
    height, width = len(rows), len(rows[0])
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + _chunk(b"PLTE", palette.tobytes())
        + _chunk(b"IDAT", zlib.compress(body, 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_textures(folder: Path) -> None:
    """Write every texture as ``folder/NAME.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PAINTERS:
        (folder / f"{name}.png").write_bytes(palette_png(paint(name)))


if __name__ == "__main__":
    write_textures(Path(sys.argv[1]))
