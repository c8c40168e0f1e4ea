# SPDX-License-Identifier: Apache-2.0
"""Turn a parsed SDF world into MuJoCo's MJCF, so that Gazebo and MuJoCo show the same scene.

Every SDF model becomes a body of the same name; a top-level model that is not static becomes a
mocap body, which the simulator moves. Boxes with a texture become meshes that show the whole image
once on each face, as Gazebo's boxes do.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spike_perception.simulation.daylight import Daylight
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.sdf import Light, Link, Material, Model, Shape, Visual, World

# From a sensor's body axes (x forward, z up) to REP-103's optical axes (z forward, y down), and
# on to the axes of a MuJoCo camera (z backward, y up).
OPTICAL = Pose.from_euler(0, 0, 0, -math.pi / 2, 0, -math.pi / 2)
_MUJOCO_CAMERA = OPTICAL @ Pose.from_euler(0, 0, 0, math.pi, 0, 0)
# Outward normal, rightward and upward direction, as seen from outside, of a box's faces.
_FACES = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
    ((0, 0, -1), (1, 0, 0), (0, -1, 0)),
)
_CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))


@dataclass(frozen=True)
class Mjcf:
    """A converted world.

    Attributes:
        xml: the MJCF text.
        assets: texture files by the name that ``xml`` gives them.
        labels: class name of every top-level model, by body name.
    """

    xml: str
    assets: dict[str, bytes]
    labels: dict[str, str]


def sdf_to_mjcf(
    world: World, daylight: Daylight | None = None, size: tuple[int, int] = (640, 480)
) -> Mjcf:
    """Convert a world.

    Args:
        world: the parsed SDF.
        daylight: time of day that takes the place of the world's own directional lights, ambient
            light and background; without it the world's own hold.
        size: largest picture (width, height) to be rendered (px).

    Returns:
        MJCF whose bodies, geoms and cameras are named ``model``, ``model::link::visual`` and
        ``model::link::sensor``.
    """
    return _Converter(world, daylight, size).convert()


def _text(values: Sequence[float]) -> str:
    return " ".join(f"{value:.9g}" for value in values)


def _pose(pose: Pose) -> dict[str, str]:
    x, y, z, w = pose.rotation
    return {"pos": _text(pose.translation), "quat": _text((w, x, y, z))}


class _Converter:
    def __init__(self, world: World, daylight: Daylight | None, size: tuple[int, int]) -> None:
        self.world = world
        self.daylight = daylight
        self.root = ET.Element("mujoco", model=world.name)
        self.asset = ET.SubElement(self.root, "asset")
        self.body = ET.SubElement(self.root, "worldbody")
        self.materials: dict[tuple[Material, bool], str] = {}
        self.textures: dict[tuple[Path, bool], str] = {}
        self.meshes: dict[tuple[float, ...], str] = {}
        self.assets: dict[str, bytes] = {}
        cameras = [c for m in world.models for link in m.links for c in link.cameras]
        self._visual(size, [c.near for c in cameras], [c.far for c in cameras])

    def _visual(self, size: tuple[int, int], near: list[float], far: list[float]) -> None:
        ambient = self.daylight.ambient if self.daylight else self.world.ambient
        # With an extent of 1 the clip distances below are metres.
        ET.SubElement(self.root, "statistic", extent="1", center="0 0 0")
        visual = ET.SubElement(self.root, "visual")
        ET.SubElement(
            visual, "global", offwidth=str(max(size[0], 64)), offheight=str(max(size[1], 64))
        )
        ET.SubElement(
            visual,
            "map",
            znear=f"{min(near, default=0.05):g}",
            zfar=f"{max(far, default=100.0):g}",
            shadowclip="14",
            shadowscale="0.9",
        )
        # Software rendering: twice the shadow map or smoothed edges would halve the frame rate.
        ET.SubElement(visual, "quality", shadowsize="1024", offsamples="0")
        ET.SubElement(
            visual, "headlight", ambient=_text(ambient), diffuse="0 0 0", specular="0 0 0"
        )

    def convert(self) -> Mjcf:
        zenith, horizon = self.world.background, self.world.background
        if self.daylight:
            zenith, horizon = self.daylight.zenith, self.daylight.horizon
            self._sun(self.daylight)
        ET.SubElement(
            self.asset,
            "texture",
            name="sky",
            type="skybox",
            builtin="gradient",
            rgb1=_text(zenith),
            rgb2=_text(horizon),
            width="128",
            height="768",
        )
        for light in self.world.lights:
            if not (self.daylight and light.kind == "directional"):
                self._light(light)
        for model in self.world.models:
            self._model(self.body, model, "")
        return Mjcf(
            ET.tostring(self.root, encoding="unicode"),
            self.assets,
            {model.name: model.label for model in self.world.models},
        )

    def _sun(self, daylight: Daylight) -> None:
        ET.SubElement(
            self.body,
            "light",
            name="sun",
            type="directional",
            dir=_text(daylight.direction),
            diffuse=_text(daylight.sun),
            ambient="0 0 0",
            specular="0.1 0.1 0.1",
            castshadow=str(daylight.shadows).lower(),
        )

    def _light(self, light: Light) -> None:
        x, y, z = light.pose.matrix @ light.direction
        attributes = {
            "name": light.name,
            "type": light.kind,
            "pos": _text(light.pose.translation),
            "dir": _text((x, y, z)),
            "diffuse": _text(light.diffuse),
            "specular": _text(light.specular),
            "ambient": "0 0 0",
            "castshadow": str(light.cast_shadows).lower(),
        }
        if light.kind != "directional":
            # Half the light is left at half the range.
            attributes["attenuation"] = _text((1, 0, 4 / light.range**2))
        if light.kind == "spot":
            attributes["cutoff"] = f"{math.degrees(light.spot_angle):g}"
        ET.SubElement(self.body, "light", attributes)

    def _model(self, parent: ET.Element, model: Model, prefix: str) -> None:
        name = prefix + model.name
        moves = parent is self.body and not model.static
        body = ET.SubElement(
            parent,
            "body",
            {"name": name, **_pose(model.pose), **({"mocap": "true"} if moves else {})},
        )
        for link in model.links:
            self._link(body, link, f"{name}::{link.name}")
        for nested in model.models:
            self._model(body, nested, f"{name}::")

    def _link(self, body: ET.Element, link: Link, name: str) -> None:
        for visual in link.visuals:
            self._geom(body, visual, link.pose @ visual.pose, f"{name}::{visual.name}")
        for camera in link.cameras:
            aspect = camera.height / camera.width
            fovy = 2 * math.atan(math.tan(camera.horizontal_fov / 2) * aspect)
            ET.SubElement(
                body,
                "camera",
                {
                    "name": f"{name}::{camera.name}",
                    **_pose(link.pose @ camera.pose @ _MUJOCO_CAMERA),
                    "fovy": f"{math.degrees(fovy):.9g}",
                },
            )

    def _geom(self, body: ET.Element, visual: Visual, pose: Pose, name: str) -> None:
        shape = visual.shape
        geom = {
            "name": name,
            **_pose(pose),
            "contype": "0",
            "conaffinity": "0",
            "material": self._material(
                visual.material, wrapped=shape.kind in ("sphere", "cylinder")
            ),
        }
        if shape.kind == "box" and visual.material.texture:
            geom |= {"type": "mesh", "mesh": self._box_mesh(shape)}
        else:
            geom |= {"type": shape.kind, "size": _text(_half_sizes(shape))}
        ET.SubElement(body, "geom", geom)

    def _material(self, material: Material, *, wrapped: bool) -> str:
        key = material, wrapped
        if key not in self.materials:
            self.materials[key] = f"material_{len(self.materials)}"
            attributes = {
                "name": self.materials[key],
                "rgba": _text(material.diffuse),
                "specular": "0.1",
                "shininess": "0.2",
                "emission": f"{material.emission:g}",
            }
            if material.texture:
                attributes["texture"] = self._texture(material.texture, wrapped)
            ET.SubElement(self.asset, "material", attributes)
        return self.materials[key]

    def _texture(self, path: Path, wrapped: bool) -> str:
        key = path, wrapped
        if key not in self.textures:
            number = len(self.textures)
            self.textures[key] = f"texture_{number}"
            self.assets[f"texture_{number}.png"] = path.read_bytes()
            ET.SubElement(
                self.asset,
                "texture",
                name=self.textures[key],
                type="cube" if wrapped else "2d",
                file=f"texture_{number}.png",
            )
        return self.textures[key]

    def _box_mesh(self, shape: Shape) -> str:
        if shape.size not in self.meshes:
            self.meshes[shape.size] = f"box_{len(self.meshes)}"
            vertices: list[float] = []
            normals: list[float] = []
            coordinates: list[float] = []
            faces: list[int] = []
            for normal, right, up in _FACES:
                first = len(vertices) // 3
                for u, v in _CORNERS:
                    vertices += [
                        size / 2 * (n + u * r + v * t)
                        for size, n, r, t in zip(shape.size, normal, right, up, strict=True)
                    ]
                    normals += normal
                    coordinates += [(u + 1) / 2, (1 - v) / 2]
                faces += [first, first + 1, first + 2, first, first + 2, first + 3]
            ET.SubElement(
                self.asset,
                "mesh",
                name=self.meshes[shape.size],
                vertex=_text(vertices),
                normal=_text(normals),
                texcoord=_text(coordinates),
                face=_text(faces),
            )
        return self.meshes[shape.size]


def _half_sizes(shape: Shape) -> tuple[float, ...]:
    """MuJoCo's sizes: half edges and half lengths, whole radii; a plane also needs a grid step."""
    if shape.kind == "box":
        x, y, z = shape.size
        return x / 2, y / 2, z / 2
    if shape.kind == "cylinder":
        radius, length = shape.size
        return radius, length / 2
    if shape.kind == "plane":
        x, y = shape.size
        return x / 2, y / 2, 1.0
    return shape.size
