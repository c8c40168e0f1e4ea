# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.bags.events import EventBag
from spike_perception.bags.writer import BagWriter
from spike_perception.config import from_flat
from spike_perception.sensing.event_stream import decode_all
from spike_perception.simulation.daylight import daylight
from spike_perception.simulation.event_sensor import EventSensor, EventSensorConfig
from spike_perception.simulation.pose import Pose
from spike_perception.simulation.scene import Scene
from spike_perception.simulation.sdf import parse_world

# A dark post that passes from left to right before a bright wall.
WORLD = """<sdf version="1.9"><world name="post">
<model name="wall_1"><static>true</static><pose>6 0 0 0 0 0</pose><link name="link">
<visual name="part"><geometry><box><size>0.1 60 60</size></box></geometry><material>
<diffuse>0.8 0.8 0.8 1</diffuse><emissive>0.8 0.8 0.8 1</emissive></material></visual>
</link></model>
<model name="post_1"><pose>3 1 0 0 0 -1.570796</pose>
<plugin filename="gz-sim-velocity-control-system" name="gz::sim::systems::VelocityControl">
<initial_linear>1 0 0</initial_linear></plugin><link name="link">
<visual name="part"><geometry><box><size>0.3 0.1 9</size></box></geometry><material>
<diffuse>0.1 0.1 0.1 1</diffuse></material></visual></link></model>
<model name="robot"><link name="link"><sensor name="event_camera" type="camera"><camera>
<horizontal_fov>1.4</horizontal_fov></camera></sensor></link></model>
</world></sdf>"""
PIXEL = {"pixel.noise_hz": 0.0, "width": 64, "height": 48, "rate": 50.0}


@pytest.fixture
def scene(tmp_path):
    return Scene(parse_world(WORLD.encode(), tmp_path / "w.sdf"), size=(64, 48))


def recorded(folder, scenes, **changes):
    sensor = EventSensor(scenes[0], from_flat(EventSensorConfig, PIXEL | changes))
    try:
        with BagWriter(folder / "bag") as bag:
            for k, each in enumerate(scenes):
                each.place_robot(Pose(), k / 50)
                stamp = 1_000_000_000 + 20_000_000 * k
                sensor.write(bag, stamp, sensor.observe(each, np.random.default_rng(0)))
    finally:
        sensor.close()
    with EventBag(folder / "bag") as bag:
        return [each.packet for each in bag.packets()] if bag.topics else []


def test_a_passing_post_darkens_before_it_and_brightens_behind(scene, tmp_path):
    packets = recorded(tmp_path, [scene] * 101)
    events = decode_all(packets)
    assert (packets[0].width, packets[0].height, packets[0].seq) == (64, 48, 0)
    assert len(events) > 500
    on, off = events[events.polarity], events[~events.polarity]
    assert len(on) == pytest.approx(len(off), rel=0.25)
    # At 1 m/s in 3 m the post crosses the picture at 12.7 px/s.
    for signed in (on, off):
        speed, _ = np.polyfit(signed.t_ns / 1e9, signed.x.astype(float), 1)
        assert speed == pytest.approx(32 / np.tan(0.7) / 3, rel=0.1)
    column = 32
    assert np.median(off.t_ns[off.x == column]) < np.median(on.t_ns[on.x == column])


def test_what_stands_still_sends_nothing_and_no_packet(scene, tmp_path):
    sensor_sees = recorded(tmp_path, [scene] * 1)
    assert sensor_sees == []


def test_another_time_of_day_is_no_event(scene, tmp_path):
    evening = Scene(scene.world, daylight("evening"), size=(64, 48))
    frames = recorded(tmp_path, [scene, evening])
    assert frames == []
    assert len(recorded(tmp_path / "more", [scene, scene, scene, scene, scene])) > 0
