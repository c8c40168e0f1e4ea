# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.typesys import Stores, get_typestore

from spike_perception.bags.reader import BagReader
from spike_perception.bags.writer import BagWriter
from spike_perception.errors import InputError

IMAGES = [np.full((4, 6, 3), [k, 2 * k, 3 * k], np.uint8) for k in range(5)]


def ros2_bag(path: Path, storage: str) -> Path:
    with BagWriter(path, storage) as bag:
        for k, image in enumerate(IMAGES):
            stamp = 10**9 * (k + 1)
            bag.image("/camera/image_raw", stamp, "camera", image)
            encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
            bag.compressed_image("/other/compressed", stamp, "other", encoded, "png")
            bag.odometry("/odom", stamp, "odom", "base_link", (k, 2 * k, 0), (0, 0, 0, 1))
    return path


def ros1_bag(path: Path) -> Path:
    types = get_typestore(Stores.ROS1_NOETIC)
    with Writer1(path) as bag:
        name = "sensor_msgs/msg/Image"
        connection = bag.add_connection("/camera/image_raw", name, typestore=types)
        for k, image in enumerate(IMAGES):
            time = types.types["builtin_interfaces/msg/Time"](k + 1, 0)
            header = types.types["std_msgs/msg/Header"](k, time, "camera")
            message = types.types[name](header, 4, 6, "rgb8", 0, 18, image.reshape(-1))
            data = types.serialize_ros1(message, name)
            bag.write(connection, 10**9 * (k + 1), data)
    return path


@pytest.fixture(params=["mcap", "sqlite3", "ros1", "mcap file", "sqlite3 file"])
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "ros1":
        return ros1_bag(tmp_path / "run.bag")
    storage, _, kind = request.param.partition(" ")
    path = ros2_bag(tmp_path / "run", storage)
    return next(path.glob("*.mcap" if storage == "mcap" else "*.db3")) if kind else path


def test_images(bag: Path) -> None:
    with BagReader(bag) as reader:
        seen = list(reader.images("/camera/image_raw"))
    assert [each.stamp_ns for each in seen] == [10**9 * (k + 1) for k in range(5)]
    assert {each.frame_id for each in seen} == {"camera"}
    for each, image in zip(seen, IMAGES, strict=True):
        np.testing.assert_array_equal(each.image, image)


def test_texts_come_in_order(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        for k in range(3):
            writer.text("/said", 10 + k, f"{k}: é")
    with BagReader(tmp_path / "bag") as reader:
        assert list(reader.texts("/said")) == [f"{k}: é" for k in range(3)]
        assert list(reader.texts("/none")) == []


def test_a_topic_that_is_not_there_has_no_messages(bag: Path) -> None:
    with BagReader(bag) as reader:
        assert list(reader.messages("/none")) == []


def test_compressed_images_and_poses(tmp_path: Path) -> None:
    with BagReader(ros2_bag(tmp_path / "run", "mcap")) as reader:
        seen = list(reader.images("/other/compressed"))
        poses = list(reader.poses())
        assert reader.duration_ns >= 4 * 10**9
        assert reader.topics["/odom"] == "nav_msgs/msg/Odometry"
    np.testing.assert_array_equal(seen[3].image, IMAGES[3])
    np.testing.assert_array_equal([p.position for p in poses], [(k, 2 * k, 0) for k in range(5)])
    np.testing.assert_array_equal(poses[0].orientation, [0, 0, 0, 1])
    assert poses[0].frame_id == "odom"


def test_topics_are_listed_when_the_choice_is_open(tmp_path: Path) -> None:
    with BagReader(ros2_bag(tmp_path / "run", "mcap")) as reader:
        with pytest.raises(InputError, match="/camera/image_raw, /other/compressed") as caught:
            list(reader.images())
        assert caught.value.reason == "topic_ambiguous"
        with pytest.raises(InputError, match="/camera/image_raw") as caught:
            list(reader.images("/odom"))
        assert caught.value.reason == "topic_missing"
        with pytest.raises(InputError, match="/odom"):
            list(reader.poses("/none"))


def test_bags_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught, BagReader(tmp_path / "none"):
        pass
    assert caught.value.reason == "bag_missing"
    whole = next(ros2_bag(tmp_path / "run", "mcap").glob("*.mcap")).read_bytes()
    empty = tmp_path / "folder"
    empty.mkdir()
    for name, data in (("a.mcap", whole[:200]), ("b.bag", b"x"), ("c.db3", whole), ("d.txt", b"")):
        (tmp_path / name).write_bytes(data)
    for path in (empty, *(tmp_path / n for n in ("a.mcap", "b.bag", "c.db3", "d.txt"))):
        with pytest.raises(InputError) as caught, BagReader(path) as reader:
            list(reader.images())
        assert caught.value.reason == "bag_unreadable", path
        assert path.name in str(caught.value)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "run") as bag:
        bag.compressed_image("/c", 5, "camera", b"nothing", "jpeg")
    with (
        BagReader(tmp_path / "run") as reader,
        pytest.raises(InputError, match="/c, stamp 5") as caught,
    ):
        list(reader.images())
    assert caught.value.reason == "undecodable"


def cloud_bag(path: Path, width: int) -> Path:
    """A bag with one unorganised PointCloud2 of four points, the third of them NaN."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types, name = store.types, "sensor_msgs/msg/PointCloud2"
    xyz = np.arange(12, dtype="<f4").reshape(4, 3)
    xyz[2, 0] = np.nan
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](3, 4), "lidar")
    fields = [types["sensor_msgs/msg/PointField"](n, 4 * k, 7, 1) for k, n in enumerate("xyz")]
    data = xyz.view(np.uint8).ravel()
    message = types[name](header, 1, width, fields, False, 12, 12 * width, data, True)
    with BagWriter(path) as bag:
        bag.serialized("/points", 7, name, store.serialize_cdr(message, name))
    return path


def test_point_clouds(tmp_path: Path) -> None:
    with BagReader(cloud_bag(tmp_path / "run", 4)) as reader:
        (seen,) = reader.points()
    assert (seen.stamp_ns, seen.frame_id) == (3 * 10**9 + 4, "lidar")
    assert seen.points.dropped == 1
    np.testing.assert_array_equal(seen.points.xyz, [[0, 1, 2], [3, 4, 5], [9, 10, 11]])


def test_a_broken_cloud_is_named(tmp_path: Path) -> None:
    with (
        BagReader(cloud_bag(tmp_path / "run", 5)) as reader,
        pytest.raises(InputError, match="/points, stamp 3000000004") as caught,
    ):
        list(reader.points())
    assert caught.value.reason == "truncated_data"
