# SPDX-License-Identifier: Apache-2.0
"""Read the subset of SDF (1.8-1.10) that the suite's worlds use; refuse the rest by name.

Read are worlds of models (nested too), links with visuals (box, cylinder, sphere, plane), camera
and LiDAR sensors, materials with an albedo map, lights, the scene's ambient and background colours,
and the steady motion that Gazebo's system ``VelocityControl`` gives a model. What does not change
what a sensor sees (collisions, inertia, physics, other plugins) is passed over. Joints are passed
over too: every link stands at its initial pose.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
import xml.parsers.expat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spike_perception.errors import InputError
from spike_perception.simulation.pose import Pose

Colour = tuple[float, float, float]

MAXIMUM_BYTES = 8_000_000
MAXIMUM_BEAMS = 1 << 20  # of a LiDAR
_MOTION = "gz::sim::systems::VelocityControl"
_PASSED_OVER = {
    "world": "plugin physics gravity magnetic_field atmosphere wind audio gui "
    "spherical_coordinates",
    "model": "joint static self_collide allow_auto_disable enable_wind",
    "link": "collision inertial gravity kinematic self_collide enable_wind "
    "velocity_decay must_be_base_link",
    "visual": "plugin cast_shadows laser_retro visibility_flags meta",
    "sensor": "plugin always_on visualize topic enable_metrics update_rate gz_frame_id",
    "lidar": "visibility_mask",
    "range": "resolution",
    "noise": "mean",
    "horizontal": "resolution",
    "vertical": "resolution",
    "camera": "lens noise save visibility_mask optical_frame_id",
    "light": "visualize light_on intensity",
    "scene": "shadows grid origin_visual sky",
    "material": "specular lighting double_sided shader",
    "metal": "roughness metalness roughness_map metalness_map normal_map",
}


@dataclass(frozen=True)
class Material:
    """How a surface looks; colours are linear factors 0-1, the texture path is absolute."""

    diffuse: tuple[float, float, float, float] = (0.7, 0.7, 0.7, 1.0)
    emission: float = 0.0
    texture: Path | None = None


@dataclass(frozen=True)
class Shape:
    """A geometry: kind and its sizes as SDF gives them (m).

    box: x, y, z edge lengths; cylinder: radius, length; sphere: radius; plane: x, y edge lengths.
    """

    kind: str
    size: tuple[float, ...]


@dataclass(frozen=True)
class Visual:
    """One visible shape; pose in its link's frame."""

    name: str
    pose: Pose
    shape: Shape
    material: Material


@dataclass(frozen=True)
class CameraSensor:
    """A camera; pose in its link's frame, looking along +x with +z up (REP-103 body axes)."""

    name: str
    pose: Pose
    horizontal_fov: float
    width: int
    height: int
    near: float
    far: float


@dataclass(frozen=True)
class LidarSensor:
    """A LiDAR; pose in its link's frame, x forward and z up.

    Attributes:
        name: of the sensor.
        pose: in its link's frame.
        steps: beams of a ring.
        azimuth: of a ring's first and last beam, from x towards y (rad).
        rings: number of rings.
        elevation: of the lowest and the highest ring (rad).
        near: shortest range (m).
        far: longest range (m).
        noise: standard deviation of the range (m).
    """

    name: str
    pose: Pose
    steps: int
    azimuth: tuple[float, float]
    rings: int
    elevation: tuple[float, float]
    near: float
    far: float
    noise: float


@dataclass(frozen=True)
class Link:
    """A rigid part; pose in its model's frame."""

    name: str
    pose: Pose
    visuals: tuple[Visual, ...]
    cameras: tuple[CameraSensor, ...]
    lidars: tuple[LidarSensor, ...] = ()


