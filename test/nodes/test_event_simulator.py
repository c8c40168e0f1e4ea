# SPDX-License-Identifier: Apache-2.0
"""The event simulator over DDS: images in, packets out that decode to what moved."""

from __future__ import annotations

import numpy as np
import pytest

from spike_perception.nodes.event_simulator import EventSimulatorNode
from spike_perception.nodes.stamps import stamp_ns
from spike_perception.sensing.event_stream import EventPacket, decode_all
from spike_perception_msgs.msg import EventPacket as EventPacketMessage

TOPIC = "/event_camera/image_raw"


def grey(level: int) -> np.ndarray:
    """A dark image with a square of this brightness, 8 x 8 pixels."""
    image = np.full((24, 32, 3), 20, np.uint8)
    image[8:16, 10:18] = level
    return image


class Scene:
    """A node, its camera, and the packets that it sends."""

    def __init__(self, world, **parameters) -> None:
        settings = {"sensor__noise_hz": 0.0, "sensor__spread": 0.0, **parameters}
        self.world, self.node = world, world.start(EventSimulatorNode, **settings)
        self.activate()
        self.packets = world.collect(EventPacketMessage, "/event_camera/events")
        assert world.spin_until(lambda: self.node.count_subscribers("/event_camera/events"))
        self.camera = world.camera(self.node, TOPIC)
        world.spin(0.3)

    def activate(self) -> None:
        assert self.node.trigger_configure().name == "SUCCESS"
        assert self.node.trigger_activate().name == "SUCCESS"

    def show(self, level: int, *, after_s: float = 0.01, **fields) -> int:
        """Send one image and wait until the node is done with it; returns its stamp."""
        before = self.done()
        stamp = self.camera.send(grey(level), after_s=after_s, **fields)
        assert self.world.spin_until(lambda: self.done() > before)
        self.world.spin(0.05)
        return stamp

    def done(self) -> int:
        values = {each.key: each.value for each in self.node.health.status("", True).values}
        return int(values["answered"]) + sum(self.node.health.drops().values())


@pytest.fixture
def scene(world):
    return Scene(world)


def events_of(packets):
    return decode_all(
        [
            EventPacket(m.height, m.width, m.seq, m.time_base, m.encoding, m.is_bigendian, m.events)
            for m in packets
        ]
    )


def test_what_grows_brighter_sends_on_events_between_the_images(scene):
    first, second = scene.show(20), scene.show(80)
    events = events_of(scene.packets)
    assert events.polarity.all()
    assert set(zip(events.x.tolist(), events.y.tolist(), strict=True)) == {
        (x, y) for x in range(10, 18) for y in range(8, 16)
    }
    assert first < events.t_ns.min() and events.t_ns.max() <= second
    message = scene.packets[0]
    assert (message.width, message.height, message.header.frame_id) == (32, 24, "camera")
    assert stamp_ns(message.header.stamp) == message.time_base == events.t_ns[0]


def test_packets_are_numbered_without_gaps_and_darkness_is_off(scene):
    for level in (20, 80, 80, 20, 80):  # the third changes nothing, so it sends nothing
        scene.show(level)
    assert [each.seq for each in scene.packets] == [0, 1, 2]
    assert not events_of(scene.packets[1:2]).polarity.any()


def test_bad_images_are_counted_and_a_jump_back_begins_anew(scene):
    scene.show(20)
    scene.show(80, encoding="rainbow")
    scene.show(80, after_s=-0.5)
    scene.camera.stamp = 0
    scene.show(80, after_s=0.0)
    assert scene.node.health.drops() == {
        "unknown_encoding": 1, "stamp_out_of_order": 1, "zero_stamp": 1,
    }  # fmt: skip
    scene.show(80)  # long before the last one: a new run, in which nothing has changed yet
    assert not scene.packets
    scene.show(20)
    assert not events_of(scene.packets).polarity.any()


def test_numbers_begin_anew_once_it_is_configured_again(scene):
    scene.show(20)
    scene.show(80)
    scene.node.trigger_deactivate()
    scene.node.trigger_cleanup()
    scene.activate()
    assert scene.world.spin_until(
        lambda: all(each.get_publisher_count() for each in scene.node.subscriptions)
    )
    scene.world.spin(0.3)
    scene.show(20)
    scene.show(80)
    assert [each.seq for each in scene.packets] == [0, 0]
