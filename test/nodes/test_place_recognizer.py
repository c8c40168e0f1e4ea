# SPDX-License-Identifier: Apache-2.0
"""The node as its users meet it: messages in, messages out, over real DDS."""

from __future__ import annotations

import sys
import threading
import time
import types
from array import array

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import Marker, MarkerArray

from spike_perception.nodes.place_recognizer import PlaceRecognizerNode
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception.places.descriptors import create_descriptor
from spike_perception.places.map import PlaceMap
from spike_perception_msgs.msg import MapInfo, PlaceMatch
from spike_perception_msgs.srv import GetMapInfo, RemovePlaces, SetMode

from .conftest import image_message, scene

OK, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PLACES = 40


def start(world, path, mode="both", **parameters):
    """A node that is active, with settings under which a few scenes decide."""
    settings = {
        "map__path": str(path),
        "map__mode": mode,
        "descriptor__name": "patch_norm",
        "image__reliability": "reliable",
        "sequence__length": 1,
        "decision__exclusion_s": 5.0,
        "keyframe__interval_s": 0.0,
    }
    node = world.start(PlaceRecognizerNode, **{**settings, **parameters})
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    return node


def drive(world, camera, answers, numbers):
    """Send scenes one by one, each after the answer to the one before."""
    for number in numbers:
        sent = camera.send(scene(number))
        assert world.spin_until(
            lambda: any(stamp_ns(a.header.stamp) == sent for a in answers)  # noqa: B023
        )
    return answers[-len(numbers) :]


@pytest.fixture
def mapped(tmp_path):
    """A map of many scenes with poses, closed."""
    path = tmp_path / "places.db"
    descriptor = create_descriptor("patch_norm")
    from spike_perception.places.types import Pose

    with PlaceMap.create(path, descriptor) as place_map:
        for number in range(PLACES):
            pose = Pose((float(number), 0.0, 0.0), frame_id="map")
            stamp = (number + 1) * 1_000_000_000
            place_map.add(descriptor.describe(scene(number)), stamp, "camera", pose, None)
    return path


def test_a_second_lap_is_recognised_with_the_pose_of_the_first(world, tmp_path):
    answers = world.collect(PlaceMatch, "/place_match")
    poses = world.collect(PoseStamped, "/place_match/pose")
    node = start(world, tmp_path / "map.db", pose__source="odometry", keyframe__distance_m=0.5)
    camera = world.camera(node)
    odometry = world.client.create_publisher(Odometry, "/odom", 10)
    world.connect(odometry)
    for lap in range(2):
        for number in range(PLACES):
            message = Odometry()
            message.header.frame_id = "odom"
            message.header.stamp = to_stamp(camera.stamp + 1_000_000_000)
            message.pose.pose.position.x = float(number)
            odometry.publish(message)
            world.spin(0.01)
            sent = camera.send(scene(number))
            assert world.spin_until(
                lambda: answers and stamp_ns(answers[-1].header.stamp) == sent  # noqa: B023
            ), f"lap {lap}, scene {number}"
    first, second = answers[:PLACES], answers[PLACES:]
    assert all(each.status == PlaceMatch.STATUS_NEW_PLACE for each in first[:3])
    assert not any(each.status == PlaceMatch.STATUS_MATCHED for each in first)
    matched = [each for each in second if each.status == PlaceMatch.STATUS_MATCHED]
    assert len(matched) >= PLACES - 2
    for each in matched:
        number = second.index(each)
        assert each.has_pose
        assert each.pose.pose.position.x == pytest.approx(number, abs=0.5)
        assert each.pose.header.frame_id == "odom"
        assert each.score >= each.threshold
        assert each.candidates[0].place_id == each.place_id
        assert each.header.frame_id == "camera"
        assert 0 < each.latency_ms < 1000
        assert len(each.weights_id) == 64
    assert world.spin_until(lambda: len(poses) == len(matched))


