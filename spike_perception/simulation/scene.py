# SPDX-License-Identifier: Apache-2.0
"""A world compiled by MuJoCo, with a robot to be placed in it; what every sensor senses."""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

from spike_perception.errors import InputError
from spike_perception.simulation.daylight import Daylight
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.sdf import CameraSensor, World
from spike_perception.simulation.sdf_to_mjcf import sdf_to_mjcf

# MuJoCo reads this when it is first imported.
GL_VARIABLE = "MUJOCO_GL"
GL_ADVICE = (
    "MuJoCo cannot start OpenGL without a screen; on Debian and Ubuntu it needs "
    "apt-get install libegl1 libopengl0 libgl1-mesa-dri (or, slower, libosmesa6)"
)
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
        self._mujoco = mujoco
        self.robot = robot
        self.place_robot(world.model(robot).pose)

    def place_robot(self, pose: Pose) -> None:
        """Put the robot's base at ``pose`` in the world."""
        x, y, z, w = pose.rotation
        self.data.mocap_pos[self._mocap] = pose.translation
        self.data.mocap_quat[self._mocap] = (w, x, y, z)
        if self.daylight:
            # The shadow map covers the surroundings of the robot, so it moves along with it.
            sun = self.model.light("sun").id
            back = SUN_DISTANCE * np.asarray(self.daylight.direction)
            self.model.light_pos[sun] = pose.translation - back
        self._mujoco.mj_kinematics(self.model, self.data)
        self._mujoco.mj_camlight(self.model, self.data)

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

    def geom_label(self, geom: int) -> str:
        """The label of the top-level model that a MuJoCo geom is a part of."""
        root = self.model.body_rootid[self.model.geom_bodyid[geom]]
        return self.labels[self.model.body(root).name]

    def renderer(self, width: int, height: int) -> Any:
        """A ``mujoco.Renderer`` of this scene.

        Raises:
            InputError: ``opengl_missing`` if OpenGL cannot start; names the packages it needs.
        """
        try:
            return self._mujoco.Renderer(self.model, height, width)
        except Exception as error:  # the GL bindings raise errors of many unrelated types
            raise InputError("opengl_missing", f"{GL_ADVICE}: {error}") from error


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
