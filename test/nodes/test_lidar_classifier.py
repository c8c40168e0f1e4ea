# SPDX-License-Identifier: Apache-2.0
"""The node as its users meet it: point clouds in, named objects out, over real DDS."""

from __future__ import annotations

import sys
import types
from array import array

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2, PointField
from visualization_msgs.msg import Marker, MarkerArray

from spike_perception.nodes.clouds import cloud_message
from spike_perception.nodes.lidar_classifier import LidarClassifierNode
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception_msgs.msg import ObjectClass, Vocabulary
from spike_perception_msgs.srv import SetVocabulary

OK, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
NAME = "/lidar_classifier"
FLOAT32, FLOAT64, INT16 = PointField.FLOAT32, PointField.FLOAT64, PointField.INT16


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def create(world, files, **parameters):
    """A node that is not configured yet."""
    settings = {
        "model__bundle": str(files.bundle),
        "vocabulary__pack": str(files.pack),
        "vocabulary__bank": str(files.bank),
        "points__reliability": "reliable",
    }
    return world.start(LidarClassifierNode, **{**settings, **parameters})


def start(world, files, **parameters):
    """A node that is active."""
    node = create(world, files, **parameters)
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    return node


def fields_of(names: str, datatype: int, size: int) -> list[PointField]:
    return [
        PointField(name=name, offset=k * size, datatype=datatype, count=1)
        for k, name in enumerate(names)
    ]


def cloud(xyz: np.ndarray, **changes: object) -> PointCloud2:
    """An unorganised cloud of float32 x, y, z; ``changes`` spoil it."""
    message = cloud_message(xyz)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


class Lidar:
    """Publishes clouds with rising stamps."""

    def __init__(self, world, topic: str = "/lidar/points") -> None:
        self._publisher = world.client.create_publisher(PointCloud2, topic, 10)
        world.connect(self._publisher)
        self.stamp = 1_000_000_000

    def send(self, message: PointCloud2, *, after_s: float = 0.1) -> int:
        self.stamp += int(after_s * 1e9)
        message.header.stamp = to_stamp(self.stamp)
        self._publisher.publish(message)
        return self.stamp


def ask(world, lidar, answers, message) -> list[ObjectClass]:
    """Send one cloud and wait for all its objects."""
    sent = lidar.send(message)

    def told() -> list[ObjectClass]:
        return [each for each in answers if stamp_ns(each.header.stamp) == sent]

    assert world.spin_until(lambda: told() and len(told()) == told()[0].object_count, 30.0)
    return told()


def names(told) -> list[str]:
    return ["" if each.unknown else each.hypotheses[0].name for each in told]


def test_every_object_is_told_with_its_box_and_those_of_no_word_as_unknown(
    world, lidar_files, scan_of
):
    answers = world.collect(ObjectClass, "/object_class")
    shown = world.collect(Vocabulary, f"{NAME}/vocabulary", LATCHED)
    node = start(world, lidar_files)
    told = ask(world, Lidar(world), answers, cloud(scan_of(0, 1, 2, 3, 4)))
    assert names(told) == ["cyclist", "pedestrian", "car", "", "truck"]
    assert [each.object_index for each in told] == [0, 1, 2, 3, 4]
    assert {each.object_count for each in told} == {5}
    for each in told:
        assert (each.source, each.header.frame_id, each.has_box) == ("lidar", "lidar", True)
        assert each.unknown == (each.known_score < each.known_threshold)
        assert each.latency_ms > 0
        assert each.vocabulary_id == shown[0].vocabulary_id
    car = told[2]
    centre, size, turn = car.box_center.position, car.box_size, car.box_center.orientation
    assert (size.x, size.y, size.z) == pytest.approx((4.2, 1.8, 1.5), abs=0.02)
    assert (centre.x, centre.y, centre.z) == pytest.approx((8.0, 0.0, -0.65), abs=0.02)
    assert (turn.x, turn.y, turn.w) == pytest.approx((0.0, 0.0, 1.0), abs=0.02)
    assert node.health.drops() == {}