def test_localisation_knows_what_is_mapped_rejects_what_is_not_and_writes_nothing(world, mapped):
    before = (mapped.read_bytes(), mapped.stat().st_mtime_ns, sorted(mapped.parent.iterdir()))
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, mapped, "localisation")
    camera = world.camera(node)
    known = drive(world, camera, answers, list(range(PLACES)))
    unknown = drive(world, camera, answers, list(range(1000, 1020)))
    assert sum(each.status == PlaceMatch.STATUS_MATCHED for each in known) >= PLACES - 1
    rejections = {PlaceMatch.STATUS_BELOW_THRESHOLD, PlaceMatch.STATUS_AMBIGUOUS}
    assert {each.status for each in unknown} <= rejections
    assert all(each.place_id == -1 for each in unknown)
    node.trigger_deactivate()
    node.trigger_cleanup()
    after = (mapped.read_bytes(), mapped.stat().st_mtime_ns, sorted(mapped.parent.iterdir()))
    assert after == before


def test_ten_lifecycle_cycles_leave_a_working_node(world, tmp_path):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, tmp_path / "map.db")
    threads = threading.active_count()
    for _ in range(10):
        assert node.trigger_deactivate() == OK
        assert node.trigger_cleanup() == OK
        assert node.trigger_configure() == OK
        assert node.trigger_activate() == OK
    assert threading.active_count() == threads
    camera = world.camera(node)
    assert drive(world, camera, answers, [1])[0].status == PlaceMatch.STATUS_NEW_PLACE


def test_lifecycle_services_answer_and_a_second_configure_is_refused(world, tmp_path):
    node = world.start(PlaceRecognizerNode, map__path=str(tmp_path / "map.db"))
    name = "/place_recognizer"

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return world.call(ChangeState, f"{name}/change_state", request).success

    assert change(Transition.TRANSITION_CONFIGURE)
    assert not change(Transition.TRANSITION_CONFIGURE)
    assert change(Transition.TRANSITION_ACTIVATE)
    state = world.call(GetState, f"{name}/get_state", GetState.Request()).current_state
    assert state.id == State.PRIMARY_STATE_ACTIVE
    assert change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert node.health.drops() == {}


def test_deactivated_during_inference_it_finishes_and_falls_silent(world, tmp_path):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, tmp_path / "map.db")
    camera = world.camera(node)
    for number in range(20):
        camera.send(scene(number))
        world.executor.spin_once(timeout_sec=0.01)
    assert node.trigger_deactivate() == OK
    world.spin(0.2)
    count = len(answers)
    world.spin(0.3)
    assert len(answers) == count
    assert node.trigger_activate() == OK


BAD_IMAGES = {
    "zero_size": {"height": 0},
    "wrong_step": {"step": 10},
    "truncated_data": {"data": array("B", bytes(100))},
    "unknown_encoding": {"encoding": "klingon"},
}


def test_bad_images_are_counted_by_reason_and_the_node_goes_on(world, tmp_path):
    answers = world.collect(PlaceMatch, "/place_match")
    told = world.collect(DiagnosticArray, "/diagnostics")
    node = start(world, tmp_path / "map.db")
    camera = world.camera(node)
    for reason, fields in BAD_IMAGES.items():
        camera.send(scene(1), **fields)
        assert world.spin_until(lambda: node.health.drops().get(reason) == 1), reason  # noqa: B023
    good = drive(world, camera, answers, [2])
    assert good[0].status == PlaceMatch.STATUS_NEW_PLACE
    camera.send(scene(1), after_s=-0.2)
    assert world.spin_until(lambda: node.health.drops().get("stamp_out_of_order") == 1)
    message = image_message(scene(1), 0)
    camera._publisher.publish(message)
    assert world.spin_until(lambda: node.health.drops().get("zero_stamp", 0) >= 1)

    def reported() -> bool:
        values = {v.key for a in told for s in a.status for v in s.values}
        return {f"dropped {r}" for r in BAD_IMAGES} <= values

    assert world.spin_until(reported)
    drive(world, camera, answers, [3])


