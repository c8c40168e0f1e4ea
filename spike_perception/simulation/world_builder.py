# SPDX-License-Identifier: Apache-2.0
"""Build SDF worlds out of houses, walls and everyday objects.

Models are named after their class and numbered, as in ``traffic_cone_2``: the name is the ground
truth of what a sensor sees.
"""

from __future__ import annotations

from collections import Counter

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


class WorldBuilder:
    """Collects models; shapes added between two models belong to the first.

    Args:
        name: of the world.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.models: list[tuple[str, Place, bool, list[str]]] = []
        self.numbers: Counter[str] = Counter()
        self.velocities: dict[str, tuple[float, float]] = {}

    def model(
        self, label: str, x: float, y: float, yaw: float = 0.0, *, static: bool = True
    ) -> None:
        """Begin a model of this label; one that is not static bears the label as its name."""
        self.numbers[label] += 1
        name = f"{label}_{self.numbers[label]}" if static else label
        self.models.append((name, (x, y, yaw), static, []))

    def moving(self, forward: float, turning: float) -> None:
        """Have the last model move steadily: forward (m/s) and turning (rad/s), in a circle.

        Gazebo moves it by a system of its own; nothing that it touches moves it or is moved by it.
        """
        self.velocities[self.models[-1][0]] = forward, turning

    def material(self, look: str | Colour) -> str:
        """SDF of a surface that shows a texture, by its name, or has a colour."""
        if isinstance(look, str):
            return (
                "<material><diffuse>1 1 1 1</diffuse><pbr><metal><albedo_map>"
                f"textures/{look}.png</albedo_map></metal></pbr></material>"
            )
        r, g, b = look
        return (
            f"<material><ambient>{r} {g} {b} 1</ambient><diffuse>{r} {g} {b} 1</diffuse></material>"
        )

    def add(self, kind: str, geometry: str, look: str | Colour, pose: tuple[float, ...]) -> None:
        """Add a shape to the last model: SDF's kind and sizes, look, pose in the model."""
        parts = self.models[-1][3]
        place = " ".join(f"{v:g}" for v in (pose + (0.0,) * 6)[:6])
        shape = f"<geometry><{kind}>{geometry}</{kind}></geometry>"
        parts.append(
            f'<visual name="part_{len(parts) + 1}"><pose>{place}</pose>{shape}'
            f"{self.material(look)}</visual>"
        )
        if kind != "plane":
            parts.append(
                f'<collision name="body_{len(parts)}"><pose>{place}</pose>{shape}</collision>'
            )

    def box(self, look: str | Colour, size: tuple[float, float, float], *pose: float) -> None:
        """Add a box of x, y, z edge lengths (m)."""
        self.add("box", f"<size>{size[0]:g} {size[1]:g} {size[2]:g}</size>", look, pose)

    def cylinder(self, look: Colour, radius: float, length: float, *pose: float) -> None:
        """Add an upright cylinder (m)."""
        self.add("cylinder", f"<radius>{radius:g}</radius><length>{length:g}</length>", look, pose)

    def sphere(self, look: str | Colour, radius: float, *pose: float) -> None:
        """Add a sphere (m)."""
        self.add("sphere", f"<radius>{radius:g}</radius>", look, pose)

    def plane(self, look: str | Colour, x: float, y: float) -> None:
        """Add a level plane of x, y edge lengths (m)."""
        self.add("plane", f"<normal>0 0 1</normal><size>{x:g} {y:g}</size>", look, ())

    # Buildings and ground: x, y are centres.

    def slab(
        self, look: str, x: float, y: float, size: tuple[float, float], yaw: float = 0
    ) -> None:
        """Add a piece of ground."""
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
        """Add a box that stands on the ground, or ``z`` above it."""
        self.model(label, x, y)
        self.box(look, size, 0, 0, z + size[2] / 2)

    # Objects: x, y, and the direction in which they face.

    def chair(self, x: float, y: float, yaw: float, look: Colour) -> None:
        """Add a chair."""
        self.model("chair", x, y, yaw)
        self.box(look, (0.45, 0.45, 0.06), 0, 0, 0.45)
        self.box(look, (0.06, 0.45, 0.5), -0.21, 0, 0.72)
        for dx in (-0.19, 0.19):
            for dy in (-0.19, 0.19):
                self.box(DARK, (0.05, 0.05, 0.43), dx, dy, 0.215)

    def table(self, x: float, y: float, yaw: float, look: Colour, label: str = "table") -> None:
        """Add a table."""
        self.model(label, x, y, yaw)
        self.box(look, (0.7, 1.4, 0.06), 0, 0, 0.74)
        for dx in (-0.29, 0.29):
            for dy in (-0.63, 0.63):
                self.box(look, (0.07, 0.07, 0.72), dx, dy, 0.36)

    def bench(self, x: float, y: float, yaw: float) -> None:
        """Add a bench."""
        self.model("bench", x, y, yaw)
        self.box(WOOD, (0.45, 1.7, 0.07), 0, 0, 0.45)
        self.box(WOOD, (0.07, 1.7, 0.4), -0.22, 0, 0.75)
        for dy in (-0.7, 0.7):
            self.box(METAL, (0.4, 0.08, 0.43), 0, dy, 0.215)

    def sofa(self, x: float, y: float, yaw: float, look: Colour) -> None:
        """Add a sofa."""
        self.model("sofa", x, y, yaw)
        self.box(look, (0.75, 1.9, 0.42), 0, 0, 0.21)
        self.box(look, (0.2, 1.9, 0.45), -0.3, 0, 0.62)
        for dy in (-0.87, 0.87):
            self.box(look, (0.75, 0.18, 0.2), 0, dy, 0.5)

    def tree(self, x: float, y: float, height: float, look: str) -> None:
        """Add a tree of this height, its crown of this texture."""
        self.model("tree", x, y)
        self.cylinder(BROWN, 0.14, height * 0.6, 0, 0, height * 0.3)
        radius = height * 0.27
        self.sphere(look, radius, 0, 0, height * 0.68)
        self.sphere(look, radius * 0.75, radius * 0.6, 0.3, height * 0.55)
        self.sphere(look, radius * 0.7, -radius * 0.5, -radius * 0.5, height * 0.58)

    def car(self, x: float, y: float, yaw: float, look: Colour) -> None:
        """Add a car."""
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
        """Add a person."""
        self.model("person", x, y, yaw)
        for dy in (-0.1, 0.1):
            self.cylinder(trousers, 0.09, 0.82, 0, dy, 0.41)
        self.box(shirt, (0.25, 0.42, 0.6), 0, 0, 1.12)
        for dy in (-0.27, 0.27):
            self.cylinder(shirt, 0.06, 0.6, 0, dy, 1.1)
        self.sphere(SKIN, 0.13, 0, 0, 1.6)
        self.sphere(BROWN, 0.125, -0.02, 0, 1.65)

    def street_lamp(self, x: float, y: float) -> None:
        """Add a street lamp."""
        self.model("street_lamp", x, y)
        self.cylinder(DARK, 0.06, 4.0, 0, 0, 2.0)
        self.sphere((1.0, 0.97, 0.85), 0.22, 0, 0, 4.1)

    def traffic_cone(self, x: float, y: float) -> None:
        """Add a traffic cone."""
        self.model("traffic_cone", x, y)
        self.box(ORANGE, (0.36, 0.36, 0.04), 0, 0, 0.05)
        for radius, z, look in ((0.14, 0.16, ORANGE), (0.1, 0.34, WHITE), (0.06, 0.52, ORANGE)):
            self.cylinder(look, radius, 0.2, 0, 0, z)

    def bin(self, x: float, y: float, look: Colour) -> None:
        """Add a bin."""
        self.model("bin", x, y)
        self.cylinder(look, 0.28, 0.85, 0, 0, 0.43)
        self.cylinder(DARK, 0.3, 0.08, 0, 0, 0.88)

    def barrel(self, x: float, y: float, look: Colour) -> None:
        """Add a barrel."""
        self.model("barrel", x, y)
        self.cylinder(look, 0.3, 0.9, 0, 0, 0.45)
        for z in (0.3, 0.6):
            self.cylinder(METAL, 0.315, 0.05, 0, 0, z)

    def crate(self, x: float, y: float, yaw: float, size: float) -> None:
        """Add a wooden box."""
        self.model("box", x, y, yaw)
        self.box("fence", (size, size, size), 0, 0, size / 2)

    def potted_plant(self, x: float, y: float) -> None:
        """Add a potted plant."""
        self.model("potted_plant", x, y)
        self.cylinder((0.65, 0.33, 0.2), 0.2, 0.36, 0, 0, 0.18)
        self.sphere("leaves", 0.36, 0, 0, 0.7)
        self.sphere("leaves", 0.24, 0.1, 0.1, 1.05)

    def traffic_sign(self, x: float, y: float, yaw: float, look: Colour) -> None:
        """Add a round traffic sign."""
        self.model("traffic_sign", x, y, yaw)
        self.cylinder(METAL, 0.04, 2.2, 0, 0, 1.1)
        self.cylinder(look, 0.34, 0.04, 0.05, 0, 2.2, 0, 1.570796)
        self.box(WHITE, (0.05, 0.4, 0.1), 0.06, 0, 2.2)

    def furniture(
        self, label: str, look: str | Colour, x: float, y: float, size: tuple[float, float, float]
    ) -> None:
        """Add a box-shaped piece of furniture."""
        self.model(label, x, y)
        self.box(look, size, 0, 0, size[2] / 2)

    def picture(self, look: str, x: float, y: float, size: tuple[float, float], z: float) -> None:
        """A picture on a wall that runs along x."""
        self.model("picture", x, y)
        self.box(look, (size[0], 0.06, size[1]), 0, 0, z)

    def sdf(self) -> str:
        """The SDF text of the world."""
        lines = [
            '<?xml version="1.0"?>',
            '<sdf version="1.9">',
            f'<world name="{self.name}">',
            '<physics name="steps" type="ignored"><max_step_size>0.004</max_step_size>'
            "<real_time_factor>1</real_time_factor></physics>",
            "<scene><ambient>0.42 0.43 0.45 1</ambient><background>0.55 0.7 0.9 1</background>"
            "<shadows>true</shadows></scene>",
            '<light type="directional" name="sun"><cast_shadows>true</cast_shadows>'
            "<pose>0 0 20 0 0 0</pose><diffuse>0.65 0.64 0.6 1</diffuse>"
            "<specular>0.1 0.1 0.1 1</specular><direction>-0.18 0.5 -0.85</direction></light>",
        ]
        for name, (x, y, yaw), static, parts in self.models:
            velocity = self.velocities.get(name)
            fixed = str(static and not velocity).lower()
            lines.append(f'<model name="{name}"><static>{fixed}</static>')
            lines.append(f"<pose>{x:g} {y:g} 0 0 0 {yaw:g}</pose>")
            if velocity:
                lines.append(
                    '<plugin filename="gz-sim-velocity-control-system" '
                    'name="gz::sim::systems::VelocityControl">'
                    f"<initial_linear>{velocity[0]:g} 0 0</initial_linear>"
                    f"<initial_angular>0 0 {velocity[1]:g}</initial_angular></plugin>"
                )
                parts = [each for each in parts if not each.startswith("<collision")]
            lines += ['<link name="base_link">' if not static else '<link name="link">', *parts]
            lines.append(
                "<gravity>false</gravity></link></model>" if velocity else "</link></model>"
            )
        return "\n".join([*lines, "</world>", "</sdf>", ""])
