# SPDX-License-Identifier: Apache-2.0
"""Sensors on the simulated robot; a new one is a class here and a line in a drive."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.writer import BagWriter
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf_to_mjcf import OPTICAL


class Sensor(Protocol):
    """A sensor fixed on the robot.

    Attributes:
        rate: observations a second of simulated time (Hz).
        frame_id: frame of its data.
        mount: pose of that frame in base_link.
    """

    rate: float
    frame_id: str
    mount: Pose

    def observe(self, scene: Scene, rng: np.random.Generator) -> Any:
        """Sense the scene as it stands; all randomness comes from ``rng``."""
        ...

    def write(self, bag: BagWriter, stamp_ns: int, observation: Any) -> None:
        """Write what :meth:`observe` returned as a message of its own topic."""
        ...


class Camera:
    """A pinhole camera with the exposure and the noise of the scene's time of day.

    Args:
        scene: any scene of the world, to find the camera in.
        name: SDF name of the camera sensor on the robot.
        width: picture width (px); 0 for the SDF's.
        height: picture height (px); 0 for the SDF's.
        rate: pictures a second (Hz).
        topic: topic of the images; ``camera_info`` is published beside it.
        frame_id: optical frame.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        name: str = "camera",
        width: int = 0,
        height: int = 0,
        rate: float = 5.0,
        topic: str = "/camera/image_raw",
        frame_id: str = "camera_optical_frame",
    ) -> None:
        self._name, mount, sensor = scene.camera(name)
        self.mount = mount @ OPTICAL
        self.width, self.height = width or sensor.width, height or sensor.height
        self.focal_px = self.width / 2 / math.tan(sensor.horizontal_fov / 2)
        self.fovy = math.degrees(2 * math.atan(self.height / 2 / self.focal_px))
        self.rate = rate
        self.topic = topic
        self.frame_id = frame_id
        self._scene: Scene | None = None
        self._renderer: Any = None

    def observe(self, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Render ``[height, width, 3]`` RGB, exposed and noisy."""
        if scene is not self._scene:
            self.close()
            scene.model.camera(self._name).fovy = self.fovy
            self._renderer = scene.renderer(self.width, self.height)
            self._scene = scene
        self._renderer.update_scene(scene.data, camera=self._name)
        clean = self._renderer.render()
        if scene.daylight is None:
            return np.asarray(clean, np.uint8)
        picture: NDArray[np.float32] = rng.standard_normal(clean.shape, np.float32)
        picture *= scene.daylight.noise
        picture += clean * np.float32(scene.daylight.exposure)
        return np.rint(picture).clip(0, 255).astype(np.uint8)

    def write(self, bag: BagWriter, stamp_ns: int, observation: NDArray[np.uint8]) -> None:
        """Write the image and its camera_info."""
        bag.image(self.topic, stamp_ns, self.frame_id, observation)
        bag.camera_info(
            f"{self.topic.rsplit('/', 1)[0]}/camera_info",
            stamp_ns,
            self.frame_id,
            (self.width, self.height),
            self.focal_px,
        )

    def close(self) -> None:
        """Free the rendering context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
            self._scene = None