def test_every_usual_encoding_padding_and_a_changing_resolution_are_taken(world, tmp_path):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, tmp_path / "map.db", "mapping")
    camera = world.camera(node)
    image = scene(5)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    padded = np.zeros((120, 160 * 3 + 32), np.uint8)
    padded[:, : 160 * 3] = image.reshape(120, -1)
    variants = {
        "rgb8": (image, {}),
        "bgr8": (image[:, :, ::-1], {"encoding": "bgr8"}),
        "mono8": (image, {"encoding": "mono8", "step": 160, "data": array("B", grey.tobytes())}),
        "rgba8": (
            image,
            {
                "encoding": "rgba8",
                "step": 640,
                "data": array("B", cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).tobytes()),
            },
        ),
        "padded": (image, {"step": 512, "data": array("B", padded.tobytes())}),
        "larger": (scene(5, (480, 640)), {}),
    }
    for name, (picture, fields) in variants.items():
        sent = camera.send(picture, **fields)
        assert world.spin_until(
            lambda: answers and stamp_ns(answers[-1].header.stamp) == sent  # noqa: B023
        ), name
    assert node.health.drops() == {}
    assert len(answers) == len(variants)
    # All show the same scene, so all describe alike.
    with PlaceMap.open(tmp_path / "map.db", read_only=True) as place_map:
        vectors = np.stack([p.descriptor for batch in place_map.places() for p in batch])
    assert (vectors @ vectors[0]).min() > 0.98


def test_compressed_images_are_heard_on_their_own_topic(world, mapped):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, mapped, "localisation", image__transport="compressed")
    publisher = world.client.create_publisher(CompressedImage, "/camera/image_raw/compressed", 10)
    world.connect(publisher)
    _, jpeg = cv2.imencode(".jpg", scene(7)[:, :, ::-1])
    good = CompressedImage(format="jpeg", data=array("B", jpeg.tobytes()))
    good.header.stamp = to_stamp(5_000_000_000)
    bad = CompressedImage(format="jpeg", data=array("B", b"no image"))
    bad.header.stamp = to_stamp(4_000_000_000)
    publisher.publish(bad)
    assert world.spin_until(lambda: node.health.drops().get("undecodable") == 1)
    publisher.publish(good)
    assert world.spin_until(lambda: answers)
    assert answers[0].status == PlaceMatch.STATUS_MATCHED
    assert answers[0].pose.pose.position.x == 7.0


def test_nan_poses_are_counted_and_the_image_is_answered_without_pose(world, tmp_path):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, tmp_path / "map.db", pose__source="odometry")
    camera = world.camera(node)
    odometry = world.client.create_publisher(Odometry, "/odom", 10)
    world.connect(odometry)
    message = Odometry()
    message.header.stamp = to_stamp(camera.stamp + 1_000_000_000)
    message.pose.pose.position.x = float("nan")
    odometry.publish(message)
    assert world.spin_until(lambda: node.health.drops().get("invalid_pose") == 1)
    assert drive(world, camera, answers, [1])[0].status == PlaceMatch.STATUS_NEW_PLACE
    with PlaceMap.open(tmp_path / "map.db", read_only=True) as place_map:
        assert place_map.get(answers[0].place_id).pose is None


def test_no_images_is_told_as_stale_and_publishers_with_unfit_qos_as_such(world, tmp_path):
    told = world.collect(DiagnosticArray, "/diagnostics")
    start(world, tmp_path / "map.db", image__stale_after_s=0.2)

    def level(wanted: bytes, text: str) -> bool:
        return any(s.level == wanted and text in s.message for a in told for s in a.status)

    assert world.spin_until(lambda: level(DiagnosticStatus.STALE, "no input yet"))
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    world.client.create_publisher(Image, "/camera/image_raw", best_effort)
    assert world.spin_until(
        lambda: any(
            v.key == "dropped incompatible_qos" for a in told for s in a.status for v in s.values
        )
    )


