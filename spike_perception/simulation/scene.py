# SPDX-License-Identifier: Apache-2.0
"""A world compiled by MuJoCo, with a robot to be placed in it; what every sensor senses."""

from __future__ import annotations

import ctypes
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.simulation.daylight import Daylight
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.sdf import CameraSensor, LidarSensor, World
from spike_perception.simulation.sdf_to_mjcf import sdf_to_mjcf

# MuJoCo reads this when it is first imported.
GL_VARIABLE = "MUJOCO_GL"
GL_ADVICE = (
    "MuJoCo cannot start OpenGL without a screen; on Debian and Ubuntu it needs "
    "apt-get install libegl1 libopengl0 libgl1-mesa-dri (or, slower, libosmesa6)"
)
COARSE_FACES = 12, 8, 1  # slices and stacks of round shapes, squares along the edge of a box
RAYS_AT_ONCE = 512
_FIRST_GROUP = np.array([1, 0, 0, 0, 0, 0], np.uint8)
SUN_DISTANCE = 14.0  # of the shadow map's viewpoint from the robot (m)


class Scene:
    """One world at one time of day.

    Args:
        world: the parsed SDF.
        daylight: time of day, or None for the world's own lights.
        robot: name of the model that :meth:`place_robot` moves; it must not be static.
        size: largest picture to be rendered, (width, height) in pixels.

    Attributes:
        model: the ``mujoco.MjModel``.
        data: the ``mujoco.MjData``, up to date with the last placing.
        labels: class name by name of top-level model (MuJoCo body).
        robot_pose: of the robot's base in the world.

    Raises:
        InputError: ``unknown_model``, ``static_robot``, ``invalid_sdf`` or ``opengl_missing``.
    """

    def __init__(
        self,
        world: World,
        daylight: Daylight | None = None,
        robot: str = "robot",
        size: tuple[int, int] = (640, 480),
    ) -> None:
        mujoco = _import_mujoco()
        if world.model(robot).static:
            raise InputError("static_robot", f"model {robot!r} is static; the robot must move")
        mjcf = sdf_to_mjcf(world, daylight, size)
        self.world = world
        self.daylight = daylight
        self.labels = mjcf.labels
        try:
            self.model: Any = mujoco.MjModel.from_xml_string(mjcf.xml, mjcf.assets)
        except ValueError as error:
            raise InputError(
                "invalid_sdf", f"{world.source}: MuJoCo cannot build this world: {error}"
            ) from error
        self.data: Any = mujoco.MjData(self.model)
        self._mocap = int(self.model.body(robot).mocapid[0])
        self._movers = [
            (int(self.model.body(each.name).mocapid[0]), each)
            for each in world.models
            if any(each.velocity) and not each.static and each.name != robot
        ]
        self._mujoco = mujoco
        self.robot = robot
        self.place_robot(world.model(robot).pose)

    def place_robot(self, pose: Pose, seconds: float = 0.0) -> None:
        """Put the robot's base at ``pose`` in the world, and what moves where it is by then.

        Args:
            pose: of the base.
            seconds: simulated time since the start (s).
        """
        self.robot_pose = pose
        self._place(self._mocap, pose)
        for mocap, model in self._movers:
            self._place(mocap, model.pose_at(seconds))
        if self.daylight:
            # The shadow map covers the surroundings of the robot, so it moves along with it.
            sun = self.model.light("sun").id
            back = SUN_DISTANCE * np.asarray(self.daylight.direction)
            self.model.light_pos[sun] = pose.translation - back
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_camlight(self.model, self.data)

    def _place(self, mocap: int, pose: Pose) -> None:
        x, y, z, w = pose.rotation
        self.data.mocap_pos[mocap] = pose.translation
        self.data.mocap_quat[mocap] = (w, x, y, z)

    def camera(self, name: str) -> tuple[str, Pose, CameraSensor]:
        """A camera of the robot: MuJoCo's name of it, its pose on the robot's base, its SDF.

        Raises:
            InputError: ``unknown_camera``.
        """
        found = {
            camera.name: (f"{self.robot}::{link.name}::{camera.name}", link.pose, camera)
            for link in self.world.model(self.robot).links
            for camera in link.cameras
        }
        if name not in found:
            raise InputError(
                "unknown_camera",
                f"{self.robot!r} has no camera {name!r}; there are {', '.join(found) or 'none'}",
            )
        full_name, link_pose, camera = found[name]
        return full_name, link_pose @ camera.pose, camera

    def lidar(self, name: str) -> tuple[Pose, LidarSensor]:
        """A LiDAR of the robot: its pose on the robot's base, its SDF.

        Raises:
            InputError: ``unknown_lidar``.
        """
        found = {
            lidar.name: (link.pose @ lidar.pose, lidar)
            for link in self.world.model(self.robot).links
            for lidar in link.lidars
        }
        if name not in found:
            raise InputError(
                "unknown_lidar",
                f"{self.robot!r} has no LiDAR {name!r}; there are {', '.join(found) or 'none'}",
            )
        return found[name]

    def cast(
        self, pose: Pose, directions: NDArray[np.float64], far: float
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Cast rays through everything but the robot.

        Args:
            pose: of the frame that the rays start from.
            directions: unit vectors in that frame, ``[N, 3]``; fastest if neighbours in the array
                point the same way.
            far: how far they reach (m).

        Returns:
            The MuJoCo geom that each ray meets first, -1 for none, ``[N]``, and how far away (m),
            ``[N]``.
        """
        geoms = np.empty(len(directions), np.int32)
        ranges = np.empty(len(directions))
        origin = np.array(pose.translation)
        turned = directions @ pose.matrix.T
        groups = self.model.geom_group.copy()
        robot = self.model.body(self.robot).id
        try:
            for first in range(0, len(directions), RAYS_AT_ONCE):
                part = slice(first, first + RAYS_AT_ONCE)
                rays = turned[part]
                # MuJoCo tries every geom with every ray: leave out what is outside the rays' cone.
                axis = rays.mean(axis=0)
                axis /= max(float(np.linalg.norm(axis)), 1e-9)
                met = self._inside_cone(origin, axis, float((rays @ axis).min()))
                self.model.geom_group[:] = ~met
                self._mujoco.mj_multiRay(
                    self.model,
                    self.data,
                    origin,
                    rays.ravel(),
                    _FIRST_GROUP,
                    True,  # bodies that stand still, too
                    robot,
                    geoms[part],
                    ranges[part],
                    None,  # no normals
                    len(rays),
                    far,
                )
        finally:
            self.model.geom_group[:] = groups
        return geoms, ranges

    def geom_label(self, geom: int) -> str:
        """The label of the top-level model that a MuJoCo geom is a part of."""
        root = self.model.body_rootid[self.model.geom_bodyid[geom]]
        return self.labels[self.model.body(root).name]

    def renderer(self, width: int, height: int, *, coarse: bool = False) -> Any:
        """A ``mujoco.Renderer`` of this scene.

        Args:
            width: picture width (px).
            height: picture height (px).
            coarse: whether round shapes are of few faces.

        Raises:
            InputError: ``opengl_missing`` if OpenGL cannot start; names the packages it needs.
        """
        quality = self.model.vis.quality
        faces = quality.numslices, quality.numstacks, quality.numquads
        if coarse:
            quality.numslices, quality.numstacks, quality.numquads = COARSE_FACES
        try:
            return self._mujoco.Renderer(self.model, height, width)
        except Exception as error:  # the GL bindings raise errors of many unrelated types
            raise InputError("opengl_missing", f"{GL_ADVICE}: {error}") from error
        finally:
            quality.numslices, quality.numstacks, quality.numquads = faces

    def render_without_shadows(self, renderer: Any, camera: str) -> NDArray[np.uint8]:
        """A picture by a renderer of this scene, ``[height, width, 3]`` RGB."""
        renderer.update_scene(self.data, camera=camera)
        renderer.scene.flags[self._mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        return np.asarray(renderer.render(), np.uint8)

    def _inside_cone(
        self, tip: NDArray[np.float64], axis: NDArray[np.float64], cosine: float
    ) -> NDArray[np.bool_]:
        """Which geoms may reach into a cone, of this cosine between its axis and its side."""
        offsets = self.data.geom_xpos - tip
        distances = np.maximum(np.linalg.norm(offsets, axis=1), 1e-9)
        # A plane has no bounding sphere.
        bounds = np.where(self.model.geom_rbound > 0, self.model.geom_rbound, np.inf)
        near = distances <= bounds
        angles = np.arcsin(np.where(near, 1.0, bounds / distances))
        aside = np.arccos(np.clip(offsets @ axis / distances, -1, 1))
        return np.asarray(near | (aside <= math.acos(max(min(cosine, 1), -1)) + angles + 1e-6))


def _import_mujoco() -> Any:
    """Import MuJoCo with a way of rendering that needs no screen: EGL, else OSMesa."""
    if GL_VARIABLE not in os.environ:
        osmesa = not _loads("libEGL.so.1", "libOpenGL.so.0") and _loads("libOSMesa.so.8")
        os.environ[GL_VARIABLE] = "osmesa" if osmesa else "egl"
    try:
        import mujoco
    except Exception as error:  # without its libraries, PyOpenGL fails in unrelated ways
        raise InputError("opengl_missing", f"{GL_ADVICE}: {error}") from error
    return mujoco


def _loads(*libraries: str) -> bool:
    try:
        for library in libraries:
            ctypes.CDLL(library)
    except OSError:
        return False
    return True
