# SPDX-License-Identifier: Apache-2.0
"""The node as its users meet it: images in, names out, over real DDS."""

from __future__ import annotations

import dataclasses
import sys
import threading
import types
from array import array
from itertools import pairwise

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from spike_perception.deploy.shipped import shipped_file
from spike_perception.errors import InputError
from spike_perception.nodes import class_messages
from spike_perception.nodes.camera_classifier import CameraClassifierNode
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception.zero_shot.classifier import Answer
from spike_perception.zero_shot.head import Decision, Hypothesis
from spike_perception_msgs.msg import ObjectClass, Vocabulary
from spike_perception_msgs.srv import SetVocabulary

from .conftest import image_message, scene

OK, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
NAME = "/camera_classifier"
SET = f"{NAME}/set_vocabulary"
Result = SetVocabulary.Response


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def create(world, files, **parameters):
    """A node that is not configured yet."""
    settings = {
        "model__bundle": str(files.bundle),
        "vocabulary__pack": str(files.pack),
        "vocabulary__bank": str(files.bank),
        "image__reliability": "reliable",
    }
    return world.start(CameraClassifierNode, **{**settings, **parameters})


def start(world, files, **parameters):
    """A node that is active."""
    node = create(world, files, **parameters)
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    return node


def ask(world, camera, answers, numbers, **fields):
    """Send scenes one by one, each after the answer to the one before."""
    for number in numbers:
        sent = camera.send(scene(number), **fields)
        assert world.spin_until(
            lambda: any(stamp_ns(a.header.stamp) == sent for a in answers)  # noqa: B023
        )
    return answers[-len(numbers) :]


def change(world, **request):
    return world.call(SetVocabulary, SET, SetVocabulary.Request(**request))


def best(answer) -> str:
    return "" if answer.unknown else answer.hypotheses[0].name


def test_what_is_known_is_named_and_what_is_not_is_said_to_be_unknown(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files)
    camera = world.camera(node)
    known = ask(world, camera, answers, range(6))
    unknown = ask(world, camera, answers, range(20, 26))
    assert tuple(map(best, known)) == camera_files.words
    assert all(each.unknown and each.known_score < each.known_threshold for each in unknown)
    shown = world.collect(Vocabulary, f"{NAME}/vocabulary", LATCHED)
    assert world.spin_until(lambda: shown)
    assert (tuple(shown[0].names), shown[0].origin) == (camera_files.words, str(camera_files.pack))
    assert (shown[0].unknown_method, shown[0].generation) == ("max_logit", 0)
    assert list(shown[0].parents) == [-1] * 6
    for each in [*known, *unknown]:
        assert (each.source, each.header.frame_id, each.has_box) == ("camera", "camera", False)
        assert (each.object_index, each.object_count) == (0, 1)
        assert len(each.hypotheses) == 5
        scores = [h.score for h in each.hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert 0 <= scores[-1] <= scores[0] <= 1
        assert 0 < each.latency_ms < 1000
        assert each.vocabulary_id == shown[0].vocabulary_id
        assert each.weights_id == shown[0].weights_id
        assert len(each.vocabulary_id) == len(each.weights_id) == 64


def test_ten_lifecycle_cycles_leave_a_working_node(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files)
    threads = threading.active_count()
    for _ in range(10):
        assert node.trigger_deactivate() == OK
        assert node.trigger_cleanup() == OK
        assert node.trigger_configure() == OK
        assert node.trigger_activate() == OK
    assert threading.active_count() == threads
    camera = world.camera(node)
    assert best(ask(world, camera, answers, [2])[0]) == "person"


def test_lifecycle_services_answer_and_nothing_is_said_while_inactive(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = create(world, camera_files)

    def transition(number: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=number))
        return world.call(ChangeState, f"{NAME}/change_state", request).success

    assert transition(Transition.TRANSITION_CONFIGURE)
    assert not transition(Transition.TRANSITION_CONFIGURE)
    assert transition(Transition.TRANSITION_ACTIVATE)
    camera = world.camera(node)
    ask(world, camera, answers, [1])
    assert transition(Transition.TRANSITION_DEACTIVATE)
    camera.send(scene(1))
    world.spin(0.2)
    assert len(answers) == 1
    assert transition(Transition.TRANSITION_INACTIVE_SHUTDOWN)
    state = world.call(GetState, f"{NAME}/get_state", GetState.Request()).current_state
    assert state.id == State.PRIMARY_STATE_FINALIZED
    assert node.health.drops() == {}


def test_images_that_cannot_be_used_are_counted_by_reason_and_the_next_one_is_answered(
    world, camera_files
):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files)
    camera = world.camera(node)
    bad = {
        "zero_size": {"height": 0, "width": 0, "step": 0, "data": array("B")},
        "wrong_step": {"step": 3},
        "truncated_data": {"data": array("B", bytes(7))},
        "unknown_encoding": {"encoding": "plaid8"},
        "too_large": {"height": 1 << 20, "width": 1 << 20, "step": 3 << 20},
    }
    for number, (reason, fields) in enumerate(bad.items()):
        camera.send(scene(number), **fields)
        assert world.spin_until(lambda: node.health.drops().get(reason) == 1), reason  # noqa: B023
        assert best(ask(world, camera, answers, [number])[0]) == camera_files.words[number]
    camera._publisher.publish(image_message(scene(1), 0))
    assert world.spin_until(lambda: node.health.drops().get("zero_stamp") == 1)
    camera.stamp -= int(1.5e9)
    camera.send(scene(1))  # half a second before the last
    assert world.spin_until(lambda: node.health.drops().get("stamp_out_of_order") == 1)
    assert node.health.drops() == dict.fromkeys([*bad, "zero_stamp", "stamp_out_of_order"], 1)
    assert len(answers) == len(bad)