def configure_result(world, path, **parameters):
    settings = {"map__path": str(path), "descriptor__name": "patch_norm", **parameters}
    node = world.start(PlaceRecognizerNode, **settings)
    return node, node.trigger_configure()


def test_a_missing_map_fails_configure_in_localisation_and_can_be_retried(world, tmp_path, mapped):
    node, result = configure_result(world, tmp_path / "none.db", map__mode="localisation")
    assert result == FAILURE
    assert node.set_parameters([Parameter("map.path", value=str(mapped))])[0].successful
    assert node.trigger_configure() == OK


def test_a_truncated_map_is_kept_aside_and_never_written_over(world, mapped):
    whole = mapped.read_bytes()
    half = whole[: len(whole) // 2]
    mapped.write_bytes(half)
    _, result = configure_result(world, mapped)
    assert result == FAILURE
    kept = [p for p in mapped.parent.iterdir() if ".corrupt" in p.name]
    assert [p.read_bytes() for p in kept] == [half]
    assert not mapped.exists()


def test_a_map_of_other_weights_is_refused(world, tmp_path):
    path = tmp_path / "bits.db"
    PlaceMap.create(path, create_descriptor("patch_norm_bits")).close()
    before = path.read_bytes()
    _, result = configure_result(world, path)
    assert result == FAILURE
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_fails_configure(world, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    _, result = configure_result(world, blocked / "map.db")
    assert result == FAILURE


def test_two_nodes_on_one_map_the_second_is_refused_but_may_read(world, tmp_path, mapped):
    start(world, mapped)
    _, result = configure_result(world, mapped)
    assert result == FAILURE
    _, result = configure_result(world, mapped, map__mode="localisation")
    assert result == OK


def test_unknown_descriptor_and_empty_path_fail_configure(world, tmp_path):
    assert configure_result(world, tmp_path / "a.db", descriptor__name="nothing")[1] == FAILURE
    assert configure_result(world, "")[1] == FAILURE


def test_tf_poses_without_tf2_say_what_to_install(world, tmp_path):
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        _, result = configure_result(world, tmp_path / "a.db", pose__source="tf")
        assert result == FAILURE
    else:
        pytest.skip("tf2_ros is installed here")


def test_services_change_the_mode_remove_places_and_tell_of_the_map(world, mapped):
    answers = world.collect(PlaceMatch, "/place_match")
    infos = world.collect(MapInfo, "/place_recognizer/map_info", LATCHED)
    markers = world.collect(MarkerArray, "/place_recognizer/place_markers", LATCHED)
    node = start(world, mapped, "localisation")
    camera = world.camera(node)
    name = "/place_recognizer"
    info = world.call(GetMapInfo, f"{name}/get_map_info", GetMapInfo.Request()).info
    assert (info.places, info.mode, info.descriptor) == (PLACES, "localisation", "patch_norm")

    def remove(ids):
        return world.call(
            RemovePlaces, f"{name}/remove_places", RemovePlaces.Request(place_ids=ids)
        )

    assert remove([1]).result == RemovePlaces.Response.RESULT_MAP_NOT_WRITABLE
    bad = world.call(SetMode, f"{name}/set_mode", SetMode.Request(mode="fly"))
    assert bad.result == SetMode.Response.RESULT_UNKNOWN_MODE
    assert "mapping, localisation, both" in bad.message
    good = world.call(SetMode, f"{name}/set_mode", SetMode.Request(mode="both"))
    assert good.result == SetMode.Response.RESULT_OK, good.message
    removed = remove([8])
    assert (removed.result, removed.removed) == (RemovePlaces.Response.RESULT_OK, 1)
    assert drive(world, camera, answers, [7])[0].status == PlaceMatch.STATUS_NEW_PLACE
    assert answers[-1].place_id == PLACES + 1
    assert world.spin_until(lambda: any(i.places == PLACES for i in infos))
    assert world.spin_until(lambda: any(m.points for a in markers for m in a.markers))
    idle = world.start(PlaceRecognizerNode, map__path=str(mapped))
    idle.destroy_node()
    world._nodes.remove(idle)


def test_a_bag_that_starts_again_is_no_stream_of_old_stamps(world, mapped):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, mapped, "localisation")
    camera = world.camera(node)
    drive(world, camera, answers, [1, 2, 3])
    camera.stamp = 1_000_000_000
    assert drive(world, camera, answers, [1])[0].status == PlaceMatch.STATUS_MATCHED
    assert node.health.drops() == {}


def test_a_clock_that_jumps_back_starts_afresh(world, mapped):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, mapped, "localisation", sequence__length=3, use_sim_time=True)
    camera = world.camera(node)
    clock = world.client.create_publisher(Clock, "/clock", 10)
    world.connect(clock)
    clock.publish(Clock(clock=to_stamp(100_000_000_000)))
    assert world.spin_until(lambda: node.get_clock().now().nanoseconds == 100_000_000_000)
    filled = drive(world, camera, answers, [1, 2, 3])
    assert filled[0].status == PlaceMatch.STATUS_WARMING_UP
    assert filled[-1].status != PlaceMatch.STATUS_WARMING_UP
    clock.publish(Clock(clock=to_stamp(50_000_000_000)))
    assert world.spin_until(lambda: node.get_clock().now().nanoseconds == 50_000_000_000)
    assert drive(world, camera, answers, [4])[0].status == PlaceMatch.STATUS_WARMING_UP


