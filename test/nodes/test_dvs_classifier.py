# SPDX-License-Identifier: Apache-2.0
"""The node as its users meet it: event packets in, names out, over real DDS."""

from __future__ import annotations

import threading
import time
import types
from array import array

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2, PointField

from spike_perception.nodes import event_input
from spike_perception.nodes.dvs_classifier import DvsClassifierNode
from spike_perception.nodes.place_recognizer import PlaceRecognizerNode
from spike_perception.nodes.stamps import stamp_ns, to_stamp
from spike_perception.sensing.decoders.event_words import encode_mono
from spike_perception.sensing.event_packets import EventPacker
from spike_perception.sensing.events import Events
from spike_perception_msgs.msg import EventPacket, ObjectClass, PlaceMatch

OK, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
NAME = "/dvs_classifier"
TOPIC = "/event_camera/events"
MS = 1_000_000
HOST_NS = 1_600_000_000_000_000_000  # of the first event
LOSSLESS = QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def create(world, files, **parameters):
    """A node that is not configured yet; windows of 10 ms without overlap."""
    settings = {
        "model__bundle": str(files.bundle),
        "vocabulary__pack": str(files.pack),
        "vocabulary__bank": str(files.bank),
        "events__window__duration_ms": 10.0,
        "events__window__overlap": 0.0,
        "events__window__min_events": 1,
        "events__noise__filter": "none",
    }
    return world.start(DvsClassifierNode, **{**settings, **parameters})


class Bursts:
    """Messages of a camera: 600 events of a number within 9 of every 10 ms, one packet each."""

    def __init__(self, files) -> None:
        self._files, self._packer = files, EventPacker(*files.size)
        self.sent = 0

    def events(self, number: int) -> Events:
        return self._files.burst(number, start_ns=self.sent * 10 * MS)

    def stamp(self) -> int:
        return HOST_NS + self.sent * 10 * MS

    def message(self, number: int, **fields: object) -> EventPacket:
        packet = self._packer(self.events(number))
        message = EventPacket(
            height=packet.height,
            width=packet.width,
            seq=packet.seq,
            time_base=packet.time_base,
            encoding=packet.encoding,
            events=array("B", packet.events.tobytes()),
        )
        message.header.stamp = to_stamp(self.stamp())
        message.header.frame_id = "dvs"
        for name, value in fields.items():
            setattr(message, name, value)
        self.sent += 1
        return message


class EventSource(Bursts):
    """A camera that the node hears."""

    def __init__(self, world, files, node, message_type: type = EventPacket) -> None:
        super().__init__(files)
        self.publisher = world.client.create_publisher(message_type, TOPIC, LOSSLESS)
        assert node.trigger_activate() == OK
        assert world.spin_until(lambda: node._subscriptions_held)
        world.connect(self.publisher)

    def send(self, *numbers: int, **fields: object) -> None:
        for number in numbers:
            self.publisher.publish(self.message(number, **fields))


def configured(world, files, **parameters):
    node = create(world, files, **parameters)
    assert node.trigger_configure() == OK
    return node


def best(answer: ObjectClass) -> str:
    return answer.hypotheses[0].name


def counts(world, packets: int = 1) -> dict[str, int]:
    """Counts of events, as /diagnostics tells them once so many packets were worked off."""
    told = world.collect(DiagnosticArray, "/diagnostics")
    seen: dict[str, int] = {}

    def enough() -> bool:
        for status in (s for a in told for s in a.status if s.name == f"{NAME[1:]}: events"):
            seen.update({each.key: int(each.value) for each in status.values})
        return seen.get("packets", 0) >= packets

    assert world.spin_until(enough, 30), seen
    return seen


