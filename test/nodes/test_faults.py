# SPDX-License-Identifier: Apache-2.0
"""Every fault makes of a good message one that is refused for the reason that it names."""

from __future__ import annotations

from array import array
from copy import deepcopy

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2, PointField

from spike_perception.errors import InputError
from spike_perception.nodes.clouds import points_of
from spike_perception.nodes.faults import (
    BURST,
    CLOUD_FAULTS,
    EVENT_FAULTS,
    IMAGE_FAULTS,
    Spoiled,
)
from spike_perception.nodes.images import rgb_image
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception.sensing.event_packets import EventPacker
from spike_perception.sensing.event_stream import EventPacket, EventStream
from spike_perception.sensing.events import Events
from spike_perception.zero_shot.stream import StreamOrder, check_stamp
from spike_perception_msgs.msg import EventPacket as EventPacketMessage

from .conftest import image_message, scene

NOW = 2_000_000_000_000
PERIOD = 30_000_000


def cloud(stamp: int) -> PointCloud2:
    points = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    message = PointCloud2(height=1, width=500, point_step=16, row_step=8000, is_dense=True)
    names = ("x", "y", "z", "intensity")
    message.fields = [
        PointField(name=name, offset=4 * at, datatype=7, count=1) for at, name in enumerate(names)
    ]
    message.data = array("B", points.tobytes())
    message.header.stamp = to_stamp(stamp)
    return message


def packet(stamp: int, seq: int) -> EventPacketMessage:
    t_ns = stamp + np.arange(100, dtype=np.int64) * 1000
    x = (np.arange(100) % 32).astype(np.uint16)
    made = EventPacker(32, 24)(Events(x, x % 24, x % 2 == 0, t_ns))
    message = EventPacketMessage(
        height=24, width=32, seq=seq, time_base=stamp, encoding=made.encoding,
        events=array("B", bytes(made.events)),
    )  # fmt: skip
    message.header.stamp = to_stamp(stamp)
    return message


def spoilt(fault, message) -> list:
    return fault.spoil(Spoiled(deepcopy(message), NOW - PERIOD))


def refusals(messages, take, what: str) -> set[str]:
    """Reasons for which messages that follow on a good one are refused."""
    order, reasons = StreamOrder(what), set()
    order.follow(NOW - PERIOD)
    for each in messages:
        try:
            take(each)
            order.check(stamp_ns(each.header.stamp))
        except InputError as error:
            reasons.add(error.reason)
    return reasons


@pytest.mark.parametrize("fault", IMAGE_FAULTS, ids=lambda f: f.name)
def test_images(fault):
    messages = spoilt(fault, image_message(scene(0), NOW))
    found = refusals(messages, rgb_image, "images")
    if fault.name == "clock_backwards":  # which a node takes for the start of another run
        assert found == {"stamp_out_of_order"} and not fault.reasons
    else:
        assert found == set(fault.reasons) - {"overload", "stale"}
    expected = {"burst": BURST, "stale": 0}
    assert len(messages) == expected.get(fault.name, 1)


@pytest.mark.parametrize("fault", CLOUD_FAULTS, ids=lambda f: f.name)
def test_clouds(fault):
    messages = spoilt(fault, cloud(NOW))
    found = refusals(messages, lambda m: points_of(m, 500_000), "scans")
    if fault.name == "clock_backwards":
        assert found == {"stamp_out_of_order"} and not fault.reasons
    else:
        assert found == set(fault.reasons) - {"overload", "stale"}


@pytest.mark.parametrize("fault", EVENT_FAULTS, ids=lambda f: f.name)
def test_events(fault):
    stream, refused = EventStream(), set()
    for each in (
        packet(NOW - PERIOD, 7),
        *spoilt(fault, packet(NOW, 8)),
        *spoilt(fault, packet(NOW + PERIOD, 9)),
    ):
        try:
            check_stamp(stamp_ns(each.header.stamp), "events")
            stream.decode(
                EventPacket(
                    each.height,
                    each.width,
                    each.seq,
                    each.time_base,
                    each.encoding,
                    each.is_bigendian,
                    each.events,
                )
            )
        except InputError as error:
            refused.add(error.reason)
    broke = {"lost_packets", "seq_restarts", "time_jumps", "format_changes"}
    found = refused | {name for name in broke if stream.counts[name]}
    assert found == set(fault.reasons) - {"overload", "answered", "stale"}


def test_a_resolution_change_keeps_the_picture():
    (fault,) = (each for each in IMAGE_FAULTS if each.name == "resolution_change")
    (message,) = spoilt(fault, image_message(scene(3), NOW))
    np.testing.assert_array_equal(rgb_image(message), scene(3)[::2, ::2])