def test_settings_change_while_it_runs_and_fixed_ones_do_not(world, mapped):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, mapped, "localisation")
    camera = world.camera(node)
    assert drive(world, camera, answers, [1])[0].status == PlaceMatch.STATUS_MATCHED
    assert node.set_parameters([Parameter("decision.threshold", value=999.0)])[0].successful
    assert drive(world, camera, answers, [2])[0].status == PlaceMatch.STATUS_BELOW_THRESHOLD
    assert not node.set_parameters([Parameter("map.path", value="other.db")])[0].successful


def test_overload_drops_old_frames_and_counts_them(world, mapped, monkeypatch):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, mapped, "localisation")
    camera = world.camera(node)
    describe = node._engine.descriptor.describe

    def slowly(image):
        time.sleep(0.05)
        return describe(image)

    monkeypatch.setattr(node._engine.descriptor, "describe", slowly)
    for number in range(30):
        camera.send(scene(number))
        world.spin(0.01)
    assert world.spin_until(lambda: stamp_ns(answers[-1].header.stamp) == camera.stamp)
    dropped = node.health.drops()["overload"]
    assert dropped > 0
    assert dropped + len(answers) == 30


def test_the_mode_set_by_service_outlives_a_change_of_another_parameter(world, tmp_path):
    node = start(world, tmp_path / "map.db")
    request = SetMode.Request(mode="localisation")
    assert world.call(SetMode, "/place_recognizer/set_mode", request).result == 0
    assert node.get_parameter("map.mode").value == "localisation"
    assert node.set_parameters([Parameter("decision.threshold", value=5.0)])[0].successful
    info = world.call(GetMapInfo, "/place_recognizer/get_map_info", GetMapInfo.Request()).info
    assert info.mode == "localisation"


def test_a_mode_that_cannot_be_had_is_not_left_in_the_parameter(world, mapped):
    node = start(world, mapped, "localisation")
    with PlaceMap.open(mapped, create_descriptor("patch_norm")):  # somebody else writes
        node.set_parameters([Parameter("map.mode", value="both")])
        assert node.get_parameter("map.mode").value == "localisation"
    assert node.set_parameters([Parameter("decision.threshold", value=5.0)])[0].successful
    info = world.call(GetMapInfo, "/place_recognizer/get_map_info", GetMapInfo.Request()).info
    assert info.mode == "localisation"