def layouts(xyz: np.ndarray) -> dict[str, PointCloud2]:
    """The same points as other drivers lay them out."""
    rows, width = len(xyz), 100
    columns = rows // width
    organised = np.full((columns + 1, width, 4), np.nan, "<f4")
    organised.reshape(-1, 4)[:rows, :3] = xyz
    padded = np.zeros((columns + 1, width * 16 + 24), np.uint8)
    padded[:, : width * 16] = organised.view(np.uint8).reshape(columns + 1, -1)
    mixed = np.zeros(rows, [("i", "<u2"), ("z", "<f4"), ("y", "<f4"), ("x", "<f4"), ("t", "<f8")])
    for axis, name in enumerate("xyz"):
        mixed[name] = xyz[:, axis]
    places = [("intensity", 0, 4), ("z", 2, 7), ("y", 6, 7), ("x", 10, 7), ("t", 14, 8)]
    mixed_fields = [PointField(name=n, offset=o, datatype=d, count=1) for n, o, d in places]
    return {
        "big-endian float64": cloud(
            xyz,
            fields=fields_of("xyz", FLOAT64, 8),
            is_bigendian=True,
            point_step=24,
            row_step=24 * rows,
            data=array("B", xyz.astype(">f8").tobytes()),
        ),
        "organised, NaN where nothing came back, padded rows": cloud(
            xyz,
            height=columns + 1,
            width=width,
            point_step=16,
            row_step=padded.shape[1],
            data=array("B", padded.tobytes()),
        ),
        "other fields between, another order": cloud(
            xyz,
            fields=mixed_fields,
            point_step=mixed.itemsize,
            row_step=mixed.nbytes,
            data=array("B", mixed.tobytes()),
        ),
    }


def test_clouds_of_any_layout_give_the_same_answers(world, lidar_files, scan_of):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, lidar_files)
    lidar = Lidar(world)
    xyz = scan_of(0, 1)
    for layout, message in layouts(xyz).items():
        assert names(ask(world, lidar, answers, message)) == ["pedestrian", "car"], layout
    assert node.health.drops() == {}


def test_clouds_that_cannot_be_used_are_counted_by_reason_and_the_next_one_is_answered(
    world, lidar_files, scan_of
):
    answers = world.collect(ObjectClass, "/object_class")
    told = world.collect(DiagnosticArray, "/diagnostics")
    node = start(world, lidar_files)
    lidar = Lidar(world)
    xyz = scan_of(0)
    million = np.zeros((1_000_000, 3), np.float32)
    bad = {
        "empty_cloud": cloud(xyz, height=0, width=0, row_step=0, data=array("B")),
        "no_finite_point": cloud(np.full((50, 3), np.nan)),
        "wrong_step": cloud(xyz, row_step=12),
        "truncated_data": cloud(xyz, data=array("B", bytes(100))),
        "missing_field": cloud(xyz, fields=fields_of("xy", FLOAT32, 4)),
        "unknown_type": cloud(xyz, fields=fields_of("xyz", INT16, 2)),
        "bad_field": cloud(xyz, fields=fields_of("xyz", FLOAT64, 8)),
        "too_large": cloud(million),
    }
    for reason, message in bad.items():
        lidar.send(message)
        assert world.spin_until(lambda: node.health.drops().get(reason) == 1), reason  # noqa: B023
        assert names(ask(world, lidar, answers, cloud(xyz))) == ["car"], reason
    message = cloud(xyz)
    lidar._publisher.publish(message)
    assert world.spin_until(lambda: node.health.drops().get("zero_stamp") == 1)
    assert node.health.drops() == dict.fromkeys([*bad, "zero_stamp"], 1)

    def diagnosed() -> dict[str, str]:
        inputs = [s for a in told for s in a.status if s.name == "lidar_classifier: input"]
        return {each.key: each.value for each in inputs[-1].values} if inputs else {}

    for reason in node.health.drops():
        assert world.spin_until(lambda: diagnosed().get(f"dropped {reason}") == "1")  # noqa: B023


