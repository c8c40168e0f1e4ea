# SPDX-License-Identifier: Apache-2.0
"""Sensors on the simulated robot; a new one is a class here and a line in a drive."""

from __future__ import annotations

import json
import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.message_writer import MessageWriter
from spike_perception.simulation.daylight import Daylight
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

    def write(self, bag: MessageWriter, stamp_ns: int, observation: Any) -> None:
        """Write what :meth:`observe` returned as a message of its own topic."""
        ...

    def close(self) -> None:
        """Free what it holds, such as a rendering context."""
        ...


def expose(
    clean: NDArray[np.uint8], daylight: Daylight | None, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A rendered image with the exposure and the noise of its time of day."""
    if daylight is None:
        return np.asarray(clean, np.uint8)
    picture: NDArray[np.float32] = rng.standard_normal(clean.shape, np.float32)
    picture *= daylight.noise
    picture += clean * np.float32(daylight.exposure)
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def visible_geoms(scene: Scene, renderer: Any, camera: str) -> NDArray[np.int64]:
    """The MuJoCo geom that each pixel shows, ``[height, width]``; -1 for the sky.

    Args:
        scene: a scene, its robot in place.
        renderer: a renderer of this scene.
        camera: MuJoCo's name of the camera.
    """
    renderer.enable_segmentation_rendering()
    try:
        renderer.update_scene(scene.data, camera=camera)
        return np.asarray(renderer.render()[..., 0], np.int64)
    finally:
        renderer.disable_segmentation_rendering()


def label_shares(scene: Scene, geoms: NDArray[np.int64]) -> dict[str, float]:
    """The share (0-1) of these pixels that the models of each label fill, largest first."""
    seen, counts = np.unique(geoms[geoms >= 0], return_counts=True)
    pixels: dict[str, int] = {}
    for geom, count in zip(seen.tolist(), counts.tolist(), strict=True):
        label = scene.geom_label(geom)
        pixels[label] = pixels.get(label, 0) + count
    ranked = sorted(pixels.items(), key=lambda each: (-each[1], each[0]))
    return {label: count / geoms.size for label, count in ranked}


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
        quick: whether to render in a quarter of the time, without shadows and with coarser round
            shapes.
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
        quick: bool = False,
    ) -> None:
        self._name, mount, sensor = scene.camera(name)
        self.mount = mount @ OPTICAL
        self.width, self.height = width or sensor.width, height or sensor.height
        self.focal_px = self.width / 2 / math.tan(sensor.horizontal_fov / 2)
        self.fovy = math.degrees(2 * math.atan(self.height / 2 / self.focal_px))
        self.rate = rate
        self.topic = topic
        self.frame_id = frame_id
        self._quick = quick
        self._scene: Scene | None = None
        self._renderer: Any = None

    def observe(self, scene: Scene, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Render ``[height, width, 3]`` RGB, exposed and noisy."""
        return expose(self.render(scene), scene.daylight, rng)

    def render(self, scene: Scene) -> NDArray[np.uint8]:
        """Render ``[height, width, 3]`` RGB as it is."""
        renderer = self._renderer_of(scene)
        if self._quick:
            return scene.render_without_shadows(renderer, self._name)
        renderer.update_scene(scene.data, camera=self._name)
        return np.asarray(renderer.render(), np.uint8)

    def visible_geoms(self, scene: Scene) -> NDArray[np.int64]:
        """What each pixel of the picture shows, see :func:`visible_geoms`."""
        return visible_geoms(scene, self._renderer_of(scene), self._name)

    def _renderer_of(self, scene: Scene) -> Any:
        if scene is not self._scene:
            self.close()
            scene.model.camera(self._name).fovy = self.fovy
            self._renderer = scene.renderer(self.width, self.height, coarse=self._quick)
            self._scene = scene
        return self._renderer

    def write(self, bag: MessageWriter, stamp_ns: int, observation: NDArray[np.uint8]) -> None:
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


class ObjectTruth:
    """Says what a camera truly sees: shares of its picture by the labels of the world's models.

    Each message is a ``std_msgs/String`` of JSON, stamped as its picture: ``{"stamp_ns": int,
    "whole": {label: share, ...}, "centre": {...}}``, shares (0-1) of the whole picture and of its
    largest centred square; what is missing to 1 is sky.
    """

    topic = "/ground_truth/objects"

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self.rate, self.frame_id, self.mount = camera.rate, camera.frame_id, camera.mount

    def observe(
        self,
        scene: Scene,
        rng: np.random.Generator,  # noqa: ARG002
    ) -> dict[str, dict[str, float]]:
        """Shares by label, by part of the picture."""
        geoms = self._camera.visible_geoms(scene)
        height, width = geoms.shape
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        centre = geoms[top : top + side, left : left + side]
        return {"whole": label_shares(scene, geoms), "centre": label_shares(scene, centre)}

    def write(
        self, bag: MessageWriter, stamp_ns: int, observation: dict[str, dict[str, float]]
    ) -> None:
        """Write the shares."""
        rounded = {
            part: {label: round(share, 4) for label, share in shares.items()}
            for part, shares in observation.items()
        }
        bag.text(self.topic, stamp_ns, json.dumps({"stamp_ns": stamp_ns, **rounded}))

    def close(self) -> None:
        """The camera holds everything."""