@dataclass(frozen=True)
class Model:
    """An object; pose in the frame of the world or of the model that contains it.

    Attributes:
        name: unique among its siblings.
        pose: where it stands at the start.
        static: whether it stays there in any case.
        links: its parts.
        models: nested in it.
        velocity: at which it moves steadily on the ground, in its own frame: forward, leftward
            (m/s), turning (rad/s).
    """

    name: str
    pose: Pose
    static: bool
    links: tuple[Link, ...]
    models: tuple[Model, ...]
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def pose_at(self, seconds: float) -> Pose:
        """Where it is after so much time."""
        return self.pose if self.static else self.pose @ Pose.driven(*self.velocity, seconds)

    @property
    def label(self) -> str:
        """Class name: the model's name without its number, as in ``traffic_cone_2``."""
        return re.sub(r"_\d+$", "", self.name).replace("_", " ")


@dataclass(frozen=True)
class Light:
    """A light; direction in the light's own frame, range and cone in m and rad."""

    name: str
    kind: str
    pose: Pose
    diffuse: Colour
    specular: Colour
    direction: Colour
    cast_shadows: bool
    range: float
    spot_angle: float


@dataclass(frozen=True)
class World:
    """A parsed world."""

    name: str
    models: tuple[Model, ...]
    lights: tuple[Light, ...]
    ambient: Colour = (0.4, 0.4, 0.4)
    background: Colour = (0.7, 0.7, 0.7)
    source: Path = field(default_factory=Path)

    def model(self, name: str) -> Model:
        """The top-level model of this name.

        Raises:
            InputError: ``unknown_model``.
        """
        for each in self.models:
            if each.name == name:
                return each
        raise InputError(
            "unknown_model",
            f"world {self.name!r} has no model {name!r}; there are "
            f"{', '.join(m.name for m in self.models)}",
        )


