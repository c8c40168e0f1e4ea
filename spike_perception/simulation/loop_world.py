# SPDX-License-Identifier: Apache-2.0
"""Build the world ``loop``: a street, a yard, two rooms and a car park around a block of houses.

``python -m spike_perception.simulation.loop_world FOLDER`` writes ``loop.sdf`` and its textures.
Models are named after their class and numbered, as in ``traffic_cone_2``: the name is the ground
truth of what a sensor sees. The route runs round the block counter-clockwise, on the rectangle
x = ±12, y = ±7 (m).
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from spike_perception.simulation.textures import write_textures

Colour = tuple[float, float, float]
Place = tuple[float, float, float]  # x, y (m), yaw (rad)

WOOD, DARK, WHITE, METAL = (
    (0.55, 0.38, 0.22),
    (0.15, 0.15, 0.17),
    (0.9, 0.9, 0.88),
    (0.6, 0.6, 0.63),
)
RED, BLUE, GREEN, YELLOW = (
    (0.75, 0.15, 0.12),
    (0.15, 0.3, 0.65),
    (0.2, 0.5, 0.25),
    (0.9, 0.75, 0.15),
)
ORANGE, SKIN, BROWN = (0.95, 0.45, 0.08), (0.85, 0.65, 0.52), (0.35, 0.22, 0.12)
EAST, NORTH, WEST, SOUTH = 0.0, 1.570796, 3.141593, -1.570796


def _material(look: str | Colour) -> str:
    if isinstance(look, str):
        return (
            "<material><diffuse>1 1 1 1</diffuse><pbr><metal><albedo_map>"
            f"textures/{look}.png</albedo_map></metal></pbr></material>"
        )
    r, g, b = look
    return f"<material><ambient>{r} {g} {b} 1</ambient><diffuse>{r} {g} {b} 1</diffuse></material>"


class _Builder:
    """Collects models; shapes added between two models belong to the first."""

    def __init__(self) -> None:
        self.models: list[tuple[str, Place, bool, list[str]]] = []
        self.numbers: Counter[str] = Counter()

    def model(
        self, label: str, x: float, y: float, yaw: float = 0.0, *, static: bool = True
    ) -> None:
        self.numbers[label] += 1
        name = f"{label}_{self.numbers[label]}" if static else label
        self.models.append((name, (x, y, yaw), static, []))

    def _add(self, kind: str, geometry: str, look: str | Colour, pose: tuple[float, ...]) -> None:
        parts = self.models[-1][3]
        place = " ".join(f"{v:g}" for v in (pose + (0.0,) * 6)[:6])
        shape = f"<geometry><{kind}>{geometry}</{kind}></geometry>"
        parts.append(
            f'<visual name="part_{len(parts) + 1}"><pose>{place}</pose>{shape}'
            f"{_material(look)}</visual>"
        )
        if kind != "plane":
            parts.append(
                f'<collision name="body_{len(parts)}"><pose>{place}</pose>{shape}</collision>'
            )

    def box(self, look: str | Colour, size: tuple[float, float, float], *pose: float) -> None:
        self._add("box", f"<size>{size[0]:g} {size[1]:g} {size[2]:g}</size>", look, pose)

    def cylinder(self, look: Colour, radius: float, length: float, *pose: float) -> None:
        self._add("cylinder", f"<radius>{radius:g}</radius><length>{length:g}</length>", look, pose)

    def sphere(self, look: str | Colour, radius: float, *pose: float) -> None:
        self._add("sphere", f"<radius>{radius:g}</radius>", look, pose)

    def plane(self, look: str | Colour, x: float, y: float) -> None:
        self._add("plane", f"<normal>0 0 1</normal><size>{x:g} {y:g}</size>", look, ())

    # Buildings and ground: x, y are centres.

    def slab(
        self, look: str, x: float, y: float, size: tuple[float, float], yaw: float = 0
    ) -> None:
        self.model("ground", x, y, yaw)
        # Where slabs overlap, the later one lies on top.
        self.box(look, (*size, 0.04), 0, 0, 0.001 * self.numbers["ground"] - 0.01)

    def house(
        self, x: float, y: float, size: tuple[float, float, float], look: str, wall: str | Colour
    ) -> None:
        """A house whose fronts (south and north) look so, and whose sides look like ``wall``."""
        self.model("building", x, y)
        w, d, h = size
        self.box(wall, (w, d, h), 0, 0, h / 2)
        for side in (-1, 1):
            self.box(look, (w, 0.08, h), 0, side * (d / 2 + 0.02), h / 2)
        self.box((0.33, 0.2, 0.17), (w + 0.3, d + 0.3, 0.25), 0, 0, h + 0.1)

    def side_house(
        self, x: float, y: float, size: tuple[float, float, float], look: str, wall: str | Colour
    ) -> None:
        """A house whose fronts face west and east."""
        self.model("building", x, y)
        w, d, h = size
        self.box(wall, (w, d, h), 0, 0, h / 2)
        for side in (-1, 1):
            self.box(look, (0.08, d, h), side * (w / 2 + 0.02), 0, h / 2)
        self.box((0.25, 0.25, 0.28), (w + 0.3, d + 0.3, 0.25), 0, 0, h + 0.1)

    def wall(
        self,
        label: str,
        look: str,
        x: float,
        y: float,
        size: tuple[float, float, float],
        z: float = 0,
    ) -> None:
        self.model(label, x, y)
        self.box(look, size, 0, 0, z + size[2] / 2)

    # Objects: x, y, and the direction in which they face.

    def chair(self, x: float, y: float, yaw: float, look: Colour) -> None:
        self.model("chair", x, y, yaw)
        self.box(look, (0.45, 0.45, 0.06), 0, 0, 0.45)
        self.box(look, (0.06, 0.45, 0.5), -0.21, 0, 0.72)
        for dx in (-0.19, 0.19):
            for dy in (-0.19, 0.19):
                self.box(DARK, (0.05, 0.05, 0.43), dx, dy, 0.215)

    def table(self, x: float, y: float, yaw: float, look: Colour, label: str = "table") -> None:
        self.model(label, x, y, yaw)
        self.box(look, (0.7, 1.4, 0.06), 0, 0, 0.74)
        for dx in (-0.29, 0.29):
            for dy in (-0.63, 0.63):
                self.box(look, (0.07, 0.07, 0.72), dx, dy, 0.36)

    def bench(self, x: float, y: float, yaw: float) -> None:
        self.model("bench", x, y, yaw)
        self.box(WOOD, (0.45, 1.7, 0.07), 0, 0, 0.45)
        self.box(WOOD, (0.07, 1.7, 0.4), -0.22, 0, 0.75)
        for dy in (-0.7, 0.7):
            self.box(METAL, (0.4, 0.08, 0.43), 0, dy, 0.215)

    def sofa(self, x: float, y: float, yaw: float, look: Colour) -> None:
        self.model("sofa", x, y, yaw)
        self.box(look, (0.75, 1.9, 0.42), 0, 0, 0.21)
        self.box(look, (0.2, 1.9, 0.45), -0.3, 0, 0.62)
        for dy in (-0.87, 0.87):
            self.box(look, (0.75, 0.18, 0.2), 0, dy, 0.5)

    def tree(self, x: float, y: float, height: float, look: str) -> None:
        self.model("tree", x, y)
        self.cylinder(BROWN, 0.14, height * 0.6, 0, 0, height * 0.3)
        radius = height * 0.27
        self.sphere(look, radius, 0, 0, height * 0.68)
        self.sphere(look, radius * 0.75, radius * 0.6, 0.3, height * 0.55)
        self.sphere(look, radius * 0.7, -radius * 0.5, -radius * 0.5, height * 0.58)

    def car(self, x: float, y: float, yaw: float, look: Colour) -> None:
        self.model("car", x, y, yaw)
        self.box(look, (3.9, 1.65, 0.55), 0, 0, 0.6)
        self.box((0.2, 0.25, 0.3), (2.0, 1.5, 0.5), -0.2, 0, 1.1)
        self.box(look, (1.7, 1.45, 0.08), -0.25, 0, 1.37)
        for dx in (-1.2, 1.2):
            for dy in (-0.75, 0.75):
                self.cylinder(DARK, 0.32, 0.22, dx, dy, 0.32, 1.570796)
        for dy in (-0.6, 0.6):
            self.box((1.0, 0.95, 0.7), (0.04, 0.3, 0.15), 1.95, dy, 0.65)
            self.box(RED, (0.04, 0.3, 0.15), -1.95, dy, 0.65)

    def person(self, x: float, y: float, yaw: float, shirt: Colour, trousers: Colour) -> None:
        self.model("person", x, y, yaw)
        for dy in (-0.1, 0.1):
            self.cylinder(trousers, 0.09, 0.82, 0, dy, 0.41)
        self.box(shirt, (0.25, 0.42, 0.6), 0, 0, 1.12)
        for dy in (-0.27, 0.27):
            self.cylinder(shirt, 0.06, 0.6, 0, dy, 1.1)
        self.sphere(SKIN, 0.13, 0, 0, 1.6)
        self.sphere(BROWN, 0.125, -0.02, 0, 1.65)

    def street_lamp(self, x: float, y: float) -> None:
        self.model("street_lamp", x, y)
        self.cylinder(DARK, 0.06, 4.0, 0, 0, 2.0)
        self.sphere((1.0, 0.97, 0.85), 0.22, 0, 0, 4.1)

    def traffic_cone(self, x: float, y: float) -> None:
        self.model("traffic_cone", x, y)
        self.box(ORANGE, (0.36, 0.36, 0.04), 0, 0, 0.05)
        for radius, z, look in ((0.14, 0.16, ORANGE), (0.1, 0.34, WHITE), (0.06, 0.52, ORANGE)):
            self.cylinder(look, radius, 0.2, 0, 0, z)

    def bin(self, x: float, y: float, look: Colour) -> None:
        self.model("bin", x, y)
        self.cylinder(look, 0.28, 0.85, 0, 0, 0.43)
        self.cylinder(DARK, 0.3, 0.08, 0, 0, 0.88)

    def barrel(self, x: float, y: float, look: Colour) -> None:
        self.model("barrel", x, y)
        self.cylinder(look, 0.3, 0.9, 0, 0, 0.45)
        for z in (0.3, 0.6):
            self.cylinder(METAL, 0.315, 0.05, 0, 0, z)

    def crate(self, x: float, y: float, yaw: float, size: float) -> None:
        self.model("box", x, y, yaw)
        self.box("fence", (size, size, size), 0, 0, size / 2)

    def potted_plant(self, x: float, y: float) -> None:
        self.model("potted_plant", x, y)
        self.cylinder((0.65, 0.33, 0.2), 0.2, 0.36, 0, 0, 0.18)
        self.sphere("leaves", 0.36, 0, 0, 0.7)
        self.sphere("leaves", 0.24, 0.1, 0.1, 1.05)

    def traffic_sign(self, x: float, y: float, yaw: float, look: Colour) -> None:
        self.model("traffic_sign", x, y, yaw)
        self.cylinder(METAL, 0.04, 2.2, 0, 0, 1.1)
        self.cylinder(look, 0.34, 0.04, 0.05, 0, 2.2, 0, 1.570796)
        self.box(WHITE, (0.05, 0.4, 0.1), 0.06, 0, 2.2)

    def furniture(
        self, label: str, look: str | Colour, x: float, y: float, size: tuple[float, float, float]
    ) -> None:
        self.model(label, x, y)
        self.box(look, size, 0, 0, size[2] / 2)

    def picture(self, look: str, x: float, y: float, size: tuple[float, float], z: float) -> None:
        """A picture on a wall that runs along x."""
        self.model("picture", x, y)
        self.box(look, (size[0], 0.06, size[1]), 0, 0, z)

    def sdf(self) -> str:
        lines = [
            '<?xml version="1.0"?>',
            '<sdf version="1.9">',
            '<world name="loop">',
            '<physics name="steps" type="ignored"><max_step_size>0.004</max_step_size>'
            "<real_time_factor>1</real_time_factor></physics>",
            "<scene><ambient>0.42 0.43 0.45 1</ambient><background>0.55 0.7 0.9 1</background>"
            "<shadows>true</shadows></scene>",
            '<light type="directional" name="sun"><cast_shadows>true</cast_shadows>'
            "<pose>0 0 20 0 0 0</pose><diffuse>0.65 0.64 0.6 1</diffuse>"
            "<specular>0.1 0.1 0.1 1</specular><direction>-0.18 0.5 -0.85</direction></light>",
        ]
        for name, (x, y, yaw), static, parts in self.models:
            lines.append(f'<model name="{name}"><static>{str(static).lower()}</static>')
            lines.append(f"<pose>{x:g} {y:g} 0 0 0 {yaw:g}</pose>")
            lines += ['<link name="base_link">' if not static else '<link name="link">', *parts]
            lines.append("</link></model>")
        return "\n".join([*lines, "</world>", "</sdf>", ""])


def build() -> str:
    """The SDF text of the world."""
    b = _Builder()
    _ground(b)
    _block(b)
    _street(b)
    _yard(b)
    _rooms(b)
    _car_park(b)
    _robot(b)
    return b.sdf()


def _ground(b: _Builder) -> None:
    b.model("ground", 0, 0)
    b.plane("grass", 120, 120)
    for x in (-9, -3, 3, 9):
        b.slab("road", x, -7, (6, 3.6))
        b.slab("paving", x, -9.6, (6, 1.6))
        b.slab("paving", x, -4.6, (6, 1.2))
    for y in (-7.5, -2.5, 2.5, 7.5):
        b.slab("gravel", 12, y, (4.6, 5))
        b.slab("paving", -12, y, (5, 5))
    b.slab("paving", -13.5, -8.8, (3, 3.2))
    for x in (-4, 4):
        b.slab("tiles" if x > 0 else "parquet", x, 7, (8, 5))


def _block(b: _Builder) -> None:
    """The houses in the middle, round which the route runs."""
    b.house(-6.2, 0, (5.6, 8, 6.0), "house_red", "brick_wall")
    b.house(-0.4, 0, (5.8, 7.6, 5.0), "shop_green", "plaster")
    b.house(5.8, 0, (6.4, 8, 7.0), "house_yellow", (0.78, 0.68, 0.42))
    b.model("mural", 9.06, -1.2)
    b.box("mural_1", (0.06, 3.6, 2.6), 0, 0, 1.8)
    b.model("door", 9.06, 2.2)
    b.box(GREEN, (0.1, 1.1, 2.2), 0, 0, 1.1)
    b.model("mural", -9.06, 1.4)
    b.box("mural_2", (0.06, 4.2, 2.6), 0, 0, 1.9)
    b.model("door", -9.06, -2.2)
    b.box(BLUE, (0.1, 1.0, 2.1), 0, 0, 1.05)


def _street(b: _Builder) -> None:
    b.house(-13.4, -13.2, (5.2, 5, 6.5), "house_blue", (0.44, 0.55, 0.66))
    b.house(-7.6, -13.4, (5.4, 5.4, 5.0), "shop_red", "brick_wall")
    b.house(-1.8, -13.7, (5.4, 6, 9.0), "office", (0.5, 0.52, 0.55))
    b.wall("fence", "fence", 2.6, -11.0, (3.2, 0.12, 1.7))
    b.tree(2.4, -13.4, 5.5, "leaves")
    b.house(7.0, -13.0, (5.0, 4.8, 4.4), "house_white", "plaster")
    b.house(13.4, -13.6, (6.0, 6, 6.0), "house_green", (0.55, 0.63, 0.47))
    b.car(-4.6, -9.6, EAST, BLUE)
    b.car(9.4, -9.5, WEST, WHITE)
    b.bench(-0.3, -10.2, NORTH)
    b.street_lamp(-9.4, -9.2)
    b.street_lamp(5.2, -9.2)
    b.street_lamp(1.2, -4.6)
    b.tree(3.4, -9.7, 3.4, "autumn_leaves")
    b.bin(1.6, -9.4, GREEN)
    b.person(-7.9, -9.7, NORTH, RED, DARK)
    b.person(4.2, -4.7, WEST, YELLOW, BLUE)
    b.traffic_sign(-11.2, -9.3, WEST, RED)
    b.traffic_sign(8.6, -5.0, WEST, BLUE)
    b.potted_plant(-2.2, -4.5)
    b.potted_plant(-4.9, -4.6)
    b.chair(-0.9, -4.8, SOUTH, RED)
    b.chair(0.0, -4.8, SOUTH, RED)
    b.furniture("mailbox", YELLOW, 6.2, -4.5, (0.4, 0.35, 1.2))
    b.crate(-6.9, -4.6, 0.3, 0.7)


def _yard(b: _Builder) -> None:
    for y, look in ((-5.6, "fence"), (-1.9, "hedge"), (1.8, "fence"), (5.5, "brick_wall")):
        label = "fence" if look == "fence" else "hedge" if look == "hedge" else "wall"
        b.wall(label, look, 16.4, y, (0.2, 3.6, 1.6))
    b.tree(14.9, -4.6, 4.2, "leaves")
    b.tree(14.9, 1.4, 5.2, "leaves")
    b.tree(15.2, 4.9, 3.8, "autumn_leaves")
    b.tree(19.5, -8.0, 7.0, "leaves")
    b.tree(20.0, 8.5, 6.0, "autumn_leaves")
    b.tree(18.6, 1.0, 7.5, "leaves")
    b.bench(14.8, -1.4, WEST)
    b.table(14.9, 3.2, EAST, WOOD)
    b.person(14.6, -2.8, WEST, GREEN, BROWN)
    b.barrel(9.8, -3.4, BLUE)
    b.barrel(9.7, 0.9, RED)
    b.barrel(10.0, 1.4, BLUE)
    b.crate(9.8, 3.4, 0.2, 0.9)
    b.crate(14.7, -6.3, 0.6, 0.8)
    b.potted_plant(9.7, -0.4)
    b.side_house(28, -6, (6, 10, 8.0), "house_red", "brick_wall")
    b.side_house(29, 7, (6, 9, 12.0), "office", (0.5, 0.52, 0.55))
    b.wall("hedge", "hedge", 13.8, 11.2, (4.6, 0.7, 1.9))
    b.tree(11.2, 12.4, 5.4, "leaves")
    b.house(13.2, 18.0, (8, 5, 7.0), "house_white", "plaster")
    b.street_lamp(14.7, 7.4)
    b.furniture("fire_hydrant", RED, 14.4, 9.3, (0.3, 0.3, 0.8))


def _rooms(b: _Builder) -> None:
    """Two rooms that the route runs through, joined by a wide doorway."""
    for x in (-4, 4):
        b.wall("wall", "plaster" if x < 0 else "concrete", x, 4.45, (8, 0.2, 3.0))
        b.wall("wall", "plaster" if x < 0 else "brick_wall", x, 9.55, (8, 0.2, 3.0))
        b.wall("ceiling", "concrete", x, 7, (8, 5.3, 0.15), 3.0)
    for x, look in ((-8, "brick_wall"), (0, "plaster"), (8, "brick_wall")):
        b.wall("wall", look, x, 5.05, (0.2, 1.0, 3.0))
        b.wall("wall", look, x, 8.95, (0.2, 1.0, 3.0))
        b.wall("wall", look, x, 7, (0.2, 2.9, 0.7), 2.3)
    # The eastern room, entered first.
    b.furniture("shelf", "books", 6.2, 9.25, (2.2, 0.4, 2.1))
    b.table(3.4, 8.95, NORTH, WOOD)
    b.chair(2.9, 8.45, NORTH, BLUE)
    b.chair(3.9, 8.45, NORTH, BLUE)
    b.picture("mural_3", 3.4, 9.42, (1.3, 0.9), 1.9)
    b.furniture("cabinet", (0.42, 0.28, 0.18), 1.2, 9.2, (1.2, 0.45, 1.3))
    b.sofa(5.6, 4.95, NORTH, GREEN)
    b.picture("mural_1", 5.4, 4.58, (1.6, 0.9), 1.9)
    b.potted_plant(7.2, 5.0)
    b.table(2.4, 5.0, NORTH, WHITE, "desk")
    b.furniture("display", DARK, 2.4, 4.75, (0.7, 0.08, 1.25))
    b.person(0.9, 5.1, NORTH, BLUE, DARK)
    # The western room.
    b.furniture("bed", (0.5, 0.6, 0.75), -2.2, 9.0, (2.0, 0.8, 0.5))
    b.picture("mural_4", -2.2, 9.42, (1.1, 1.1), 1.8)
    b.furniture("shelf", "books", -5.0, 9.25, (1.2, 0.4, 2.1))
    b.chair(-6.6, 9.0, SOUTH, ORANGE)
    b.furniture("cabinet", WHITE, -1.4, 4.8, (1.4, 0.45, 2.0))
    b.table(-3.9, 5.0, NORTH, DARK)
    b.chair(-3.5, 5.5, SOUTH, WHITE)
    b.chair(-4.4, 5.5, SOUTH, WHITE)
    b.sofa(-6.4, 4.95, NORTH, RED)
    b.picture("mural_2", -6.2, 4.58, (1.2, 1.0), 1.9)
    b.bin(-7.5, 8.9, BLUE)


def _car_park(b: _Builder) -> None:
    b.wall("container", "container_orange", -16.6, 6.6, (2.2, 5.6, 2.5))
    b.wall("container", "container_blue", -16.8, 0.9, (2.2, 5.2, 2.5))
    b.car(-16.6, -3.8, NORTH, RED)
    b.car(-16.5, -8.4, NORTH, GREEN)
    b.wall("wall", "brick_wall", -19.0, -5.5, (0.25, 9, 2.2))
    b.wall("gate", "gate", -13.2, 11.6, (4.0, 0.15, 2.1))
    b.wall("wall", "concrete", -9.4, 10.8, (3.0, 0.3, 2.4))
    b.traffic_cone(-14.3, 3.6)
    b.traffic_cone(-14.4, -1.7)
    b.traffic_cone(-9.9, -1.2)
    b.barrel(-9.8, 3.6, YELLOW)
    b.barrel(-14.9, -6.0, RED)
    b.crate(-9.8, -0.4, 0.1, 0.8)
    b.crate(-14.7, 9.3, 0.5, 1.0)
    b.bin(-9.7, -3.6, GREEN)
    b.street_lamp(-14.4, 1.4)
    b.street_lamp(-9.8, -4.9)
    b.person(-14.6, -4.4, EAST, ORANGE, DARK)
    b.tree(-21.5, 2.0, 6.5, "leaves")
    b.tree(-20.5, -13.0, 6.0, "autumn_leaves")
    b.tree(-14.6, 14.2, 5.0, "leaves")
    b.side_house(-27, -4, (6, 12, 9.0), "house_blue", (0.44, 0.55, 0.66))
    b.bench(-9.6, 1.2, WEST)
    b.traffic_sign(-14.6, -9.9, EAST, BLUE)


def _robot(b: _Builder) -> None:
    b.model("robot", -9, -7, static=False)
    b.box((0.25, 0.28, 0.32), (0.5, 0.4, 0.2), 0, 0, 0.22)
    b.cylinder(DARK, 0.03, 0.5, -0.05, 0, 0.55)
    for dx in (-0.16, 0.16):
        for dy in (-0.23, 0.23):
            b.cylinder(DARK, 0.12, 0.06, dx, dy, 0.12, 1.570796)
    b.models[-1][3].append(
        '<sensor name="camera" type="camera"><pose>0.2 0 0.8 0 0 0</pose>'
        "<update_rate>10</update_rate><topic>/camera/image_raw</topic><camera>"
        "<horizontal_fov>1.4</horizontal_fov><image><width>320</width><height>240</height></image>"
        "<clip><near>0.05</near><far>120</far></clip></camera></sensor>"
    )


def write_world(folder: Path) -> None:
    """Write ``loop.sdf`` and the textures below ``folder``."""
    write_textures(folder / "textures")
    (folder / "loop.sdf").write_text(build())


if __name__ == "__main__":
    write_world(Path(sys.argv[1]))