def test_size_and_encoding_may_change_from_image_to_image(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files)
    camera = world.camera(node)
    grey = np.ascontiguousarray(scene(3)[..., 0])
    variants = [
        (scene(3), {}),
        (scene(3, (480, 640)), {}),
        (scene(3, (60, 80)), {}),
        (scene(3)[:, :, ::-1], {"encoding": "bgr8"}),
        (scene(3), {"encoding": "mono8", "step": 160, "data": array("B", grey.tobytes())}),
        (scene(3, (240, 320)), {}),
    ]
    for picture, fields in variants:
        sent = camera.send(picture, **fields)
        assert world.spin_until(
            lambda: answers and stamp_ns(answers[-1].header.stamp) == sent  # noqa: B023
        )
    assert [best(each) for each in answers] == ["mug"] * len(variants)
    assert node.health.drops() == {}


def test_compressed_images_are_heard_on_their_own_topic(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files, image__transport="compressed")
    publisher = world.client.create_publisher(CompressedImage, "/camera/image_raw/compressed", 10)
    world.connect(publisher)
    _, png = cv2.imencode(".png", scene(4)[:, :, ::-1])

    def send(stamp: int, data: bytes) -> None:
        message = CompressedImage(format="png", data=array("B", data))
        message.header.stamp = to_stamp(stamp * 1_000_000_000)
        publisher.publish(message)

    # One after the other: of two that wait, the node takes the newer.
    send(4, b"no image")
    assert world.spin_until(lambda: node.health.drops() == {"undecodable": 1})
    send(5, png.tobytes())
    assert world.spin_until(lambda: answers)
    assert best(answers[0]) == "dog"


def test_a_bag_that_starts_again_begins_a_new_stream(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files, smoothing__time_constant_s=1000.0)
    camera = world.camera(node)
    assert [best(each) for each in ask(world, camera, answers, [0, 1])] == ["chair"] * 2
    camera.stamp = 500_000_000  # 1.5 s before the last, once 1 s is added
    # Nothing of the first run is averaged in.
    assert [best(each) for each in ask(world, camera, answers, [1])] == ["table"]
    assert node.health.drops() == {}


