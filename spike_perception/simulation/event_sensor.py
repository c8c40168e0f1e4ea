# SPDX-License-Identifier: Apache-2.0
"""An event camera on the simulated robot: a fast camera, its pictures turned into events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spike_perception.bags.message_writer import MessageWriter
from spike_perception.config import section, setting
from spike_perception.sensing.event_camera import EventCamera, EventCameraConfig
from spike_perception.sensing.event_packets import EventPacker
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sensors import Camera


@dataclass(frozen=True)
class EventSensorConfig:
    """The robot's event camera."""

    name: str = setting("event_camera", "SDF name of its camera sensor on the robot")
    topic: str = setting("/event_camera/events", "topic of the event packets")
    frame_id: str = setting("event_camera_optical_frame", "optical frame of the events")
    width: int = setting(240, "sensor width (px)", minimum=16, maximum=4096)
    height: int = setting(180, "sensor height (px)", minimum=16, maximum=4096)
    rate: float = setting(
        40.0,
        "pictures that events are made of, and packets, a second (Hz)",
        minimum=0.1,
        maximum=2000.0,
    )
    pixel: EventCameraConfig = section(EventCameraConfig)


class EventSensor:
    """Renders pictures without noise or shadows and writes the events between them.

    Shadows are left out since MuJoCo draws them anew, a little different, wherever the robot
    stands: their edges would flicker. Another scene, as of another time of day, begins anew.

    Args:
        scene: any scene of the world, to find the camera in.
        config: the sensor and its pixels.
        rng: source of the pixels' thresholds and noise.
    """

    def __init__(
        self, scene: Scene, config: EventSensorConfig, rng: np.random.Generator | None = None
    ) -> None:
        self._camera = Camera(
            scene,
            name=config.name,
            width=config.width,
            height=config.height,
            rate=config.rate,
            frame_id=config.frame_id,
            quick=True,
        )
        self.rate, self.topic, self.frame_id = config.rate, config.topic, config.frame_id
        self.mount = self._camera.mount
        self._events = EventCamera(config.pixel, rng)
        self._pack = EventPacker(config.width, config.height)
        self._scene = scene

    def observe(
        self,
        scene: Scene,
        rng: np.random.Generator,  # noqa: ARG002
    ) -> NDArray[np.uint8]:
        """Render ``[height, width, 3]`` RGB; the events are made of it when it gets its stamp."""
        if scene is not self._scene:
            self._events.reset()
            self._scene = scene
        return self._camera.render(scene)

    def write(self, bag: MessageWriter, stamp_ns: int, observation: NDArray[np.uint8]) -> None:
        """Write the events since the last picture as a packet, if there are any."""
        events = self._events(observation, stamp_ns)
        if len(events):
            first_ns = int(events.t_ns[0])
            bag.event_packet(self.topic, stamp_ns, first_ns, self.frame_id, self._pack(events))

    def close(self) -> None:
        """Free the rendering context."""
        self._camera.close()
