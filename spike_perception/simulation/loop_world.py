# SPDX-License-Identifier: Apache-2.0
"""Build the world ``loop``: a street, a yard, two rooms and a car park around a block of houses.

``python -m spike_perception.simulation.loop_world FOLDER`` writes ``loop.sdf`` and its textures.
The route runs round the block counter-clockwise, on the rectangle x = ±12, y = ±7 (m).
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from spike_perception.simulation.textures import write_textures
from spike_perception.simulation.world_builder import (
    BLUE,
    BROWN,
    DARK,
    EAST,
    GREEN,
    NORTH,
    ORANGE,
    RED,
    SOUTH,
    WEST,
    WHITE,
    WOOD,
    YELLOW,
    WorldBuilder,
)

LIDAR_STEPS = 512  # beams of a ring


def build() -> str:
    """The SDF text of the world."""
    b = WorldBuilder("loop")
    _ground(b)
    _block(b)
    _street(b)
    _yard(b)
    _rooms(b)
    _car_park(b)
    _robot(b)
    return b.sdf()


def _ground(b: WorldBuilder) -> None:
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


def _block(b: WorldBuilder) -> None:
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


def _street(b: WorldBuilder) -> None:
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


def _yard(b: WorldBuilder) -> None:
    for y, look in ((-5.6, "fence"), (-1.9, "hedge"), (1.8, "fence"), (5.5, "brick_wall")):
        label = "fence" if look == "fence" else "hedge" if look == "hedge" else "wall"
        b.wall(label, look, 16.4, y, (0.2, 3.6, 1.6))
    b.tree(14.9, -4.6, 4.2, "leaves")
    b.tree(14.9, 1.4, 5.2, "leaves")
    b.tree(15.2, 4.9, 3.8, "autumn_leaves")
    b.tree(19.5, -8.0, 7.0, "leaves")
    b.tree(20.0, 8.5, 6.0, "autumn_leaves")
    b.tree(18.6, 1.0, 7.5, "leaves")
    # A car drives round and round behind the end of the street.
    b.car(20.5, -9.5, WEST, YELLOW)
    b.moving(2.5, 2.5 / 3.5)
    b.traffic_sign(13.1, -3.4, SOUTH, RED)
    b.box(YELLOW, (0.04, 0.55, 0.35), 0.05, 0, 1.66)  # a plate below the disc
    b.bench(13.15, -0.9, WEST)
    b.table(13.35, 3.0, WEST, WOOD)
    b.box(WHITE, (0.03, 1.3, 0.4), 0.36, 0, 0.55)  # a cloth
    b.person(14.6, -2.8, WEST, GREEN, BROWN)
    b.barrel(9.8, -3.4, BLUE)
    b.barrel(10.9, 1.4, RED)
    b.barrel(10.6, 2.1, BLUE)
    b.crate(10.7, 3.3, 0.2, 0.9)
    b.crate(14.7, -6.3, 0.6, 0.8)
    b.potted_plant(10.9, -0.4)
    b.side_house(28, -6, (6, 10, 8.0), "house_red", "brick_wall")
    b.side_house(29, 7, (6, 9, 12.0), "office", (0.5, 0.52, 0.55))
    b.wall("hedge", "hedge", 13.8, 11.2, (4.6, 0.7, 1.9))
    b.tree(11.2, 12.4, 5.4, "leaves")
    b.house(13.2, 18.0, (8, 5, 7.0), "house_white", "plaster")
    b.street_lamp(14.7, 7.4)
    b.furniture("fire_hydrant", RED, 14.4, 9.3, (0.3, 0.3, 0.8))


def _rooms(b: WorldBuilder) -> None:
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
    b.bin(-6.6, 8.0, BLUE)


def _car_park(b: WorldBuilder) -> None:
    b.wall("container", "container_orange", -16.6, 6.6, (2.2, 5.6, 2.5))
    b.wall("container", "container_blue", -16.8, 0.9, (2.2, 5.2, 2.5))
    b.car(-16.6, -3.8, NORTH, RED)
    b.car(-16.5, -8.4, NORTH, GREEN)
    b.wall("wall", "brick_wall", -19.0, -5.5, (0.25, 9, 2.2))
    b.wall("gate", "gate", -13.2, 11.6, (4.0, 0.15, 2.1))
    b.wall("wall", "concrete", -9.4, 10.8, (3.0, 0.3, 2.4))
    for y in (4.4, 3.5, 2.6):
        b.traffic_cone(-12.95, y)
    b.traffic_cone(-14.4, -1.7)
    b.traffic_cone(-9.9, -1.2)
    b.barrel(-9.8, 3.6, YELLOW)
    b.barrel(-14.9, -6.0, RED)
    b.crate(-9.8, -0.4, 0.1, 0.8)
    b.crate(-14.7, 9.3, 0.5, 1.0)
    b.bin(-9.7, -3.6, GREEN)
    b.street_lamp(-14.4, 1.4)
    b.street_lamp(-11.0, -2.4)
    b.person(-14.6, -4.4, EAST, ORANGE, DARK)
    # A person walks in a circle beside the way.
    b.person(-13.0, 0.0, NORTH, BLUE, BROWN)
    b.moving(0.8, 0.8 / 0.6)
    b.tree(-21.5, 2.0, 6.5, "leaves")
    b.tree(-20.5, -13.0, 6.0, "autumn_leaves")
    b.tree(-14.6, 14.2, 5.0, "leaves")
    b.side_house(-27, -4, (6, 12, 9.0), "house_blue", (0.44, 0.55, 0.66))
    b.bench(-9.6, 1.2, WEST)
    b.traffic_sign(-14.6, -9.9, EAST, BLUE)


def _robot(b: WorldBuilder) -> None:
    b.model("robot", -9, -7, static=False)
    b.box((0.25, 0.28, 0.32), (0.5, 0.4, 0.2), 0, 0, 0.22)
    b.cylinder(DARK, 0.03, 0.5, -0.05, 0, 0.55)
    b.cylinder(DARK, 0.05, 0.08, -0.05, 0, 0.95)
    for dx in (-0.16, 0.16):
        for dy in (-0.23, 0.23):
            b.cylinder(DARK, 0.12, 0.06, dx, dy, 0.12, 1.570796)
    for name, topic, height, rate, width in (
        ("camera", "/camera/image_raw", 0.8, 10, 320),
        # In Gazebo, the node event_simulator makes events of its images.
        ("event_camera", "/event_camera/image_raw", 0.74, 60, 240),
    ):
        b.models[-1][3].append(
            f'<sensor name="{name}" type="camera"><pose>0.2 0 {height:g} 0 0 0</pose>'
            f"<update_rate>{rate}</update_rate><topic>{topic}</topic><camera>"
            f"<optical_frame_id>{name}_optical_frame</optical_frame_id>"
            f"<horizontal_fov>1.4</horizontal_fov><image><width>{width}</width>"
            f"<height>{width * 3 // 4}</height></image>"
            "<clip><near>0.05</near><far>120</far></clip></camera></sensor>"
        )
    # Gazebo publishes the points of /lidar on /lidar/points. Beams of a turn do not repeat its
    # first; the lowest ring meets the ground 2.4 m away.
    step = 2 * math.pi / LIDAR_STEPS
    b.models[-1][3].append(
        '<sensor name="lidar" type="gpu_lidar"><pose>-0.05 0 0.95 0 0 0</pose>'
        "<update_rate>10</update_rate><topic>/lidar</topic><gz_frame_id>lidar</gz_frame_id><lidar>"
        f"<scan><horizontal><samples>{LIDAR_STEPS}</samples><resolution>1</resolution>"
        f"<min_angle>{-math.pi:.6f}</min_angle><max_angle>{math.pi - step:.6f}</max_angle>"
        "</horizontal><vertical><samples>32</samples><resolution>1</resolution>"
        "<min_angle>-0.38</min_angle><max_angle>0.22</max_angle></vertical></scan>"
        "<range><min>0.3</min><max>50</max></range>"
        "<noise><type>gaussian</type><mean>0</mean><stddev>0.01</stddev></noise>"
        "</lidar></sensor>"
    )


def write_world(folder: Path) -> None:
    """Write ``loop.sdf`` and the textures below ``folder``."""
    write_textures(folder / "textures")
    (folder / "loop.sdf").write_text(build())


if __name__ == "__main__":
    write_world(Path(sys.argv[1]))