def test_a_million_points_are_searched_where_they_are_allowed(world, lidar_files, scan_of):
    answers = world.collect(ObjectClass, "/object_class")
    start(world, lidar_files, points__max_points=2_000_000)
    xyz = scan_of(0)
    flat = np.random.default_rng(0).uniform(-60, 60, (1_000_000 - len(xyz), 3))
    flat[:, 2] = -1.7
    (car,) = ask(world, Lidar(world), answers, cloud(np.concatenate([xyz, flat])))
    assert car.box_size.x == pytest.approx(4.2, abs=0.02)
    assert car.latency_ms < 20_000


def test_words_change_and_a_refused_change_says_why(world, lidar_files, scan_of):
    answers = world.collect(ObjectClass, "/object_class")
    start(world, lidar_files)
    lidar = Lidar(world)

    def change(**request):
        return world.call(SetVocabulary, f"{NAME}/set_vocabulary", SetVocabulary.Request(**request))

    done = change(names=["truck", "auto"])
    assert done.result == SetVocabulary.Response.RESULT_OK
    (told,) = ask(world, lidar, answers, cloud(scan_of(0)))
    assert (names([told]), told.vocabulary_id) == (["auto"], done.vocabulary_id)
    refused = change(names=["unicorn"])
    assert refused.result == SetVocabulary.Response.RESULT_UNKNOWN_NAME
    assert "unicorn" in refused.message
    assert names(ask(world, lidar, answers, cloud(scan_of(0)))) == ["auto"]


def test_settings_change_while_it_runs_and_objects_left_out_are_diagnosed(
    world, lidar_files, scan_of
):
    answers = world.collect(ObjectClass, "/object_class")
    told = world.collect(DiagnosticArray, "/diagnostics")
    node = start(world, lidar_files)
    lidar = Lidar(world)
    assert len(ask(world, lidar, answers, cloud(scan_of(0, 1)))) == 2
    assert node.set_parameters([Parameter("objects.most", value=1)])[0].successful
    assert names(ask(world, lidar, answers, cloud(scan_of(0, 1)))) == ["pedestrian"]
    assert node.set_parameters([Parameter("clusters.min_length", value=1.0)])[0].successful
    assert names(ask(world, lidar, answers, cloud(scan_of(0, 1)))) == ["car"]
    assert not node.set_parameters([Parameter("points.topic", value="x")])[0].successful

    def objects() -> dict[str, str]:
        found = [s for a in told for s in a.status if s.name == "lidar_classifier: objects"]
        return {each.key: each.value for each in found[-1].values} if found else {}

    assert world.spin_until(lambda: objects().get("scans") == "3")
    assert (objects()["objects named"], objects()["objects left out"]) == ("4", "1")