def test_a_clock_that_jumps_back_begins_a_new_stream(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files, smoothing__time_constant_s=1000.0, use_sim_time=True)
    camera = world.camera(node)
    clock = world.client.create_publisher(Clock, "/clock", 10)
    world.connect(clock)
    clock.publish(Clock(clock=to_stamp(100_000_000_000)))
    assert world.spin_until(lambda: node.get_clock().now().nanoseconds == 100_000_000_000)
    assert [best(each) for each in ask(world, camera, answers, [0, 1])] == ["chair"] * 2
    clock.publish(Clock(clock=to_stamp(50_000_000_000)))
    assert world.spin_until(lambda: node.get_clock().now().nanoseconds == 50_000_000_000)
    assert best(ask(world, camera, answers, [1])[0]) == "table"


def test_vocabularies_change_under_load_and_every_answer_is_of_one(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class", 1000)
    shown = world.collect(Vocabulary, f"{NAME}/vocabulary", LATCHED)
    node = start(world, camera_files)
    camera = world.camera(node)
    named = ("bus", "cat", "bottle", "plant", "lamp", "sofa")
    words = {
        change(world, pack=str(camera_files.pack)).vocabulary_id: camera_files.words,
        change(world, pack=str(camera_files.other_pack)).vocabulary_id: camera_files.other_words,
        change(world, names=list(named)).vocabulary_id: camera_files.other_words,
    }
    assert len(words) == 3
    requests = [
        SetVocabulary.Request(pack=str(camera_files.pack)),
        SetVocabulary.Request(pack=str(camera_files.other_pack)),
        SetVocabulary.Request(names=list(named)),
    ]
    client = world.client.create_client(SetVocabulary, SET)
    assert world.spin_until(client.service_is_ready)
    sent: dict[int, int] = {}
    futures = []
    for k in range(150):
        sent[camera.send(scene(k % 6), after_s=0.03)] = k % 6
        if k % 5 == 0:
            futures.append(client.call_async(requests[k // 5 % 3]))
        world.spin(0.005)
    assert world.spin_until(lambda: all(each.done() for each in futures))
    assert world.spin_until(
        lambda: len(answers) + node.health.drops().get("overload", 0) == len(sent)
    )
    assert all(each.result().result == Result.RESULT_OK for each in futures)
    assert len(answers) > 50
    for each in answers:
        allowed = words[each.vocabulary_id]
        assert each.hypotheses[0].name == allowed[sent[stamp_ns(each.header.stamp)]]
        assert {h.name for h in each.hypotheses} <= set(allowed)
    used = [each.vocabulary_id for each in answers]
    assert set(used) == set(words)
    assert sum(a != b for a, b in pairwise(used)) > 10
    # Who listens from the start hears of every change, whoever comes later of the last one.
    assert world.spin_until(lambda: shown[-1].generation == len(futures) + 3)
    assert shown[-1].vocabulary_id == futures[-1].result().vocabulary_id


def test_a_refused_vocabulary_says_why_and_the_one_before_stays(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    shown = world.collect(Vocabulary, f"{NAME}/vocabulary", LATCHED)
    node = create(world, camera_files)
    assert change(world, names=["mug"]).result == Result.RESULT_NOT_CONFIGURED
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    assert world.spin_until(lambda: shown)
    camera = world.camera(node)
    refusals = [
        ({"names": ["mug", "tabel"]}, Result.RESULT_UNKNOWN_NAME, "near are 'table'"),
        ({"names": ["light"]}, Result.RESULT_UNKNOWN_NAME, "could mean 'lamp', 'traffic light'"),
        ({"names": ["mug", "cup"]}, Result.RESULT_BAD_REQUEST, "both mean 'mug'"),
        ({"names": [""]}, Result.RESULT_BAD_REQUEST, "0 characters"),
        ({}, Result.RESULT_BAD_REQUEST, "allowed is one of the two"),
        (
            {"names": ["mug"], "pack": str(camera_files.pack)},
            Result.RESULT_BAD_REQUEST,
            "allowed is one of the two",
        ),
        ({"pack": str(camera_files.foreign_pack)}, Result.RESULT_PACK_REFUSED, "f" * 64),
        ({"pack": "no-such-name"}, Result.RESULT_PACK_REFUSED, "shipped"),
        ({"pack": "a" * 5000}, Result.RESULT_PACK_REFUSED, "shipped"),
        ({"pack": "/" + "a" * 5000}, Result.RESULT_PACK_REFUSED, "too long"),
        ({"names": [f"tabel {n}" for n in range(2000)]}, Result.RESULT_UNKNOWN_NAME, "and more"),
        ({"pack": str(camera_files.bank)}, Result.RESULT_PACK_REFUSED, "word_bank"),
        ({"pack": "/dev/zero.safetensors"}, Result.RESULT_PACK_REFUSED, "/dev/zero"),
    ]
    for request, result, told in refusals:
        response = change(world, **request)
        assert (response.result, told in response.message) == (result, True), response.message
        assert response.vocabulary_id == shown[0].vocabulary_id
        answer = ask(world, camera, answers, [3])[0]
        assert (best(answer), answer.vocabulary_id) == ("mug", shown[0].vocabulary_id)
    assert len(shown) == 1
    done = change(world, names=["Cups", "dog"])
    assert (done.result, done.message) == (Result.RESULT_OK, f"2 words of {camera_files.bank}")
    assert best(ask(world, camera, answers, [3])[0]) == "Cups"


def test_a_word_bank_that_is_missing_is_missed_only_when_names_are_asked_for(
    world, camera_files, tmp_path
):
    bank = tmp_path / "bank.safetensors"
    start(world, camera_files, vocabulary__bank=str(bank))
    response = change(world, names=["mug"])
    assert response.result == Result.RESULT_BANK_REFUSED
    assert str(bank) in response.message
    bank.write_bytes(camera_files.bank.read_bytes())
    assert change(world, names=["mug"]).result == Result.RESULT_OK


def test_files_that_cannot_be_used_fail_configure_which_can_be_tried_again(
    world, camera_files, tmp_path
):
    torn, changed = tmp_path / "torn.safetensors", tmp_path / "changed.safetensors"
    torn.write_bytes(camera_files.bundle.read_bytes()[:-100])
    changed.write_bytes(camera_files.pack.read_bytes()[:-1] + b"\x7f")
    node = create(world, camera_files)
    for name, value in (
        ("model.bundle", str(tmp_path / "none.safetensors")),
        ("model.bundle", str(torn)),
        ("model.bundle", str(camera_files.pack)),
        ("model.bundle", "no-such-name"),
        ("vocabulary.pack", ""),
        ("vocabulary.pack", str(tmp_path / "none.safetensors")),
        ("vocabulary.pack", str(changed)),
        ("vocabulary.pack", str(camera_files.foreign_pack)),
        ("vocabulary.names", "mug, unicorn"),
    ):
        before = node.get_parameter(name).value
        assert node.set_parameters([Parameter(name, value=value)])[0].successful
        assert node.trigger_configure() == FAILURE, (name, value)
        assert node.set_parameters([Parameter(name, value=before)])[0].successful
    assert node.trigger_configure() == OK


def test_names_may_be_given_from_the_start(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files, vocabulary__names="couch, bus, mug")
    camera = world.camera(node)
    assert [best(each) for each in ask(world, camera, answers, [0, 5, 3, 1])] == [
        "couch",
        "bus",
        "mug",
        "",
    ]


def test_settings_change_while_it_runs_and_fixed_ones_do_not(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    shown = world.collect(Vocabulary, f"{NAME}/vocabulary", LATCHED)
    node = start(world, camera_files)
    camera = world.camera(node)
    assert best(ask(world, camera, answers, [30])[0]) == ""
    assert node.set_parameters([Parameter("head.reject", value=False)])[0].successful
    assert best(ask(world, camera, answers, [30])[0]) != ""
    assert node.set_parameters([Parameter("head.hypotheses", value=1)])[0].successful
    assert len(ask(world, camera, answers, [30])[0].hypotheses) == 1
    assert not node.set_parameters([Parameter("vocabulary.pack", value="x")])[0].successful
    node.set_parameters([Parameter("head.reject", value=True)])
    strict = [Parameter("unknown.method", value="energy"), Parameter("unknown.threshold", value=1)]
    assert all(each.successful for each in node.set_parameters(strict))
    assert ask(world, camera, answers, [1])[0].unknown
    assert world.spin_until(lambda: shown[-1].unknown_method == "energy")
    assert shown[-1].vocabulary_id == answers[-1].vocabulary_id != shown[0].vocabulary_id


def test_a_rule_that_cannot_be_had_is_not_left_in_the_parameters(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files)
    camera = world.camera(node)
    node.set_parameters([Parameter("unknown.method", value="negative_labels")])
    assert node.get_parameter("unknown.method").value == "vocabulary"
    assert node.set_parameters([Parameter("head.hypotheses", value=2)])[0].successful
    assert len(ask(world, camera, answers, [1])[0].hypotheses) == 2


def test_diagnostics_tell_what_runs_by_which_words_and_what_was_answered(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    told = world.collect(DiagnosticArray, "/diagnostics")
    node = create(world, camera_files, image__stale_after_s=30.0)

    def status(part: str) -> DiagnosticStatus:
        found = [s for a in told for s in a.status if s.name == f"camera_classifier: {part}"]
        return found[-1] if found else DiagnosticStatus()

    assert world.spin_until(lambda: status("model").message == "not configured")
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK
    camera = world.camera(node)
    ask(world, camera, answers, [1, 2, 30])
    camera.send(scene(1), encoding="plaid8")

    def values(part: str) -> dict[str, str]:
        return {each.key: each.value for each in status(part).values}

    assert world.spin_until(lambda: values("input").get("dropped unknown_encoding") == "1")
    assert values("input")["answered"] == "3"
    assert "latency p95 [ms]" in values("input")
    assert values("model")["weights"] == answers[0].weights_id
    assert values("model")["bundle"] == str(camera_files.bundle)
    words = values("vocabulary")
    assert words["vocabulary"] == answers[0].vocabulary_id
    assert (words["words"], words["unknown by"]) == ("6", "max_logit below 0.9")
    assert (words["answers known"], words["answers unknown below_threshold"]) == ("2", "1")


def test_the_answer_is_written_on_the_image_for_those_who_look(world, camera_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = start(world, camera_files)
    camera = world.camera(node)
    drawn = world.collect(Image, f"{NAME}/overlay")
    assert world.spin_until(node._overlay.get_subscription_count)
    ask(world, camera, answers, [1, 30])
    assert world.spin_until(lambda: len(drawn) == 2)
    for message, number in zip(drawn, (1, 30), strict=True):
        assert (message.height, message.width, message.encoding) == (120, 160, "rgb8")
        shown = np.frombuffer(message.data, np.uint8).reshape(120, 160, 3)
        touched = (shown != scene(number)).any(axis=2)
        assert 0.005 < touched.mean() < 0.3
        assert not touched[60:].any()


def decision(unknown: bool) -> Decision:
    nearest = (Hypothesis("mug", 1, 0.75, 0.4), Hypothesis("dog", 0, 0.25, 0.1))
    return Decision(unknown, "below_threshold" if unknown else "", 0.3, 0.5, nearest)


@pytest.fixture
def answer(camera_files):
    from spike_perception.zero_shot.pack import VocabularyPack

    return Answer(decision(False), VocabularyPack.load(camera_files.pack))


def test_vision_msgs_carry_names_and_are_empty_for_the_unknown(answer, monkeypatch):
    """With the fields of the two messages, for wheels of vision_msgs do not exist."""
    fields = types.SimpleNamespace
    stand_in = types.ModuleType("vision_msgs.msg")
    stand_in.Classification = stand_in.ObjectHypothesis = fields
    monkeypatch.setitem(sys.modules, "vision_msgs", types.ModuleType("vision_msgs"))
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", stand_in)
    assert class_messages.classification_type() is fields
    header = Header(frame_id="camera")
    known = class_messages.classification(header, answer)
    assert known.header == header
    assert [(each.class_id, each.score) for each in known.results] == [("mug", 0.75), ("dog", 0.25)]
    unknown = dataclasses.replace(answer, decision=decision(True))
    assert class_messages.classification(header, unknown).results == []


def test_vision_msgs_are_published_where_they_are_installed(world, camera_files):
    vision = pytest.importorskip("vision_msgs.msg", reason="vision_msgs comes with a ROS install")
    answers = world.collect(ObjectClass, "/object_class")
    heard = world.collect(vision.Classification, "/object_class/classification")
    node = start(world, camera_files)
    camera = world.camera(node)
    ask(world, camera, answers, [1, 30])
    assert world.spin_until(lambda: len(heard) == 2)
    assert [each.header for each in heard] == [each.header for each in answers]
    assert [each.class_id for each in heard[0].results] == [h.name for h in answers[0].hypotheses]
    assert heard[0].results[0].score == pytest.approx(answers[0].hypotheses[0].score, abs=1e-6)
    assert heard[1].results == []


def test_without_vision_msgs_there_is_no_such_topic(world, camera_files, monkeypatch):
    for name in ("vision_msgs", "vision_msgs.msg"):
        monkeypatch.setitem(sys.modules, name, None)
    node = start(world, camera_files)
    topics = {name for name, _ in node.get_topic_names_and_types()}
    assert "/object_class" in topics
    assert "/object_class/classification" not in topics


def test_the_defaults_are_shipped_or_configure_says_what_is_missing(world, monkeypatch):
    node = world.start(CameraClassifierNode)
    try:
        shipped_file(node.get_parameter("model.bundle").value)
    except InputError as error:
        assert "models/camera.safetensors" in str(error)
        assert node.trigger_configure() == FAILURE
    else:
        assert node.trigger_configure() == OK


def heard(world, node):
    """Reliability with which the node subscribes to images."""
    found = []

    def there():
        found[:] = world.client.get_subscriptions_info_by_topic("/camera/image_raw")
        return found

    assert world.spin_until(there)
    (own,) = (each.qos_profile for each in found if each.node_name == node.get_name())
    return own.reliability


def test_quality_of_service_is_overridden_as_in_other_nodes(world, camera_files):
    policy = "qos_overrides__/camera/image_raw__subscription__reliability"
    node = start(world, camera_files, **{policy: "best_effort"})
    assert heard(world, node) == ReliabilityPolicy.BEST_EFFORT  # files ask for reliable
    assert not node.has_parameter("qos_overrides./camera/image_raw.subscription.depth")


def test_another_reliability_is_taken_at_the_next_configure(world, camera_files):
    node = start(world, camera_files)
    assert heard(world, node) == ReliabilityPolicy.RELIABLE
    assert node.trigger_deactivate() == OK and node.trigger_cleanup() == OK
    assert world.spin_until(
        lambda: not world.client.get_subscriptions_info_by_topic("/camera/image_raw")
    )
    changed = node.set_parameters([Parameter("image.reliability", value="best_effort")])
    assert changed[0].successful
    assert node.trigger_configure() == OK and node.trigger_activate() == OK
    assert heard(world, node) == ReliabilityPolicy.BEST_EFFORT
