# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from spike_perception.bags.events import EventBag
from spike_perception.bags.writer import STORAGES, BagWriter
from spike_perception.errors import InputError
from spike_perception.sensing.event_packets import EventPacker
from spike_perception.sensing.event_stream import EventStream
from spike_perception.sensing.events import Events
from spike_perception.sensing.points import PointsError

STAMP = 12_000_000_345


def read(path):
    with AnyReader([path]) as reader:
        return [
            (connection.topic, stamp, reader.deserialize(data, connection.msgtype), connection)
            for connection, stamp, data in reader.messages()
        ]


@pytest.mark.parametrize("storage", STORAGES)
def test_every_message_is_read_back(tmp_path, storage):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    with BagWriter(tmp_path / "bag", storage) as bag:
        bag.static_transforms(STAMP, "base", {"eye": ((0, 0, 1), (0, 0, 0, 1))})
        bag.image("/image", STAMP + 1, "eye", pixels)
        bag.image("/grey", STAMP + 2, "eye", pixels[..., 0])
        bag.compressed_image("/image/compressed", STAMP + 3, "eye", b"\xff\xd8", "jpeg")
        bag.camera_info("/info", STAMP + 4, "eye", (5, 7), 4.0)
        bag.odometry("/odom", STAMP + 5, "odom", "base", (1, 2, 3), (0, 0, 1, 0), (4, 0, 0))
        bag.transform(STAMP + 6, "odom", "base", (1, 2, 3), (0, 0, 1, 0))
        bag.clock(STAMP + 7)
        bag.text("/text", STAMP + 8, "evening")
    static, image, grey, compressed, info, odometry, tf, clock, text = read(tmp_path / "bag")
    assert [m[1] for m in (static, image, text)] == [STAMP, STAMP + 1, STAMP + 8]
    assert static[0] == "/tf_static"
    assert static[3].ext.offered_qos_profiles[0].durability.name == "TRANSIENT_LOCAL"
    assert (image[2].encoding, image[2].height, image[2].width, image[2].step) == ("rgb8", 7, 5, 15)
    assert np.array_equal(image[2].data.reshape(7, 5, 3), pixels)
    assert (image[2].header.stamp.sec, image[2].header.stamp.nanosec) == (12, 346)
    assert image[2].header.frame_id == "eye"
    assert np.array_equal(grey[2].data.reshape(7, 5), pixels[..., 0])
    assert bytes(compressed[2].data) == b"\xff\xd8"
    assert info[2].k[0] == 4.0
    assert info[2].k[2] == 2.0
    assert odometry[2].pose.pose.position.y == 2.0
    assert odometry[2].twist.twist.linear.x == 4.0
    assert tf[2].transforms[0].transform.rotation.z == 1.0
    assert clock[2].clock.nanosec == STAMP + 7 - 12_000_000_000
    assert text[2].data == "evening"


def test_a_failed_bag_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), BagWriter(tmp_path / "bag") as bag:
        bag.clock(STAMP)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_existing_path_is_never_overwritten(tmp_path):
    (tmp_path / "bag").write_text("precious")
    with pytest.raises(InputError, match="exists") as error, BagWriter(tmp_path / "bag"):
        pass
    assert error.value.reason == "output_exists"
    assert (tmp_path / "bag").read_text() == "precious"


def test_refusals_name_what_was_given(tmp_path):
    with pytest.raises(InputError, match="'zip'"):
        BagWriter(tmp_path / "bag", "zip")
    with BagWriter(tmp_path / "bag") as bag:
        with pytest.raises(InputError, match="float64"):
            bag.image("/image", STAMP, "eye", np.zeros((4, 4, 3)))
        with pytest.raises(InputError, match=r"\[0, 4, 3\]"):
            bag.image("/image", STAMP, "eye", np.zeros((0, 4, 3), np.uint8))
        bag.clock(STAMP)
        with pytest.raises(InputError, match="carries"):
            bag.text("/clock", STAMP, "no")


def test_clouds_and_events_are_read_back_by_our_readers(tmp_path):
    points = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    events = Events(
        np.array([3, 239], np.uint16),
        np.array([0, 179], np.uint16),
        np.array([True, False]),
        np.array([STAMP, STAMP + 10_000]),
    )
    pack = EventPacker(240, 180)
    with BagWriter(tmp_path / "bag") as bag:
        bag.point_cloud("/points", STAMP, "lidar", points)
        bag.point_cloud("/points", STAMP + 1, "lidar", points[:0])
        bag.event_packet("/events", STAMP + 20_000, STAMP, "eye", pack(events))
        with pytest.raises(InputError, match="float64"):
            bag.point_cloud("/points", STAMP, "lidar", points.astype(float))
    with EventBag(tmp_path / "bag") as bag:
        (packet,) = bag.packets()
        assert (packet.stamp_ns, packet.frame_id) == (STAMP, "eye")
        found = EventStream().decode(packet.packet).events
        clouds = bag.points()
        cloud = next(clouds)
        with pytest.raises(PointsError) as error:
            next(clouds)
    assert error.value.reason == "empty_cloud"
    assert (cloud.stamp_ns, cloud.frame_id) == (STAMP, "lidar")
    assert np.array_equal(cloud.points.xyz, points)
    for name in ("x", "y", "polarity", "t_ns"):
        assert np.array_equal(getattr(found, name), getattr(events, name))
    assert {topic: stamp for topic, stamp, *_ in read(tmp_path / "bag")}[
        "/events"
    ] == STAMP + 20_000