def test_lifecycle_cycles_and_files_that_cannot_be_used(world, lidar_files, scan_of, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = create(world, lidar_files)
    for name, value in (
        ("model.bundle", "no-such-name"),
        ("model.bundle", str(camera_files.bundle)),
        ("vocabulary.pack", str(camera_files.pack)),
        ("vocabulary.names", "unicorn"),
    ):
        before = node.get_parameter(name).value
        node.set_parameters([Parameter(name, value=value)])
        assert node.trigger_configure() == FAILURE, (name, value)
        node.set_parameters([Parameter(name, value=before)])
    for _ in range(3):
        assert node.trigger_configure() == OK
        assert node.trigger_activate() == OK
        assert node.trigger_deactivate() == OK
        assert node.trigger_cleanup() == OK
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    assert names(ask(world, Lidar(world), answers, cloud(scan_of(2)))) == ["cyclist"]


def test_boxes_and_labels_are_drawn_for_those_who_look(world, lidar_files, scan_of):
    answers = world.collect(ObjectClass, "/object_class")
    drawn = world.collect(MarkerArray, f"{NAME}/markers")
    node = start(world, lidar_files)
    lidar = Lidar(world)
    assert world.spin_until(node._markers.get_subscription_count)
    (car, other) = ask(world, lidar, answers, cloud(scan_of(0, 4)))
    assert world.spin_until(lambda: drawn)
    clear, *markers = drawn[0].markers
    assert clear.action == Marker.DELETEALL
    boxes = [each for each in markers if each.type == Marker.CUBE]
    labels = [each for each in markers if each.type == Marker.TEXT_VIEW_FACING]
    assert [each.pose for each in boxes] == [car.box_center, other.box_center]
    assert boxes[0].scale == car.box_size
    assert [each.text for each in labels] == [f"car {car.hypotheses[0].score:.2f}", "unknown"]
    assert boxes[0].color != boxes[1].color
    assert {each.header.frame_id for each in markers} == {"lidar"}


def test_a_fixed_frame_needs_tf2(world, lidar_files, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    assert create(world, lidar_files, boxes__fixed_frame="map").trigger_configure() == FAILURE


def test_boxes_are_given_in_a_fixed_frame_where_tf_knows_it(
    world, lidar_files, scan_of, monkeypatch
):
    """With the surface of tf2_ros that the node uses, for the wheels do not bring it."""
    fields = types.SimpleNamespace
    listening, known_until = [], 1_250_000_000

    class Listener:
        def __init__(self, buffer, node):
            listening.append(self)

        def unregister(self):
            listening.remove(self)

    def lookup(target, source, stamp, timeout):
        assert (target, source, timeout.nanoseconds) == ("map", "lidar", 50_000_000)
        if stamp.nanoseconds > known_until:
            raise RuntimeError("extrapolation into the future")
        # A quarter turn to the left, ten metres to the front.
        turn = fields(x=0.0, y=0.0, z=np.sqrt(0.5), w=np.sqrt(0.5))
        return fields(transform=fields(translation=fields(x=10.0, y=0.0, z=2.0), rotation=turn))

    tf2_ros = types.ModuleType("tf2_ros")
    tf2_ros.TransformException = RuntimeError
    tf2_ros.Buffer = lambda: fields(clear=lambda: None, lookup_transform=lookup)
    tf2_ros.TransformListener = Listener
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_ros)
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, lidar_files, boxes__fixed_frame="map", boxes__wait_s=0.05)
    lidar = Lidar(world)
    (car,) = ask(world, lidar, answers, cloud(scan_of(0)))
    assert car.header.frame_id == "map"
    centre, turn = car.box_center.position, car.box_center.orientation
    assert (centre.x, centre.y, centre.z) == pytest.approx((10.0, 8.0, 1.35), abs=0.02)
    assert abs(turn.z) == pytest.approx(np.sqrt(0.5), abs=0.02)
    lidar.send(cloud(scan_of(0)), after_s=10.0)
    assert world.spin_until(lambda: node.health.drops() == {"no_transform": 1})
    # Back at once where tf knows it: the refused scan was the last of its run all the same.
    lidar.stamp = 1_100_000_000
    assert len(ask(world, lidar, answers, cloud(scan_of(0)))) == 1
    assert node.health.drops() == {"no_transform": 1}
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert listening == []


def test_the_defaults_are_shipped_or_configure_says_what_is_missing(world):
    from spike_perception.deploy.shipped import MODELS, VOCABULARIES, shipped_file
    from spike_perception.errors import InputError

    node = world.start(LidarClassifierNode)
    try:
        shipped_file(node.get_parameter("model.bundle").value, MODELS)
        shipped_file(node.get_parameter("vocabulary.pack").value, VOCABULARIES)
    except InputError:
        assert node.trigger_configure() == FAILURE
    else:
        assert node.trigger_configure() == OK