def load_world(path: str | Path) -> World:
    """Read the one world of an SDF file.

    Raises:
        InputError: ``world_missing``, ``invalid_sdf`` or ``unsupported_sdf``.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise InputError(
                "invalid_sdf",
                f"{path} has {path.stat().st_size} bytes; allowed are {MAXIMUM_BYTES}",
            )
        text = path.read_bytes()
    except OSError as error:
        raise InputError("world_missing", f"cannot read {path}: {error.strerror}") from error
    return parse_world(text, path)


def parse_world(text: bytes, source: Path) -> World:
    """Parse SDF text; textures are looked up beside ``source``.

    Raises:
        InputError: ``invalid_sdf`` or ``unsupported_sdf``.
    """
    return _Reader(source).world(_parse_xml(text, source))


def _parse_xml(text: bytes, source: Path) -> ET.Element:
    """Parse XML that declares no document type, so that no entity can expand or be fetched."""
    guard = xml.parsers.expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise InputError(
            "invalid_sdf", f"{source} declares a document type; an SDF file needs none: remove it"
        )

    guard.StartDoctypeDeclHandler = refuse
    try:
        guard.Parse(text, True)
        return ET.fromstring(text)  # noqa: S314  (the guard has refused every document type)
    except (xml.parsers.expat.ExpatError, ET.ParseError) as error:
        raise InputError("invalid_sdf", f"{source} is not well-formed XML: {error}") from error


class _Reader:
    """Turns elements into dataclasses; every complaint names the file and the element."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.path: list[str] = []

    def fail(self, reason: str, message: str) -> InputError:
        return InputError(reason, f"{self.source}: {' > '.join(self.path)}: {message}")

    def children(self, element: ET.Element, supported: str) -> Iterator[ET.Element]:
        """Yield the supported children, pass over the harmless, refuse the rest."""
        skipped = _PASSED_OVER.get(element.tag, "").split()
        names = [child.get("name") for child in element if child.get("name")]
        if len(set(names)) < len(names):
            twice = sorted({str(name) for name in names if names.count(name) > 1})
            raise self.fail("invalid_sdf", f"names are used twice: {', '.join(twice)}")
        for child in element:
            if child.tag in skipped or ":" in child.tag or "{" in child.tag:
                continue
            if child.tag not in supported.split():
                raise self.fail(
                    "unsupported_sdf",
                    f"<{child.tag}> is not supported; supported here are {supported}",
                )
            label = child.get("name")
            self.path.append(f"{child.tag} {label!r}" if label else child.tag)
            yield child
            self.path.pop()

    def numbers(self, element: ET.Element, count: int) -> tuple[float, ...]:
        words = (element.text or "").split()
        try:
            values = tuple(float(word) for word in words)
        except ValueError:
            values = ()
        if len(values) != count or not all(map(math.isfinite, values)):
            raise self.fail(
                "invalid_sdf",
                f"<{element.tag}> is {' '.join(words)!r}; allowed are {count} finite numbers",
            )
        return values

    def number(self, parent: ET.Element, tag: str, default: float, *, positive: bool) -> float:
        child = parent.find(tag)
        if child is None:
            return default
        (value,) = self.numbers(child, 1)
        if positive and value <= 0:
            raise self.fail("invalid_sdf", f"<{tag}> is {value:g}; allowed is a positive number")
        return value

    def colour(self, parent: ET.Element, tag: str, default: Colour) -> Colour:
        child = parent.find(tag)
        if child is None:
            return default
        count = len((child.text or "").split())
        r, g, b = self.numbers(child, count if count in (3, 4) else 3)[:3]
        return r, g, b

    def flag(self, parent: ET.Element, tag: str, default: bool) -> bool:
        word = (parent.findtext(tag) or str(default)).strip().lower()
        if word not in ("true", "false", "0", "1"):
            raise self.fail("invalid_sdf", f"<{tag}> is {word!r}; allowed is true or false")
        return word in ("true", "1")

    def pose(self, parent: ET.Element) -> Pose:
        child = parent.find("pose")
        if child is None:
            return Pose()
        if child.get("relative_to") or child.get("rotation_format", "euler_rpy") != "euler_rpy":
            raise self.fail(
                "unsupported_sdf",
                "<pose> with relative_to or another rotation_format is not supported; "
                "give six numbers in the parent's frame",
            )
        if not (child.text or "").strip():
            return Pose()
        x, y, z, roll, pitch, yaw = self.numbers(child, 6)
        if child.get("degrees", "false") in ("true", "1"):
            roll, pitch, yaw = (math.radians(angle) for angle in (roll, pitch, yaw))
        return Pose.from_euler(x, y, z, roll, pitch, yaw)

    def name(self, element: ET.Element) -> str:
        name = element.get("name", "")
        if not name or "::" in name:
            raise self.fail("invalid_sdf", f"<{element.tag}> needs a name without '::'")
        return name

    def world(self, root: ET.Element) -> World:
        self.path = [root.tag]
        if root.tag != "sdf" or root.get("version") not in ("1.8", "1.9", "1.10"):
            raise self.fail(
                "unsupported_sdf",
                f"<{root.tag} version={root.get('version')!r}>; "
                "allowed is <sdf> of version 1.8, 1.9 or 1.10",
            )
        worlds = [self._world(each) for each in self.children(root, "world")]
        if len(worlds) != 1:
            raise self.fail("invalid_sdf", f"there are {len(worlds)} worlds; allowed is one")
        return worlds[0]

    def _world(self, element: ET.Element) -> World:
        models, lights = [], []
        ambient, background = World.ambient, World.background
        for child in self.children(element, "model light scene"):
            if child.tag == "model":
                models.append(self.model(child))
            elif child.tag == "light":
                lights.append(self.light(child))
            else:
                for _ in self.children(child, "ambient background"):
                    pass
                ambient = self.colour(child, "ambient", ambient)
                background = self.colour(child, "background", background)
        name = self.name(element)
        return World(name, tuple(models), tuple(lights), ambient, background, self.source)

    def model(self, element: ET.Element) -> Model:
        if element.get("placement_frame"):
            raise self.fail("unsupported_sdf", "placement_frame is not supported")
        links, models = [], []
        velocity = Model.velocity
        for child in self.children(element, "pose link model plugin"):
            if child.tag == "link":
                links.append(self.link(child))
            elif child.tag == "model":
                models.append(self.model(child))
            elif child.tag == "plugin" and child.get("name") == _MOTION:
                velocity = self.velocity(child)
        return Model(
            self.name(element),
            self.pose(element),
            self.flag(element, "static", False),
            tuple(links),
            tuple(models),
            velocity,
        )

    def velocity(self, element: ET.Element) -> tuple[float, float, float]:
        """Forward, leftward and turning velocity that ``VelocityControl`` starts with."""
        linear, angular = (
            (0.0, 0.0, 0.0) if child is None else self.numbers(child, 3)
            for child in (element.find("initial_linear"), element.find("initial_angular"))
        )
        if linear[2] or angular[0] or angular[1]:
            raise self.fail("unsupported_sdf", "models move on the ground and turn about z only")
        return linear[0], linear[1], angular[2]

    def link(self, element: ET.Element) -> Link:
        visuals, cameras, lidars = [], [], []
        for child in self.children(element, "pose visual sensor"):
            if child.tag == "visual":
                visuals.append(self.visual(child))
            elif child.tag == "sensor" and child.get("type") == "camera":
                cameras.append(self.camera(child))
            elif child.tag == "sensor" and child.get("type") in ("gpu_lidar", "lidar"):
                lidars.append(self.lidar(child))
            elif child.tag == "sensor":
                raise self.fail(
                    "unsupported_sdf",
                    f"sensor type {child.get('type')!r} is not supported; supported are camera, "
                    "gpu_lidar and lidar",
                )
        name, pose = self.name(element), self.pose(element)
        return Link(name, pose, tuple(visuals), tuple(cameras), tuple(lidars))

    def visual(self, element: ET.Element) -> Visual:
        shape, material = None, Material()
        for child in self.children(element, "pose geometry material"):
            if child.tag == "geometry":
                for each in self.children(child, "box cylinder sphere plane"):
                    shape = self.shape(each)
            elif child.tag == "material":
                material = self.material(child)
        if shape is None:
            raise self.fail("invalid_sdf", "a visual needs a geometry")
        return Visual(self.name(element), self.pose(element), shape, material)

    def shape(self, element: ET.Element) -> Shape:
        parts = {
            "box": (("size", 3),),
            "cylinder": (("radius", 1), ("length", 1)),
            "sphere": (("radius", 1),),
            "plane": (("size", 2),),
        }[element.tag]
        size: tuple[float, ...] = ()
        for tag, count in parts:
            child = element.find(tag)
            if child is None:
                raise self.fail("invalid_sdf", f"<{tag}> is missing")
            size += self.numbers(child, count)
        if min(size) <= 0:
            raise self.fail("invalid_sdf", f"sizes are {size}; allowed are positive numbers")
        normal = element.find("normal")
        if normal is not None and self.numbers(normal, 3) != (0.0, 0.0, 1.0):
            raise self.fail("unsupported_sdf", "a plane's normal is 0 0 1; turn its pose instead")
        return Shape(element.tag, size)

    def material(self, element: ET.Element) -> Material:
        texture = None
        for child in self.children(element, "ambient diffuse emissive pbr"):
            for workflow in self.children(child, "metal") if child.tag == "pbr" else ():
                for albedo in self.children(workflow, "albedo_map"):
                    texture = self.texture(albedo)
        emission = max(self.colour(element, "emissive", (0.0, 0.0, 0.0)))
        diffuse = element.find("diffuse")
        r, g, b, alpha = (
            ((1.0, 1.0, 1.0, 1.0) if texture else Material.diffuse)
            if diffuse is None
            else self.numbers(diffuse, 4)
        )
        return Material((r, g, b, alpha), emission, texture)

    def texture(self, element: ET.Element) -> Path:
        """A texture file, which must lie below the world's own folder."""
        folder = self.source.resolve().parent
        path = (folder / (element.text or "").strip()).resolve()
        if not path.is_relative_to(folder) or path.suffix != ".png" or not path.is_file():
            raise self.fail(
                "invalid_sdf",
                f"texture {element.text!r}; allowed is a PNG file below the world's folder "
                f"{folder}",
            )
        return path

    def camera(self, element: ET.Element) -> CameraSensor:
        fov, width, height, near, far = 1.047, 320, 240, 0.1, 100.0
        for child in self.children(element, "pose camera"):
            if child.tag == "camera":
                fov = self.number(child, "horizontal_fov", fov, positive=True)
                for part in self.children(child, "horizontal_fov image clip"):
                    if part.tag == "image":
                        width = int(self.number(part, "width", width, positive=True))
                        height = int(self.number(part, "height", height, positive=True))
                    elif part.tag == "clip":
                        near = self.number(part, "near", near, positive=True)
                        far = self.number(part, "far", far, positive=True)
        if not fov < math.pi or near >= far:
            raise self.fail("invalid_sdf", f"field of view {fov} rad, clip {near} to {far} m")
        return CameraSensor(self.name(element), self.pose(element), fov, width, height, near, far)

    def lidar(self, element: ET.Element) -> LidarSensor:
        near, far, noise = 0.1, 50.0, 0.0
        fans = {"horizontal": (640, -math.pi, math.pi), "vertical": (1, 0.0, 0.0)}
        for lidar in self.children(element, "pose lidar ray"):
            for child in () if lidar.tag == "pose" else self.children(lidar, "scan range noise"):
                if child.tag == "scan":
                    fans |= {fan.tag: self.fan(fan) for fan in self.children(child, " ".join(fans))}
                elif child.tag == "range":
                    near = self.number(child, "min", near, positive=True)
                    far = self.number(child, "max", far, positive=True)
                else:
                    noise = self.noise(child)
        steps, first, last = fans["horizontal"]
        rings, low, high = fans["vertical"]
        if steps * rings > MAXIMUM_BEAMS or near >= far or noise < 0:
            raise self.fail(
                "invalid_sdf",
                f"{rings} rings of {steps} beams, range {near:g} to {far:g} m, noise {noise:g} m; "
                f"allowed are at most {MAXIMUM_BEAMS} beams in all, a range that grows, and noise "
                "from 0",
            )
        return LidarSensor(
            self.name(element),
            self.pose(element),
            steps,
            (first, last),
            rings,
            (low, high),
            near,
            far,
            noise,
        )

    def fan(self, element: ET.Element) -> tuple[int, float, float]:
        """Number of beams, angle of the first and of the last."""
        for _ in self.children(element, "samples min_angle max_angle"):
            pass
        count = self.number(element, "samples", 1, positive=True)
        low = self.number(element, "min_angle", 0.0, positive=False)
        high = self.number(element, "max_angle", 0.0, positive=False)
        if not 1 <= count <= MAXIMUM_BEAMS or low > high or max(-low, high) > math.pi + 1e-3:
            raise self.fail(
                "invalid_sdf",
                f"{count:g} beams from {low:g} to {high:g} rad; allowed are 1 to {MAXIMUM_BEAMS} "
                "beams at angles that grow, from -pi to pi",
            )
        return int(count), low, high

    def noise(self, element: ET.Element) -> float:
        """Standard deviation of Gaussian noise."""
        for child in self.children(element, "type stddev"):
            if child.tag == "type" and (child.text or "").strip() not in ("gaussian", "none"):
                raise self.fail("unsupported_sdf", "noise is gaussian or none")
        return self.number(element, "stddev", 0.0, positive=False)

    def light(self, element: ET.Element) -> Light:
        kind = element.get("type", "")
        if kind not in ("directional", "point", "spot"):
            raise self.fail("unsupported_sdf", f"light type {kind!r} is not supported")
        reach, angle = 10.0, math.pi / 4
        for child in self.children(
            element, "pose diffuse specular direction cast_shadows attenuation spot"
        ):
            if child.tag == "attenuation":
                reach = self.number(child, "range", reach, positive=True)
            elif child.tag == "spot":
                angle = self.number(child, "outer_angle", angle, positive=True)
        return Light(
            self.name(element),
            kind,
            self.pose(element),
            self.colour(element, "diffuse", (1.0, 1.0, 1.0)),
            self.colour(element, "specular", (0.1, 0.1, 0.1)),
            self.colour(element, "direction", (0.0, 0.0, -1.0)),
            self.flag(element, "cast_shadows", False),
            reach,
            angle,
        )
