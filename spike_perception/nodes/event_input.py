# SPDX-License-Identifier: Apache-2.0
"""The event topic of a node: what is offered there, and its messages as packets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from rclpy.qos import ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from spike_perception.config import section, setting
from spike_perception.nodes.clouds import cloud_layout
from spike_perception.nodes.message_types import message_class
from spike_perception.nodes.perception_node import Arrival, TopicConfig
from spike_perception.nodes.stamps import stamp_ns
from spike_perception.sensing.event_cloud import EventCloudConfig, packet_from_cloud
from spike_perception.sensing.event_stream import EventPacket, joined
from spike_perception.sensing.event_windows import EventConfig

# In order of preference where publishers of several types are there.
TYPES = (
    "event_camera_msgs/msg/EventPacket",
    "spike_perception_msgs/msg/EventPacket",
    "sensor_msgs/msg/PointCloud2",
)


@dataclass(frozen=True)
class EventInputConfig(TopicConfig, EventConfig):
    """The event topic, and what windows are made of it."""

    topic: str = setting("/event_camera/events", "sensor topic", fixed=True)
    type: str = setting(
        "auto",
        "message type; auto: what the first publisher of the topic offers, until none is left that "
        "can be heard so (one participant of DDS cannot hear two types on one topic)",
        choices=("auto", *TYPES),
        fixed=True,
    )
    reliability: str = setting(
        "auto",
        "auto: reliable if every publisher is when the node subscribes, else best_effort",
        choices=("auto", "best_effort", "reliable"),
        fixed=True,
    )
    depth: int = setting(
        1000, "messages the middleware may queue (messages)", minimum=1, maximum=100_000, fixed=True
    )
    queue_mb: float = setting(
        64.0,
        "packets that may wait for the node; when they exceed it all are dropped at once, which "
        "is one gap (MB)",
        minimum=0.1,
        maximum=4096.0,
        fixed=True,
    )
    queue_s: float = setting(
        2.0,
        "how far the node may lag behind: once a packet has waited so long, all that wait are "
        "dropped at once, which is one gap; so are further windows of a packet that takes longer "
        "(s)",
        minimum=0.05,
        maximum=3600.0,
        fixed=True,
    )
    cloud: EventCloudConfig = section(EventCloudConfig)


class Offer(NamedTuple):
    """What to subscribe to: class of the messages, and ``reliable`` or ``best_effort``."""

    message_type: Any
    reliability: str

    def hears(self, publisher: TopicEndpointInfo) -> bool:
        """Whether one who subscribed so hears the publisher."""
        return message_class(publisher.topic_type) is self.message_type and (
            self.reliability == "best_effort"
            or publisher.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        )


def offer(config: EventInputConfig, publishers: Iterable[TopicEndpointInfo]) -> Offer | None:
    """How to hear the publishers of the topic, or None if none has a type that can be heard."""
    reliable: dict[str, bool] = {}
    for each in publishers:
        is_reliable = each.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        reliable[each.topic_type] = reliable.get(each.topic_type, True) and is_reliable
    for name in TYPES if config.type == "auto" else (config.type,):
        if name in reliable and (message_type := message_class(name)) is not None:
            auto = "reliable" if reliable[name] else "best_effort"
            return Offer(message_type, auto if config.reliability == "auto" else config.reliability)
    return None


def missing_packages(config: EventInputConfig, offered: Iterable[str]) -> list[str]:
    """Packages, not installed here, of those types among ``offered`` that could be heard."""
    wanted = TYPES if config.type == "auto" else (config.type,)
    missing = (each for each in offered if each in wanted and message_class(each) is None)
    return [each.partition("/")[0] for each in missing]


class Piece(NamedTuple):
    """A part of the stream: header of its first message, and packet or cloud."""

    header: Header
    data: EventPacket | PointCloud2

    def packet(self, config: EventInputConfig) -> EventPacket:
        """The part as a packet.

        Raises:
            InputError: as :func:`packet_from_cloud`.
        """
        cloud = self.data
        if isinstance(cloud, EventPacket):
            return cloud
        return packet_from_cloud(cloud_layout(cloud), cloud.data, config.cloud)


def pieces(arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
    """Messages, as they came, as pieces; packets are joined where they can be."""
    for may_be_joined, run in groupby(arrivals, _may_be_joined):
        given = list(run)
        if not may_be_joined:
            for each in given:
                yield Arrival(Piece(each.message.header, _data(each.message)), each.time_s)
            continue
        at = 0
        for packet in joined([_data(each.message) for each in given]):
            first = given[at]
            yield Arrival(Piece(first.message.header, packet), first.time_s)
            at += packet.packets


def _may_be_joined(arrival: Arrival) -> bool:
    """Not clouds, and not what is refused for its stamp, which is counted by messages."""
    message = arrival.message
    return not isinstance(message, PointCloud2) and stamp_ns(message.header.stamp) > 0


def _data(message: Any) -> Any:
    if isinstance(message, PointCloud2):
        return message
    return EventPacket(
        message.height,
        message.width,
        message.seq,
        message.time_base,
        message.encoding,
        message.is_bigendian,
        message.events,
    )


def weigh(arrival: Arrival) -> int:
    """Bytes that a waiting message takes, about."""
    message = arrival.message
    data = message.data if isinstance(message, PointCloud2) else message.events
    return len(data) + 1024
