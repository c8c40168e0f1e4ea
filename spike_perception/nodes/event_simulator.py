# SPDX-License-Identifier: Apache-2.0
"""The node ``event_simulator``: images of a fast camera in, events of an event camera out.

Gazebo has no event camera; with this node one of its cameras becomes one.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import Any

from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from spike_perception.config import section, setting
from spike_perception.nodes.images import image_subscription, rgb_image
from spike_perception.nodes.perception_node import InputConfig, PerceptionNode, TimeConfig, spin
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception.sensing.event_camera import EventCamera, EventCameraConfig
from spike_perception.sensing.event_packets import EventPacker, cut_to_packets
from spike_perception.sensing.event_stream import EventPacket
from spike_perception.zero_shot.stream import StreamOrder
from spike_perception_msgs.msg import EventPacket as EventPacketMessage

# Event packets must not be lost: each is a part of one stream.
DEPTH = 1000


@dataclass(frozen=True)
class FastCameraConfig(InputConfig):
    """The camera; the faster it is, the truer the events."""

    topic: str = setting("/event_camera/image_raw", "camera topic", fixed=True)
    depth: int = setting(
        100, "messages the middleware may queue (messages)", minimum=1, maximum=1000, fixed=True
    )


@dataclass(frozen=True)
class EventSimulatorConfig:
    """Every parameter of the node."""

    image: FastCameraConfig = section(FastCameraConfig)
    time: TimeConfig = section(TimeConfig)
    sensor: EventCameraConfig = section(EventCameraConfig)


class EventSimulatorNode(PerceptionNode[EventSimulatorConfig]):
    """Lifecycle node around :class:`~spike_perception.sensing.event_camera.EventCamera`."""

    def __init__(self, **options: Any) -> None:
        self._camera: EventCamera | None = None
        self._packer: EventPacker | None = None
        self._size = (0, 0)
        self._last_stamp_ns = 0
        self._order = StreamOrder("images")
        super().__init__("event_simulator", EventSimulatorConfig, **options)
        self._events = self.create_lifecycle_publisher(
            EventPacketMessage, "/event_camera/events", QoSProfile(depth=DEPTH)
        )

    def load(self) -> None:
        """Make the event camera."""
        self._camera = EventCamera(self.config.sensor)

    def listen(self) -> None:
        """Subscribe to images."""
        image = self.config.image
        self.subscribe(
            *image_subscription(image),
            self.receive,
            reliability=image.reliability,
            depth=image.depth,
        )

    def unload(self) -> None:
        """Let go of the camera; its packets are numbered anew."""
        self._camera = self._packer = None

    def forget(self) -> None:
        """Begin anew with the next image."""
        self._last_stamp_ns = 0
        self._order.reset()
        if self._camera is not None:
            self._camera.reset()

    def apply(self, config: EventSimulatorConfig) -> None:
        """Take changed settings: a camera with other pixels."""
        self._camera = EventCamera(config.sensor)

    def process(self, message: Image | CompressedImage, arrived_s: float) -> None:
        """Publish the events between the last image and this one."""
        camera = self._camera
        if camera is None:
            return
        stamp, image = stamp_ns(message.header.stamp), rgb_image(message)
        # A stamp of zero is none: refused below, and no reason to forget.
        if stamp > 0 and self._last_stamp_ns - stamp > self.config.time.jump_back_s * 1e9:
            self.forget()
        self._order.check(stamp)
        events = camera(image, stamp)
        self._order.follow(stamp)
        self._last_stamp_ns = stamp
        height, width = image.shape[:2]
        if self._packer is None or self._size != (height, width):
            self._packer, self._size = EventPacker(width, height), (height, width)
        for each in cut_to_packets(events):
            self._events.publish(packet_message(message.header, self._packer(each)))


def packet_message(header: Header, packet: EventPacket) -> EventPacketMessage:
    """The message of a packet, stamped with the time of its first event.

    Args:
        header: of the image that ended it; its frame is the packet's.
        packet: with at least one event.
    """
    return EventPacketMessage(
        header=Header(stamp=to_stamp(packet.time_base), frame_id=header.frame_id),
        height=packet.height,
        width=packet.width,
        seq=packet.seq,
        time_base=packet.time_base,
        encoding=packet.encoding,
        is_bigendian=packet.is_bigendian,
        events=array("B", bytes(packet.events)),
    )


def main() -> None:
    """Entry point of ``ros2 run spike_perception event_simulator``."""
    sys.exit(spin(EventSimulatorNode))


if __name__ == "__main__":
    main()
