# SPDX-License-Identifier: Apache-2.0
"""Random scenes of labelled objects: single ones on an open place, streets and rooms.

The objects are those of the world ``loop``, in other sizes, proportions, colours, textures,
layouts and light (domain randomisation, Tobin et al. 2017).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spike_perception.simulation.classes import CLASSES
from spike_perception.simulation.daylight import DAYLIGHTS, Daylight
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import load_world
from spike_perception.simulation.textures import PAINTERS
from spike_perception.simulation.world_builder import Colour, WorldBuilder

CELL = 7.0  # distance between objects on an open place (m)
TEXTURE_VARIANTS = 6
INDOORS = 0.35  # of the open places stand under a ceiling
# What stands behind other objects.
BACKGROUND = frozenset({"building", "fence", "hedge", "shipping container", "wall"})
OUTDOORS = frozenset(
    {"building", "car", "fence", "hedge", "shipping container", "street light", "tree"}
)
FACADES = tuple(n for n in PAINTERS if n.startswith(("house", "shop", "office")))
WALLS = ("brick_wall", "concrete", "plaster")
GROUNDS = ("grass", "road", "paving", "gravel", "tiles", "parquet", "concrete")
# What lines a street, and what stands before it or before the walls of a room.
STREET_SIDE = ("building",) * 4 + ("shipping container", "wall", "fence", "hedge", "tree", "tree")
KERB = (
    *("car", "tree", "street light", "bench", "person", "trash can", "traffic sign", "barrel"),
    *("traffic cone", "box", "potted plant", "chair", "table"),
)
FURNITURE = (
    *("shelf", "shelf", "cabinet", "cabinet", "couch", "couch", "table", "chair", "chair"),
    *("potted plant", "person", "trash can", "box"),
)


@dataclass(frozen=True)
class Placed:
    """An object of a random scene: its word, place on the ground, extent (m), open side (rad).

    ``front`` is the direction from which nothing near stands before it, None if that is any.
    """

    word: str
    x: float
    y: float
    width: float
    height: float
    front: float | None = None


class RandomBuilder(WorldBuilder):
    """Builds objects of random proportions; textures are drawn from their variants."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__("objects")
        self.rng = rng
        self.scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
        self.extent = (0.0, 0.0)

    def plain(self) -> None:
        """Give the next object the proportions that it is described by."""
        self.scale = (1.0, 1.0, 1.0)

    def vary(self) -> None:
        """Draw the proportions of the next object."""
        whole = self.rng.uniform(0.85, 1.2)
        x, y, z = (float(whole * self.rng.uniform(0.85, 1.18)) for _ in range(3))
        self.scale = x, y, z
        self.extent = (0.0, 0.0)

    def add(self, kind: str, geometry: str, look: str | Colour, pose: tuple[float, ...]) -> None:
        """Add a shape, scaled; its geometry is SDF's text of sizes."""
        sx, sy, sz = self.scale
        numbers = [float(v) for v in re.findall(r"[-\d.e]+(?=[ <])", geometry)]
        x, y, z, *turn = (*pose, *(0.0,) * 6)[:6]
        across = math.sqrt(sx * sy)
        if kind == "box":
            numbers = [v * s for v, s in zip(numbers, self.scale, strict=True)]
            geometry = "<size>{:g} {:g} {:g}</size>".format(*numbers)
            top, reach = numbers[2] / 2, max(numbers[:2]) / 2
        elif kind == "cylinder":
            along = sz if not any(turn) else across
            radius, length = numbers[0] * across, numbers[1] * along
            geometry = f"<radius>{radius:g}</radius><length>{length:g}</length>"
            top, reach = (radius if any(turn) else length / 2), radius
        elif kind == "sphere":
            radius = numbers[0] * (across * sz) ** 0.5
            geometry = f"<radius>{radius:g}</radius>"
            top = reach = radius
        else:
            super().add(kind, geometry, look, pose)
            return
        x, y, z = x * sx, y * sy, z * sz
        self.extent = (
            max(self.extent[0], 2 * (math.hypot(x, y) + reach)),
            max(self.extent[1], z + top),
        )
        super().add(kind, geometry, look, (x, y, z, *turn))

    def variant(self, *names: str) -> str:
        """One variant of one of these textures."""
        name = names[int(self.rng.integers(len(names)))]
        return f"{name}_{self.rng.integers(TEXTURE_VARIANTS)}"

    def material(self, look: str | Colour) -> str:
        """As the base class, with a variant of the texture."""
        # Shapes of the world's objects ask for a texture by its plain name.
        return super().material(self.variant(look) if look in PAINTERS else look)

    def colour(self) -> Colour:
        """Any colour, bright ones as often as dull ones."""
        grey = self.rng.uniform(0.05, 0.95)
        mix = self.rng.uniform()
        r, g, b = (float(mix * c + (1 - mix) * grey) for c in self.rng.uniform(0, 1, 3))
        return r, g, b

    def near(self, colour: Colour, spread: float = 0.12) -> Colour:
        """A colour like this one."""
        r, g, b = (float(v) for v in np.clip(self.rng.normal(colour, spread), 0.02, 1))
        return r, g, b

    def place(self, word: str, x: float, y: float) -> Placed:
        """Add a random object of this class."""
        self.vary()
        rng = self.rng
        yaw = float(rng.uniform(-math.pi, math.pi))
        wide, deep, tall = (float(v) for v in rng.uniform(0.8, 1.25, 3))
        long = float(rng.uniform(2.4, 6.5))
        match word:
            case "barrel":
                self.barrel(x, y, self.colour())
            case "bench":
                self.bench(x, y, yaw)
            case "trash can":
                self.bin(x, y, self.colour())
            case "box":
                self.model("box", x, y, yaw)
                size = float(rng.uniform(0.45, 1.1))
                look = self.variant("fence") if rng.uniform() < 0.7 else self.near((0.7, 0.5, 0.3))
                self.box(look, (size * wide, size * deep, size * tall), 0, 0, size * tall / 2)
            case "building":
                size3 = (5.5 * wide, 5.5 * deep, float(rng.uniform(4, 10)))
                build = self.house if rng.uniform() < 0.5 else self.side_house
                side = self.variant(*WALLS) if rng.uniform() < 0.5 else self.colour()
                build(x, y, size3, self.variant(*FACADES), side)
            case "cabinet":
                look = self.near((0.42, 0.28, 0.18)) if rng.uniform() < 0.6 else self.colour()
                self.furniture("cabinet", look, x, y, (1.3 * wide, 0.45 * deep, 1.6 * tall))
            case "car":
                self.car(x, y, yaw, self.colour())
            case "chair":
                self.chair(x, y, yaw, self.colour())
            case "shipping container":
                look = self.variant("container_blue", "container_orange")
                self.wall("container", look, x, y, (2.2, 5.4, 2.5))
            case "fence":
                look, height = self.variant("fence", "gate"), float(rng.uniform(1.2, 2.2))
                self.wall("fence", look, x, y, self._facing(long, 0.12, height))
            case "hedge":
                height = float(rng.uniform(1.2, 2.2))
                self.wall("hedge", self.variant("hedge"), x, y, self._facing(long, 0.6, height))
            case "person":
                self.person(x, y, yaw, self.colour(), self.colour())
            case "potted plant":
                self.potted_plant(x, y)
            case "shelf":
                look = self.variant("books")
                self.furniture("shelf", look, x, y, (1.7 * wide, 0.4 * deep, 2.1 * tall))
            case "couch":
                self.sofa(x, y, yaw, self.colour())
            case "street light":
                self.street_lamp(x, y)
            case "table":
                look = self.near((0.55, 0.38, 0.22)) if rng.uniform() < 0.5 else self.colour()
                self.table(x, y, yaw, look)
            case "traffic cone":
                self.traffic_cone(x, y)
            case "traffic sign":
                self.traffic_sign(x, y, yaw, self.colour())
            case "tree":
                self.tree(
                    x, y, float(rng.uniform(3.2, 7.5)), self.variant("leaves", "autumn_leaves")
                )
            case "wall":
                height = float(rng.uniform(2.0, 3.2))
                self.wall("wall", self.variant(*WALLS), x, y, self._facing(long, 0.2, height))
            case _:
                raise ValueError(word)
        return Placed(word, x, y, *self.extent)

    def line(self, word: str, x: float, y: float, side: int, width: float, depth: float) -> None:
        """Add a piece of a street's side; its front is at ``y``, the street runs along x."""
        self.plain()
        rng = self.rng
        if word == "building":
            size = (width, depth, float(rng.uniform(4, 10)))
            self.house(x, y + side * depth / 2, size, self.variant(*FACADES), self.variant(*WALLS))
        elif word == "tree":
            self.place(word, x, y + side * float(rng.uniform(0, 2)))
        else:
            look = {
                "shipping container": ("container_blue", "container_orange"),
                "fence": ("fence", "gate"),
                "hedge": ("hedge",),
                "wall": WALLS,
            }[word]
            height = 2.5 if word == "shipping container" else float(rng.uniform(1.4, 2.6))
            thick = {"shipping container": 2.2, "hedge": 0.7}.get(word, 0.2)
            label = "container" if word == "shipping container" else word
            at = y + side * thick / 2
            self.wall(label, self.variant(*look), x, at, (width - 0.1, thick, height))

    def stand(self, word: str, x: float, side: int, half: float) -> None:
        """Add a piece of furniture with its back to the wall at ``side * half`` along y."""
        rng = self.rng
        if word in ("shelf", "cabinet"):
            self.plain()
            deep, wide = float(rng.uniform(0.3, 0.5)), float(rng.uniform(0.8, 2.2))
            books = self.variant("books")
            look: str | Colour = books if word == "shelf" else self.near((0.42, 0.28, 0.18), 0.2)
            size = (wide, deep, float(rng.uniform(1.1, 2.2)))
            self.furniture(word, look, x, side * (half - 0.12 - deep / 2), size)
        elif word == "couch":
            self.vary()
            self.sofa(x, side * (half - 0.6), -side * math.pi / 2, self.colour())
        else:
            self.place(word, x, side * (half - float(rng.uniform(0.6, 0.9))))

    def backdrop(self, target: Placed) -> Placed:
        """Put something wide behind an object; returns the object with its open side."""
        behind = float(self.rng.choice([0.0, 0.5, 1.0, 1.5])) * math.pi
        away = target.width / 2 + float(self.rng.uniform(0.3, 1.5))
        self.vary()
        across = (0.2, 6.0) if math.cos(behind) ** 2 > 0.5 else (6.0, 0.2)
        look, height = self.variant(*WALLS, *FACADES, "fence", "hedge", "mural_1"), 3.5
        label = "wall" if look.startswith(WALLS) else "building"
        label = look.rsplit("_", 1)[0] if look.startswith(("fence", "hedge")) else label
        if label in ("fence", "hedge"):
            height = 1.8
        x, y = target.x + away * math.cos(behind), target.y + away * math.sin(behind)
        self.wall(label, look, x, y, (*across, height))
        return replace(target, front=behind + math.pi)

    def _facing(self, length: float, depth: float, height: float) -> tuple[float, float, float]:
        return (length, depth, height) if self.rng.uniform() < 0.5 else (depth, length, height)


