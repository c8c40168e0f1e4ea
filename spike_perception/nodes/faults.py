# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with sensor messages: spoilers, and by which reason a node must refuse."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, PointCloud2, PointField

from spike_perception.nodes.stamps import stamp_ns, to_stamp

BURST = 10
# More points than lidar_classifier takes by default.
TOO_MANY_POINTS = 500_001
# Bytes of a packet that floods a node: a hundred times what a packet holds otherwise, but no more
# than a packet may hold.
FLOOD = 100
FLOOD_BYTES = 4_000_000
# A step back that a node takes for a message that comes late, and one for another run [ns].
LATE_NS = 500_000_000
JUMP_NS = 60_000_000_000


@dataclass(frozen=True)
class Spoiled:
    """A message to be spoiled.

    Attributes:
        message: a copy that the spoiler may change, stamped with the time it is sent.
        answered_ns: stamp of the last message that every node has answered [ns].
    """

    message: Any
    answered_ns: int


Spoil = Callable[[Spoiled], list[Any]]
"""What is published instead of a message: nothing, one message or several."""


@dataclass(frozen=True)
class Fault:
    """One way in which the messages of a sensor go wrong.

    Attributes:
        name: snake_case.
        spoil: what is published instead of each message while the fault lasts.
        reasons: the counters of ``/diagnostics`` of which one must rise; none: the node must
            answer the spoiled messages.
    """

    name: str
    spoil: Spoil
    reasons: tuple[str, ...] = ()


def silent(spoiled: Spoiled) -> list[Any]:  # noqa: ARG001
    """Nothing is published."""
    return []


def fields(**values: Any) -> Spoil:
    """Set fields of the message."""

    def spoil(spoiled: Spoiled) -> list[Any]:
        for name, value in values.items():
            setattr(spoiled.message, name, value)
        return [spoiled.message]

    return spoil


def _zero_stamp(spoiled: Spoiled) -> list[Any]:
    spoiled.message.header.stamp = to_stamp(0)
    return [spoiled.message]


def _late(spoiled: Spoiled) -> list[Any]:
    spoiled.message.header.stamp = to_stamp(spoiled.answered_ns - LATE_NS)
    return [spoiled.message]


def _backwards(spoiled: Spoiled) -> list[Any]:
    message = spoiled.message
    message.header.stamp = to_stamp(stamp_ns(message.header.stamp) - JUMP_NS)
    return [message]


def _burst(spoiled: Spoiled) -> list[Any]:
    first = stamp_ns(spoiled.message.header.stamp)
    copies = [deepcopy(spoiled.message) for _ in range(BURST)]
    for number, each in enumerate(copies):
        each.header.stamp = to_stamp(first + number * 1_000_000)
    return copies


