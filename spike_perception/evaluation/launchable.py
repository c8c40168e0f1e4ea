# SPDX-License-Identifier: Apache-2.0
"""The perception nodes that an evaluation can start, and which belong to which launch."""

from __future__ import annotations

from dataclasses import dataclass

from spike_perception.bags.events import PACKET_TYPES
from spike_perception.bags.reader import IMAGE_TYPES, POINT_TYPES


@dataclass(frozen=True)
class Launchable:
    """A node as an evaluation sees it.

    Attributes:
        node: name of the node, of its module in ``nodes`` and of its executable.
        config: its parameter file in ``config``.
        answers: topic of its answers.
        source: what its ``ObjectClass`` messages call their sensor; empty for ``PlaceMatch``.
        sensor: section of its parameters that describes the sensor topic.
        types: message types that it takes there.
    """

    node: str
    config: str
    answers: str
    source: str
    sensor: str
    types: tuple[str, ...]

    @property
    def frames(self) -> bool:
        """Whether each message is answered; of events, windows are."""
        return self.types != PACKET_TYPES

    @property
    def module(self) -> str:
        """Module that runs the node."""
        return f"spike_perception.nodes.{self.node}"

    @property
    def vocabulary(self) -> str:
        """Topic of the words in force; empty for a node without words."""
        return f"/{self.node}/vocabulary" if self.source else ""


PLACES = Launchable("place_recognizer", "vpr.yaml", "/place_match", "", "image", IMAGE_TYPES)
CAMERA = Launchable(
    "camera_classifier", "camera.yaml", "/object_class", "camera", "image", IMAGE_TYPES
)
LIDAR = Launchable(
    "lidar_classifier", "lidar.yaml", "/object_class", "lidar", "points", POINT_TYPES
)
EVENTS = Launchable("dvs_classifier", "dvs.yaml", "/object_class", "events", "events", PACKET_TYPES)

# Name of the launch file -> its nodes.
LAUNCHES: dict[str, tuple[Launchable, ...]] = {
    "vpr": (PLACES,),
    "camera": (CAMERA,),
    "lidar": (LIDAR,),
    "dvs": (EVENTS,),
    "perception": (PLACES, CAMERA, LIDAR, EVENTS),
}