def random_daylight(rng: np.random.Generator) -> Daylight:
    """A time of day, but night, with its sun, light and camera moved a little."""
    day = DAYLIGHTS[str(rng.choice([name for name in DAYLIGHTS if name != "night"]))]
    tint = rng.uniform(0.85, 1.15, 3)

    def near(colour: tuple[float, float, float]) -> tuple[float, float, float]:
        r, g, b = (float(v) for v in np.clip(np.asarray(colour) * tint, 0, 1))
        return r, g, b

    return replace(
        day,
        azimuth=float(rng.uniform(-math.pi, math.pi)),
        elevation=float(np.clip(day.elevation + rng.normal(0, 0.2), 0.15, 1.5)),
        sun=near(day.sun),
        ambient=near(day.ambient),
        zenith=near(day.zenith),
        horizon=near(day.horizon),
        exposure=day.exposure * float(rng.uniform(0.8, 1.2)),
        noise=day.noise * float(rng.uniform(0.5, 1.5)),
    )


def write_texture_variants(folder: Path, rng: np.random.Generator) -> None:
    """Write every texture painted anew, in other tints: ``folder/NAME_K.png``."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    for name, painter in PAINTERS.items():
        for variant in range(TEXTURE_VARIANTS):
            pixels = painter(rng) * rng.uniform(0.75, 1.2) * rng.uniform(0.88, 1.12, 3)
            if rng.uniform() < 0.5:
                pixels = pixels[:, ::-1]
            bgr = np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8)[..., ::-1])
            cv2.imwrite(str(folder / f"{name}_{variant}.png"), bgr)


def random_place(
    folder: Path, classes: tuple[str, ...], size: int, rng: np.random.Generator
) -> tuple[Scene, list[Placed]]:
    """An open place that holds one object of every class among others, apart from each other.

    Args:
        folder: holds ``textures/``; the world's SDF is written into it.
        classes: words to be placed; under a ceiling, only those that stand indoors are.
        size: edge of the largest picture (px).
        rng: source of all randomness.
    """
    builder = RandomBuilder(rng)
    others = CLASSES
    inside = tuple(word for word in classes if word not in OUTDOORS)
    if inside and rng.uniform() < INDOORS:
        classes, others = inside, tuple(word for word in CLASSES if word not in OUTDOORS)
        builder.wall("ceiling", builder.variant(*WALLS), 0, 0, (80, 80, 0.2), rng.uniform(2.7, 3.6))
    builder.model("ground", 0, 0)
    builder.plane(builder.variant(*GROUNDS), 160, 160)
    side = math.ceil(math.sqrt(len(classes) * 1.35))
    cells = rng.permutation(side * side)
    words = [*classes, *rng.choice(others, max(side * side - len(classes), 0)).tolist()]
    placed = []
    for word, cell in zip(words, cells.tolist(), strict=False):
        row, column = divmod(cell, side)
        x, y = (
            float((at - (side - 1) / 2) * CELL + rng.uniform(-1.2, 1.2)) for at in (column, row)
        )
        builder.plain()
        if rng.uniform() < 0.5:
            builder.slab(builder.variant(*GROUNDS), x, y, (CELL, CELL))
        target = builder.place(word, x, y)
        if word not in BACKGROUND and target.width < CELL / 2 and rng.uniform() < 0.5:
            target = builder.backdrop(target)
        placed.append(target)
    return _compiled(builder, folder, size), placed[: len(classes)]


def random_street(folder: Path, size: int, rng: np.random.Generator) -> tuple[Scene, list[Pose]]:
    """A street along x, lined on both sides, and poses of a camera that is driven through it.

    Arguments are those of :func:`random_place`.
    """
    builder = RandomBuilder(rng)
    builder.model("ground", 0, 0)
    builder.plane(builder.variant("grass", "gravel", "paving"), 160, 160)
    builder.slab(builder.variant(*GROUNDS), 0, 0, (70, 4.0))
    length, half = 32.0, float(rng.uniform(2.6, 5.5))
    for side in (-1, 1):
        # A stretch of street is of one kind, as a row of houses or a hedge is.
        x = -length
        while x < length:
            word = str(rng.choice(STREET_SIDE))
            for _ in range(int(rng.integers(1, 4))):
                builder.vary()
                width, depth = float(rng.uniform(4, 7)), float(rng.uniform(4, 7))
                x += width
                builder.line(word, x - width / 2, side * half, side, width, depth)
        x = -length + float(rng.uniform(0, 4))
        while x < length:
            builder.place(str(rng.choice(KERB)), x, side * (half - float(rng.uniform(0.4, 1.0))))
            x += float(rng.uniform(1.5, 6.0))
        # What closes the street.
        builder.plain()
        builder.side_house(
            side * (length + 6), 0, (5, 14, float(rng.uniform(5, 10))), builder.variant(*FACADES),
            builder.variant(*WALLS),
        )  # fmt: skip
    return _compiled(builder, folder, size), _along(rng, length * 0.8, half - 1.6)


def random_room(folder: Path, size: int, rng: np.random.Generator) -> tuple[Scene, list[Pose]]:
    """A furnished room with wide doorways at both ends, and poses of a camera driven through it.

    Arguments are those of :func:`random_place`.
    """
    builder = RandomBuilder(rng)
    builder.model("ground", 0, 0)
    builder.plane(builder.variant(*GROUNDS), 160, 160)
    length, half = float(rng.uniform(3, 7)), float(rng.uniform(2.2, 3.4))
    height, door = float(rng.uniform(2.6, 3.3)), float(rng.uniform(1.0, 1.8))
    builder.slab(builder.variant("tiles", "parquet", "concrete"), 0, 0, (2 * length, 2 * half))
    builder.wall("ceiling", builder.variant(*WALLS), 0, 0, (2 * length, 2 * half, 0.15), height)
    for side in (-1, 1):
        builder.wall("wall", builder.variant(*WALLS), 0, side * half, (2 * length, 0.2, height))
        look, post = builder.variant(*WALLS), half - door
        for at in (-1, 1):
            y = at * (door + post / 2)
            builder.wall("wall", look, side * length, y, (0.2, post, height))
        if rng.uniform() < 0.6:
            builder.wall("wall", look, side * length, 0, (0.2, 2 * door, 0.6), height - 0.6)
        # What is seen through the doorway.
        builder.place(str(rng.choice(STREET_SIDE)), side * (length + 9), float(rng.uniform(-3, 3)))
        x = -length + 0.8
        while x < length - 0.8:
            builder.stand(str(rng.choice(FURNITURE)), x, side, half)
            x += float(rng.uniform(1.0, 2.6))
    return _compiled(builder, folder, size), _along(rng, length + 1.5, half - 1.7)


def _along(rng: np.random.Generator, length: float, half: float) -> list[Pose]:
    """Level poses along x, most of them looking that way."""
    poses = []
    for _ in range(24):
        yaw = float(rng.choice([0.0, math.pi]) + rng.normal(0, 0.45))
        x, y = float(rng.uniform(-length, length)), float(rng.uniform(-half, half))
        height, pitch = float(rng.uniform(0.6, 1.2)), float(rng.normal(0, 0.03))
        poses.append(Pose.from_euler(x, y, height, 0.0, pitch, yaw))
    return poses


def _compiled(builder: RandomBuilder, folder: Path, size: int) -> Scene:
    """The scene of what was built, with a camera on an invisible robot."""
    builder.model("robot", 0, 0, static=False)
    builder.models[-1][3].append(
        '<sensor name="camera" type="camera"><camera><horizontal_fov>1</horizontal_fov>'
        f"<image><width>{size}</width><height>{size}</height></image>"
        "<clip><near>0.05</near><far>120</far></clip></camera></sensor>"
    )
    source = folder / "scene.sdf"
    source.write_text(builder.sdf())
    return Scene(load_world(source), random_daylight(builder.rng), size=(size, size))
