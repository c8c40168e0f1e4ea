# SPDX-License-Identifier: Apache-2.0
"""A LiDAR on the simulated robot, by casting MuJoCo's rays, and the truth of what it met."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.message_writer import MessageWriter
from spike_perception.config import setting
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import LidarSensor

GROUND = "ground"  # label of models that have no use for a box

_Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class LidarConfig:
    """The robot's LiDAR; where 0 stands for the SDF's value, the world decides."""

    name: str = setting("lidar", "SDF name of the LiDAR sensor on the robot")
    topic: str = setting("/lidar/points", "topic of the clouds")
    frame_id: str = setting("lidar", "frame of the points")
    rate: float = setting(10.0, "scans a second (Hz)", minimum=0.1, maximum=100.0)
    rings: int = setting(0, "number of rings, 0 for the SDF's", minimum=0, maximum=256)
    steps: int = setting(0, "beams of a ring, 0 for the SDF's", minimum=0, maximum=4096)
    maximum_range: float = setting(
        0.0, "longest range (m), 0 for the SDF's", minimum=0.0, maximum=1000.0
    )
    drop_out: float = setting(0.02, "share of returns that are lost", minimum=0.0, maximum=1.0)


@dataclass(frozen=True)
class ScannedObject:
    """A model that a scan met.

    Attributes:
        name: of the model.
        label: its class name.
        points: number of points on it.
        centre: of the box that holds the whole of it, x, y, z in the sensor's frame (m).
        size: of that box, along the model's own axes (m).
        yaw: of the model's x axis in the sensor's frame (rad).
        seen_centre: of the box that holds its points, of the same heading (m).
        seen_size: of that box (m).
    """

    name: str
    label: str
    points: int
    centre: tuple[float, ...]
    size: tuple[float, ...]
    yaw: float
    seen_centre: tuple[float, ...]
    seen_size: tuple[float, ...]


@dataclass(frozen=True)
class Scan:
    """One turn: float32 ``[N, 3]`` x, y, z in the sensor's frame (m), and what was met."""

    points: NDArray[np.float32]
    objects: tuple[ScannedObject, ...]


class Lidar:
    """A LiDAR that casts all its beams at one moment, through everything but the robot.

    With each cloud it writes ``/ground_truth/lidar_objects``, a ``std_msgs/String`` of JSON:
    ``{"stamp_ns": int, "objects": [...]}`` with the fields of :class:`ScannedObject`, the most
    points first. Models labelled ``ground`` are left out.

    Args:
        scene: any scene of the world, to find the LiDAR in.
        config: what differs from the SDF.
    """

    truth_topic = "/ground_truth/lidar_objects"

    def __init__(self, scene: Scene, config: LidarConfig | None = None) -> None:
        config = config or LidarConfig()
        self.mount, sensor = scene.lidar(config.name)
        self.sensor = replace(
            sensor,
            rings=config.rings or sensor.rings,
            steps=config.steps or sensor.steps,
            far=config.maximum_range or sensor.far,
        )
        self.rate, self.topic, self.frame_id = config.rate, config.topic, config.frame_id
        self._drop_out = config.drop_out
        self._beams = beams(self.sensor)
        self._scene: Scene | None = None
        self._boxes: dict[int, tuple[_Doubles, _Doubles]] = {}

    def observe(self, scene: Scene, rng: np.random.Generator) -> Scan:
        """Cast every beam; noise lengthens or shortens it."""
        place = scene.robot_pose @ self.mount
        count = len(self._beams)
        geoms, ranges = scene.cast(place, self._beams, self.sensor.far)
        met = geoms >= 0
        ranges += self.sensor.noise * rng.standard_normal(count)
        met &= (ranges >= self.sensor.near) & (ranges <= self.sensor.far)
        met &= rng.random(count) >= self._drop_out
        points = (self._beams[met] * ranges[met, None]).astype(np.float32)
        return Scan(points, self._objects(scene, place, points, geoms[met]))

    def write(self, bag: MessageWriter, stamp_ns: int, observation: Scan) -> None:
        """Write the cloud and the truth."""
        bag.point_cloud(self.topic, stamp_ns, self.frame_id, observation.points)
        objects = [asdict(each) for each in observation.objects]
        text = json.dumps({"stamp_ns": stamp_ns, "objects": objects})
        bag.text(self.truth_topic, stamp_ns, text)

    def close(self) -> None:
        """Nothing is held."""

    def _objects(
        self, scene: Scene, place: Pose, points: NDArray[np.float32], geoms: NDArray[np.int32]
    ) -> tuple[ScannedObject, ...]:
        if scene is not self._scene:
            self._boxes, self._scene = {}, scene
        bodies = scene.model.body_rootid[scene.model.geom_bodyid[geoms]]
        found = []
        for body in np.unique(bodies).tolist():
            name = scene.model.body(body).name
            if scene.labels[name] == GROUND:
                continue
            if body not in self._boxes:
                self._boxes[body] = body_box(scene, body)
            on_it = points[bodies == body]
            found.append(self._object(scene, place.inverse(), body, on_it))
        return tuple(sorted(found, key=lambda each: (-each.points, each.name)))

    def _object(
        self, scene: Scene, world: Pose, body: int, points: NDArray[np.float32]
    ) -> ScannedObject:
        w, x, y, z = scene.data.xquat[body]
        x0, y0, z0 = scene.data.xpos[body]
        pose = world @ Pose((x0, y0, z0), (x, y, z, w))
        yaw = pose.yaw
        # Upright in the sensor's frame, as detectors' boxes are.
        turn = Pose.planar(0.0, 0.0, yaw).matrix
        low, high = self._boxes[body]
        own = points @ turn
        seen_low, seen_high = own.min(axis=0), own.max(axis=0)
        name = scene.model.body(body).name
        return ScannedObject(
            name,
            scene.labels[name],
            len(points),
            _floats(pose.matrix @ (low + high) / 2 + pose.translation),
            _floats(high - low),
            round(yaw, 4),
            _floats(turn @ (seen_low + seen_high) / 2),
            _floats(seen_high - seen_low),
        )


def beams(sensor: LidarSensor) -> NDArray[np.float64]:
    """Unit vectors of the beams in the sensor's frame, ``[steps * rings, 3]``, step by step."""
    elevation = np.linspace(*sensor.elevation, sensor.rings)[None]
    azimuth = np.linspace(*sensor.azimuth, sensor.steps)[:, None]
    level = np.cos(elevation)
    parts = np.broadcast_arrays(level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation))
    return np.stack(parts, axis=-1).reshape(-1, 3)


def body_box(scene: Scene, body: int) -> tuple[_Doubles, _Doubles]:
    """Lowest and highest x, y, z of a top-level model in its own frame (m)."""
    model, data = scene.model, scene.data
    (geoms,) = np.nonzero(model.body_rootid[model.geom_bodyid] == body)
    axes = data.xmat[body].reshape(3, 3)
    corners = []
    for geom in geoms.tolist():
        middle, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        turn = axes.T @ data.geom_xmat[geom].reshape(3, 3)
        centre = axes.T @ (data.geom_xpos[geom] - data.xpos[body]) + turn @ middle
        reach = np.abs(turn) @ half
        corners += [centre - reach, centre + reach]
    return np.min(corners, axis=0), np.max(corners, axis=0)


def _floats(values: NDArray[Any]) -> tuple[float, ...]:
    """To a tenth of a millimetre, as they are written."""
    return tuple(round(float(v), 4) for v in values)