def test_deactivate_does_not_wait_for_odometry_that_will_not_come(world, tmp_path):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, tmp_path / "map.db", pose__source="odometry", pose__wait_s=5.0)
    camera = world.camera(node)
    camera.send(scene(1))
    world.spin(0.5)
    assert not answers
    began = time.monotonic()
    assert node.trigger_deactivate() == OK
    assert time.monotonic() - began < 2.0


def test_patience_for_poses_changes_while_it_runs(world, tmp_path):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, tmp_path / "map.db", pose__source="odometry", pose__wait_s=5.0)
    assert node.set_parameters([Parameter("pose.wait_s", value=0.0)])[0].successful
    camera = world.camera(node)
    camera.send(scene(1))
    assert world.spin_until(lambda: answers, 2.0)


def test_an_image_without_stamp_does_not_break_the_sequence(world, mapped):
    answers = world.collect(PlaceMatch, "/place_match")
    node = start(world, mapped, "localisation", sequence__length=3)
    camera = world.camera(node)
    drive(world, camera, answers, [1, 2, 3, 4])
    camera._publisher.publish(image_message(scene(5), 0))
    assert world.spin_until(lambda: node.health.drops().get("zero_stamp") == 1)
    assert drive(world, camera, answers, [5])[0].status != PlaceMatch.STATUS_WARMING_UP


def test_a_map_file_that_goes_away_does_not_end_the_node(world, mapped):
    node = start(world, mapped, "localisation")
    mapped.unlink()
    mapped.with_name(mapped.name + "-lock").unlink(missing_ok=True)
    node._publish_map()
    info = world.call(GetMapInfo, "/place_recognizer/get_map_info", GetMapInfo.Request()).info
    assert info.places == PLACES


def test_markers_of_removed_places_are_taken_away(world, mapped):
    shown = world.collect(MarkerArray, "/place_recognizer/place_markers", LATCHED)
    start(world, mapped)
    assert world.spin_until(lambda: shown)
    everything = RemovePlaces.Request(place_ids=list(range(1, PLACES + 1)))
    world.call(RemovePlaces, "/place_recognizer/remove_places", everything)
    before = len(shown)
    assert world.spin_until(lambda: len(shown) > before)
    assert [marker.action for marker in shown[-1].markers] == [Marker.DELETEALL]


def test_tf_is_let_go_when_the_node_is_cleaned_up(world, tmp_path, monkeypatch):
    """With the surface of tf2_ros that the node uses, for the wheels do not bring it."""
    listening = []

    class Listener:
        def __init__(self, buffer, node):
            listening.append(self)

        def unregister(self):
            listening.remove(self)

    tf2_ros = types.ModuleType("tf2_ros")
    tf2_ros.TransformException = RuntimeError
    tf2_ros.Buffer = lambda: types.SimpleNamespace(clear=lambda: None)
    tf2_ros.TransformListener = Listener
    monkeypatch.setitem(sys.modules, "tf2_ros", tf2_ros)
    node = start(world, tmp_path / "map.db", pose__source="tf")
    assert len(listening) == 1
    camera = world.camera(node)
    camera._publisher.publish(image_message(scene(1), -1))
    assert world.spin_until(lambda: node.health.drops())
    assert node.health.drops() == {"zero_stamp": 1}
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert listening == []
    assert node.set_parameters([Parameter("map.path", value=str(tmp_path / "none" / "\0"))])
    assert node.trigger_configure() == FAILURE
    assert listening == []


def test_an_unforeseen_error_while_opening_leaves_the_map_free(world, tmp_path, monkeypatch):
    node = world.start(PlaceRecognizerNode, map__path=str(tmp_path / "map.db"))
    with monkeypatch.context() as patch:
        name = "spike_perception.nodes.place_recognizer.PlaceRecognizer"
        patch.setattr(name, lambda *_: 1 / 0)
        assert node.trigger_configure() == FAILURE
    assert node.trigger_configure() == OK