def test_packets_are_named_by_the_last_windows_with_stamp_and_frame(world, event_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = configured(world, event_files)
    camera = EventSource(world, event_files, node)
    camera.send(*[2] * 8, *[1] * 12)
    # The last packet's window stays open.
    assert world.spin_until(lambda: len(answers) == 19)
    assert best(answers[5]) == event_files.words[2]
    assert best(answers[-1]) == event_files.words[1]
    ends = [HOST_NS + (k + 1) * 10 * MS for k in range(19)]
    assert [stamp_ns(each.header.stamp) for each in answers] == ends
    assert {(each.source, each.header.frame_id, each.has_box) for each in answers} == {
        ("events", "dvs", False)
    }
    assert all(0 < each.latency_ms < 5000 for each in answers)
    seen = counts(world, 20)
    on = sum(int(event_files.burst(n).polarity.sum()) for n in [2] * 8 + [1] * 12)
    assert (seen["packets"], seen["events"], seen["on"], seen["windows"]) == (20, 12_000, on, 19)
    assert seen["off"] == 12_000 - on
    assert node.health.drops() == {}


def hold(node):
    """Let the worker wait in its next window: events to release it, and to see it has begun."""
    release, started = threading.Event(), threading.Event()
    observe = node._classifier.observe

    def slow(*arguments):
        started.set()
        release.wait(10)
        return observe(*arguments)

    node._classifier.observe = slow
    return release, started


def test_no_packet_is_passed_over_while_the_worker_is_busy(world, event_files):
    answers = world.collect(ObjectClass, "/object_class", 1000)
    node = configured(world, event_files)
    camera = EventSource(world, event_files, node)
    release, started = hold(node)
    camera.send(0, 0)
    assert world.spin_until(started.is_set)
    camera.send(*[0] * 200)
    world.spin(0.5)
    release.set()
    assert world.spin_until(lambda: len(answers) == 201, 20)
    assert node.health.drops() == {}
    assert counts(world, 202)["packets"] == 202


def test_a_flood_is_one_gap_and_counted(world, event_files):
    answers = world.collect(ObjectClass, "/object_class", 1000)
    node = configured(world, event_files, events__queue_mb=0.1)  # 17 packets
    camera = EventSource(world, event_files, node)
    release, started = hold(node)
    camera.send(0, 0)
    assert world.spin_until(started.is_set)
    camera.send(*[0] * 20)
    assert world.spin_until(lambda: node.health.drops().get("overload", 0) > 0)
    release.set()
    world.spin(0.3)
    before = len(answers)
    camera.send(0, 0, 0)
    assert world.spin_until(lambda: len(answers) >= before + 2)
    dropped = node.health.drops().pop("overload")
    assert 10 <= dropped <= 20
    assert counts(world, 25 - dropped)["packets"] == 25 - dropped


BAD = {
    "truncated_packet": {"events": array("B", bytes(13))},
    "unknown_encoding": {"encoding": "evt9"},
    "zero_size": {"width": 0},
    "too_large": {"width": 1 << 20},
    "invalid_time_base": {"time_base": 1 << 63},
}


def test_bad_packets_are_counted_by_reason_and_explained_and_the_node_goes_on(world, event_files):
    told = world.collect(DiagnosticArray, "/diagnostics", 1000)
    answers = world.collect(ObjectClass, "/object_class", 1000)
    node = configured(world, event_files)
    camera = EventSource(world, event_files, node)
    for reason, fields in BAD.items():
        camera.send(3, **fields)
        assert world.spin_until(lambda: node.health.drops().get(reason) == 1), reason  # noqa: B023
        before = len(answers)
        camera.send(3, 3, 3)
        assert world.spin_until(lambda: len(answers) == before + 2), reason  # noqa: B023
    camera.sent += 3
    camera._packer._next += 3  # three packets that never come
    camera.send(3, 3)
    assert world.spin_until(lambda: node.health.drops().get("lost_packets") == 1)
    camera.sent = 0  # time runs backwards
    camera.send(3, 3)
    assert world.spin_until(lambda: node.health.drops().get("time_jumps") == 1)
    camera.send(3, width=80)
    assert world.spin_until(lambda: node.health.drops().get("format_changes") == 1)
    camera.send(3)
    assert world.spin_until(lambda: node.health.drops().get("format_changes") == 2)
    camera._packer._next = 0  # the driver starts again
    camera.send(3, 3)
    assert world.spin_until(lambda: node.health.drops().get("seq_restarts") == 1)
    before = len(answers)
    camera.send(*[3] * 6)
    assert world.spin_until(lambda: len(answers) >= before + 6)
    assert best(answers[-1]) == event_files.words[3]
    assert world.spin_until(
        lambda: "begin anew" in " ".join(s.message for a in told for s in a.status)
    )
    expected = dict.fromkeys([*BAD, "lost_packets", "time_jumps", "seq_restarts"], 1)
    assert node.health.drops() == {**expected, "format_changes": 2}
    values = {v.key: v.value for a in told for s in a.status for v in s.values}
    assert values["dropped truncated_packet"] == "1"


def test_a_gap_starts_the_network_from_rest(world, event_files):
    answers = world.collect(ObjectClass, "/object_class", 1000)
    node = configured(world, event_files)
    camera = EventSource(world, event_files, node)
    camera.send(0, 0)
    assert world.spin_until(lambda: len(answers) == 1)
    camera.send(0, 0, 0)
    assert world.spin_until(lambda: len(answers) == 4)
    camera._packer._next += 1
    camera.send(0, 0)
    assert world.spin_until(lambda: len(answers) == 5)
    scores = [[h.score for h in each.hypotheses] for each in answers]
    assert scores[4] == scores[0] != scores[3]


def cloud(camera: Bursts, number: int) -> PointCloud2:
    events = camera.events(number)
    layout = np.dtype({"names": ["x", "y", "t", "p"], "formats": ["<f4", "<u2", "<f8", "i1"],
                       "offsets": [0, 4, 8, 16], "itemsize": 20})  # fmt: skip
    rows = np.zeros(len(events), layout)
    rows["x"], rows["y"], rows["p"] = events.x, events.y, np.where(events.polarity, 1, -1)
    rows["t"] = events.t_ns / 1e9
    kinds = (PointField.FLOAT32, PointField.UINT16, PointField.FLOAT64, PointField.INT8)
    message = PointCloud2(
        height=1,
        width=len(events),
        point_step=20,
        row_step=20 * len(events),
        data=array("B", rows.tobytes()),
        fields=[
            PointField(name=n, offset=layout.fields[n][1], datatype=k, count=1)
            for n, k in zip("xytp", kinds, strict=True)
        ],
    )
    message.header.stamp = to_stamp(camera.stamp())
    camera.sent += 1
    return message


def test_clouds_of_events_are_named_alike(world, event_files):
    answers = world.collect(ObjectClass, "/object_class")
    width, height = event_files.size
    size = {"events__cloud__width": width, "events__cloud__height": height}
    node = configured(world, event_files, **size)
    camera = EventSource(world, event_files, node, PointCloud2)
    for number in [2] * 8:
        camera.publisher.publish(cloud(camera, number))
    assert world.spin_until(lambda: len(answers) == 7)
    assert best(answers[-1]) == event_files.words[2]
    bad = cloud(camera, 2)
    bad.fields = bad.fields[:3]
    camera.publisher.publish(bad)
    assert world.spin_until(lambda: node.health.drops() == {"missing_field": 1})
    for number in (2, 2):
        camera.publisher.publish(cloud(camera, number))
    assert world.spin_until(lambda: len(answers) == 8)


def test_what_else_is_published_there_is_told(world, event_files):
    told = world.collect(DiagnosticArray, "/diagnostics", 1000)
    world.client.create_publisher(Image, TOPIC, 10)
    node = configured(world, event_files)
    assert node.trigger_activate() == OK
    wanted = f"waiting for events on {TOPIC}, where sensor_msgs/msg/Image publishes"
    assert world.spin_until(lambda: any(s.message == wanted for a in told for s in a.status))


def test_a_type_that_is_not_installed_is_told(world, event_files, monkeypatch):
    told = world.collect(DiagnosticArray, "/diagnostics", 1000)
    monkeypatch.setattr(event_input, "message_class", lambda _: None)
    world.client.create_publisher(EventPacket, TOPIC, 10)
    node = configured(world, event_files)
    assert node.trigger_activate() == OK
    wanted = "publishes; not installed here: spike_perception_msgs"
    assert world.spin_until(lambda: any(s.message.endswith(wanted) for a in told for s in a.status))


def test_best_effort_publishers_are_heard_too(world, event_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = configured(world, event_files)
    driver = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = world.client.create_publisher(EventPacket, TOPIC, driver)
    camera = EventSource(world, event_files, node)
    camera.publisher = publisher
    world.connect(publisher)
    camera.send(1, 1)
    assert world.spin_until(lambda: answers)


@pytest.fixture
def driver(domain):
    """Offers events of a type and reliability in a participant of its own, in place of the last."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context, domain_id=domain)
    node = rclpy.create_node("driver", context=context)

    def offer(message_type: type, reliability: ReliabilityPolicy):
        for each in list(node.publishers):
            if each.topic_name == TOPIC:
                node.destroy_publisher(each)
        profile = QoSProfile(depth=100, reliability=reliability)
        return node.create_publisher(message_type, TOPIC, profile)

    yield offer
    node.destroy_node()
    context.try_shutdown()


def test_a_driver_replaced_by_one_of_another_type_is_heard(world, event_files, driver):
    answers = world.collect(ObjectClass, "/object_class")
    width, height = event_files.size
    size = {"events__cloud__width": width, "events__cloud__height": height}
    node = configured(world, event_files, **size)
    assert node.trigger_activate() == OK
    offers = [
        (EventPacket, ReliabilityPolicy.RELIABLE),
        (PointCloud2, ReliabilityPolicy.RELIABLE),
        (PointCloud2, ReliabilityPolicy.BEST_EFFORT),
        (EventPacket, ReliabilityPolicy.RELIABLE),
    ]
    camera = Bursts(event_files)
    for message_type, reliability in offers:
        publisher = driver(message_type, reliability)
        assert world.spin_until(
            lambda: (
                publisher.get_subscription_count()  # noqa: B023
                and node._subscriptions_held
                and node._subscriptions_held[0].get_publisher_count()
            )
        ), (message_type, reliability)
        before = len(answers)
        for number in (2, 2, 2):
            make = cloud if message_type is PointCloud2 else Bursts.message
            publisher.publish(make(camera, number))
        assert world.spin_until(lambda: len(answers) == before + 2)  # noqa: B023
    # A driver's stream ended with it: nothing of it counts as lost, or as of another format.
    assert set(node.health.drops()) <= {"incompatible_qos"}  # until it is looked again
    assert [each.header.frame_id for each in answers] == ["dvs"] * 2 + [""] * 4 + ["dvs"] * 2


def test_a_driver_is_kept_while_another_offers_events_too(world, event_files, driver):
    node = configured(world, event_files)
    assert node.trigger_activate() == OK
    driver(PointCloud2, ReliabilityPolicy.RELIABLE)
    assert world.spin_until(lambda: node._subscriptions_held)
    held = node._subscriptions_held[0]
    other = rclpy.Context()
    rclpy.init(args=[], context=other, domain_id=world.client.context.get_domain_id())
    beside = rclpy.create_node("beside", context=other)
    beside.create_publisher(EventPacket, TOPIC, 10)  # of the preferred type
    assert world.spin_until(lambda: world.client.count_publishers(TOPIC) == 2)
    world.spin(1.0)
    assert node._subscriptions_held == [held]
    beside.destroy_node()
    other.try_shutdown()


def test_who_cannot_subscribe_says_so_and_lives(world, event_files, driver):
    """There was nobody to subscribe to when it was activated, and activation could not refuse."""
    policy = f"qos_overrides__{TOPIC}__subscription__reliability"
    node = configured(world, event_files, **{policy: "no such"})
    assert node.trigger_activate() == OK
    driver(EventPacket, ReliabilityPolicy.RELIABLE)
    assert world.spin_until(lambda: "cannot subscribe" in node._source)
    world.spin(0.5)
    (said,) = (each for each in node.statuses() if each.name.endswith(": events"))
    assert said.level == DiagnosticStatus.WARN and TOPIC in said.message
    assert node.trigger_deactivate() == OK
    assert node.trigger_activate() == FAILURE  # where there is somebody


def test_windows_change_while_it_runs_and_counts_go_on(world, event_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = configured(world, event_files)
    camera = EventSource(world, event_files, node)
    camera.send(0, 0)
    assert world.spin_until(lambda: len(answers) == 1)
    wider = [Parameter("events.window.duration_ms", value=20.0)]
    assert node.set_parameters(wider)[0].successful
    camera.send(*[0] * 5)
    assert world.spin_until(lambda: len(answers) == 3)
    seen = counts(world, 7)
    assert (seen["packets"], seen["windows"], seen["dropped"]) == (7, 3, 1)
    fixed = [Parameter("events.noise.filter", value="numpy")]
    assert not node.set_parameters(fixed)[0].successful


def test_lifecycle_cycles_leave_a_working_node(world, event_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = configured(world, event_files)
    camera = EventSource(world, event_files, node)
    threads = threading.active_count()
    for _ in range(5):
        assert node.trigger_deactivate() == OK
        assert node.trigger_cleanup() == OK
        assert node.trigger_configure() == OK
        assert node.trigger_activate() == OK
    assert threading.active_count() == threads
    assert world.spin_until(lambda: node._subscriptions_held)
    world.connect(camera.publisher)
    camera.send(1, 1)
    assert world.spin_until(lambda: answers)


def test_a_bundle_of_something_else_fails_configure(world, event_files, camera_files):
    node = create(world, event_files, model__bundle=str(camera_files.bundle))
    assert node.trigger_configure() == FAILURE


def test_places_are_recognised_by_frames_of_events(world, event_files, tmp_path):
    """Ten places seen twice: the second time each is found again."""
    matches = world.collect(PlaceMatch, "/place_match")
    places = world.start(
        PlaceRecognizerNode,
        map__path=str(tmp_path / "map.db"),
        descriptor__name="patch_norm",
        image__topic=f"{NAME}/event_frame",
        image__reliability="reliable",
        sequence__length=3,
        decision__exclusion_s=0.08,
        keyframe__interval_s=0.0,
    )
    assert places.trigger_configure() == OK
    assert places.trigger_activate() == OK
    node = configured(world, event_files)
    camera = EventSource(world, event_files, node)
    world.connect(node._frame)
    for number in [*range(10), *range(10), 0]:
        before = len(matches)
        camera.send(number)
        if camera.sent > 1:
            assert world.spin_until(lambda: len(matches) == before + 1)  # noqa: B023
    assert [stamp_ns(m.header.stamp) for m in matches] == [
        HOST_NS + (k + 1) * 10 * MS for k in range(20)
    ]
    found = [m.place_id for m in matches[12:] if m.status == PlaceMatch.STATUS_MATCHED]
    assert len(found) >= 6
    assert all(
        m.place_id == k + 1
        for k, m in enumerate(matches[10:])
        if m.status == PlaceMatch.STATUS_MATCHED
    )


def test_packets_without_a_stamp_are_refused_and_counted_each(world, event_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = configured(world, event_files)
    camera = EventSource(world, event_files, node)
    for _ in range(3):
        message = camera.message(1, encoding="evt3")  # such are joined where they can be
        message.header.stamp = to_stamp(0)
        camera.publisher.publish(message)
    assert world.spin_until(lambda: node.health.drops() == {"zero_stamp": 3})
    camera.send(1, 1)
    assert world.spin_until(lambda: answers)
    assert node.health.drops() == {"zero_stamp": 3}


def test_a_stamp_far_ahead_does_not_hold_back_those_that_follow(world, event_files):
    answers = world.collect(ObjectClass, "/object_class")
    node = configured(world, event_files)
    camera = EventSource(world, event_files, node)
    camera.send(1)
    message = camera.message(1)
    message.header.stamp = to_stamp(HOST_NS + 10**17)
    camera.publisher.publish(message)
    camera.send(1, 1)
    assert world.spin_until(lambda: len(answers) == 2)
    assert stamp_ns(answers[-1].header.stamp) == HOST_NS + 3 * 10 * MS


def test_a_packet_of_very_many_windows_neither_holds_up_the_node_nor_its_stopping(
    world, event_files
):
    node = configured(world, event_files, events__queue_s=0.5)
    camera = EventSource(world, event_files, node)
    began, observed = time.monotonic(), threading.Event()
    observe = node._classifier.observe

    def slow(*arguments):
        observed.set()
        time.sleep(0.1)
        return observe(*arguments)

    node._classifier.observe = slow
    burst = camera.events(0)
    spread = Events(burst.x, burst.y, burst.polarity, np.arange(len(burst)) * 7 * MS)
    message = camera.message(0)
    message.events = array("B", encode_mono(spread)[1].tobytes())  # 420 windows: 42 s of work
    camera.publisher.publish(message)
    assert world.spin_until(lambda: node.health.drops().get("overload", 0) > 300)
    message.seq += 1
    observed.clear()
    camera.publisher.publish(message)
    assert world.spin_until(observed.is_set)
    assert node.trigger_deactivate() == OK
    assert time.monotonic() - began < 10


def test_a_node_that_is_not_asked_to_listen_warns_of_nothing(world, event_files):
    node = configured(world, event_files)
    levels = {each.name: each.level for each in node.statuses()}
    assert set(levels.values()) == {DiagnosticStatus.OK}
    assert node.trigger_activate() == OK
    levels = {each.name: each.level for each in node.statuses()}
    assert levels[f"{NAME[1:]}: events"] == DiagnosticStatus.WARN


def test_a_topic_that_is_none_fails_activate_and_the_node_can_be_put_right(world, event_files):
    node = configured(world, event_files, events__topic="not a topic")
    assert node.trigger_activate() == FAILURE
    assert node.trigger_cleanup() == OK
    assert node.set_parameters([Parameter("events.topic", value=TOPIC)])[0].successful
    assert node.trigger_configure() == OK
    assert node.trigger_activate() == OK


def test_told_to_stop_while_at_work_a_node_counts_no_error(world, event_files, monkeypatch):
    node = configured(world, event_files)
    ended = types.SimpleNamespace(ok=lambda: False)
    monkeypatch.setattr(type(node), "context", property(lambda self: ended))

    def publish() -> None:
        raise RuntimeError("publisher's context is invalid")

    assert not node.attempt(publish)
    assert node.health.drops() == {}
    monkeypatch.undo()
    assert not node.attempt(publish)
    assert node.health.drops() == {"internal_error": 1}