def _half_the_data(spoiled: Spoiled) -> list[Any]:
    spoiled.message.data = spoiled.message.data[: len(spoiled.message.data) // 2]
    return [spoiled.message]


def _half_the_size(spoiled: Spoiled) -> list[Any]:
    message: Image = spoiled.message
    pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    samples = message.step // message.width
    small = pixels.reshape(message.height, message.width, samples)[::2, ::2]
    message.height, message.width = small.shape[:2]
    message.step = message.width * samples
    message.data = array("B", np.ascontiguousarray(small).tobytes())
    return [message]


def _not_a_number(spoiled: Spoiled) -> list[Any]:
    """No coordinate of an unorganised cloud of float32 is a number."""
    message: PointCloud2 = spoiled.message
    data = np.array(message.data, np.uint8)
    points = data[: message.width * message.point_step].reshape(message.width, -1)
    nan = np.frombuffer(np.float32(np.nan).tobytes(), np.uint8)
    for each in message.fields:
        if each.name in ("x", "y", "z"):
            points[:, each.offset : each.offset + nan.size] = nan
    message.data = array("B", data.tobytes())
    return [message]


def _too_many_points(spoiled: Spoiled) -> list[Any]:
    """An unorganised cloud, again and again."""
    message: PointCloud2 = spoiled.message
    times = TOO_MANY_POINTS // message.width + 1
    message.data = message.data * times
    message.width *= times
    message.row_step *= times
    return [message]


def _no_points(spoiled: Spoiled) -> list[Any]:
    message: PointCloud2 = spoiled.message
    message.width, message.row_step, message.data = 0, 0, array("B")
    return [message]


def _other_fields(change: Callable[[PointField], None]) -> Spoil:
    def spoil(spoiled: Spoiled) -> list[Any]:
        for each in spoiled.message.fields:
            if each.name == "z":
                change(each)
        return [spoiled.message]

    return spoil


def _renamed(field: PointField) -> None:
    field.name = "height"


def _odd_type(field: PointField) -> None:
    field.datatype = 99


def _every_other(spoiled: Spoiled) -> list[Any]:
    return [spoiled.message] if spoiled.message.seq % 2 else []


def _time_backwards(spoiled: Spoiled) -> list[Any]:
    spoiled.message.time_base -= JUMP_NS * (spoiled.message.seq % 2)
    return [spoiled.message]


def _restart(spoiled: Spoiled) -> list[Any]:
    spoiled.message.seq %= 2
    return [spoiled.message]


def _flood(spoiled: Spoiled) -> list[Any]:
    events = spoiled.message.events
    spoiled.message.events = events * min(FLOOD, FLOOD_BYTES // max(1, len(events)))
    return [spoiled.message]


def _cut_packet(spoiled: Spoiled) -> list[Any]:
    spoiled.message.events = spoiled.message.events[:-1]
    return [spoiled.message]


IMAGE_FAULTS = (
    Fault("zero_stamp", _zero_stamp, ("zero_stamp",)),
    Fault("out_of_order_stamp", _late, ("stamp_out_of_order",)),
    Fault("clock_backwards", _backwards),
    Fault("truncated_data", _half_the_data, ("truncated_data",)),
    Fault("unknown_encoding", fields(encoding="rainbow"), ("unknown_encoding",)),
    Fault("wrong_step", fields(step=1), ("wrong_step",)),
    Fault("zero_size", fields(width=0, height=0, step=0), ("zero_size",)),
    Fault("resolution_change", _half_the_size),
    Fault("burst", _burst, ("overload",)),
    Fault("stale", silent, ("stale",)),
)
CLOUD_FAULTS = (
    Fault("zero_stamp", _zero_stamp, ("zero_stamp",)),
    Fault("out_of_order_stamp", _late, ("stamp_out_of_order",)),
    Fault("clock_backwards", _backwards),
    Fault("truncated_data", _half_the_data, ("truncated_data",)),
    Fault("nan_cloud", _not_a_number, ("no_finite_point",)),
    Fault("too_many_points", _too_many_points, ("too_large",)),
    Fault("empty_cloud", _no_points, ("empty_cloud",)),
    Fault("missing_field", _other_fields(_renamed), ("missing_field",)),
    Fault("unknown_type", _other_fields(_odd_type), ("unknown_type",)),
    Fault("wrong_step", fields(row_step=1), ("wrong_step",)),
    Fault("burst", _burst, ("overload",)),
    Fault("stale", silent, ("stale",)),
)
EVENT_FAULTS = (
    Fault("zero_stamp", _zero_stamp, ("zero_stamp",)),
    Fault("truncated_packet", _cut_packet, ("truncated_packet",)),
    Fault("unknown_encoding", fields(encoding="rainbow"), ("unknown_encoding",)),
    Fault("zero_size", fields(width=0, height=0), ("zero_size",)),
    Fault("seq_gap", _every_other, ("lost_packets",)),
    Fault("seq_restart", _restart, ("seq_restarts",)),
    Fault("time_backwards", _time_backwards, ("time_jumps",)),
    Fault("event_flood", _flood, ("overload", "answered")),
    Fault("stale", silent, ("stale",)),
)
