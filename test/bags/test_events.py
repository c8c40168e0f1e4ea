# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from spike_perception.bags.events import (
    ARRAY_TYPES,
    DEFINITIONS,
    PACKET_TYPES,
    EventBag,
    events_from_cdr,
    events_from_ros1,
    packet_from_cdr,
)
from spike_perception.bags.raw import RawBag
from spike_perception.errors import InputError
from spike_perception.sensing.event_stream import EventStream, decode_all
from spike_perception.sensing.events import EventError


def store(release: Stores = Stores.ROS2_JAZZY):
    types = get_typestore(release)
    for name, text in DEFINITIONS.items():
        types.register(get_types_from_msg(text, name))
    return types


def header(types, stamp_ns: int):
    time = types.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    kind = types.types["std_msgs/msg/Header"]
    return kind(7, time, "dvs") if "seq" in kind.__annotations__ else kind(time, "dvs")


def array(types, name: str, events: list[tuple[int, int, int, bool]], frame_id: str = "dvs"):
    time = types.types["builtin_interfaces/msg/Time"]
    event = types.types[name.replace("EventArray", "Event")]
    listed = [event(x, y, time(*divmod(t, 10**9)), p) for x, y, t, p in events]
    head = header(types, 5 * 10**9 + 3)
    head.frame_id = frame_id
    return types.types[name](head, 60, 80, listed)


def packet_bag(path: Path, name: str, storage: StoragePlugin) -> Path:
    types = store()
    with Writer(path, version=9, storage_plugin=storage) as bag:
        connection = bag.add_connection("/events", name, typestore=types)
        for k in range(3):
            words = np.array([0x8000 + k, 0x6000, 0x0001, 0x2002 | k % 2 << 11], "<u2")
            message = types.types[name](
                header(types, 10**9 + k), 60, 80, k, 0, "evt3", False, words.view(np.uint8)
            )
            bag.write(connection, 10**9 + k, types.serialize_cdr(message, name))
    return path


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("name", PACKET_TYPES)
def test_packets(tmp_path: Path, name: str, storage: StoragePlugin) -> None:
    with EventBag(packet_bag(tmp_path / "bag", name, storage)) as bag:
        assert bag.event_topic() == "/events"
        stamped = list(bag.packets())
    assert [(each.stamp_ns, each.frame_id) for each in stamped] == [
        (10**9 + k, "dvs") for k in range(3)
    ]
    events = decode_all([each.packet for each in stamped])
    assert events.t_ns.tolist() == [0, 4_096_000, 8_192_000]
    assert events.polarity.tolist() == [False, True, False]


@pytest.mark.parametrize("name", PACKET_TYPES)
def test_packets_in_cdr(tmp_path: Path, name: str) -> None:
    path = packet_bag(tmp_path / "bag", name, StoragePlugin.MCAP)
    with EventBag(path) as bag, RawBag(path) as raw:
        messages = [each.data for each in raw.raw(["/events"])]
        for wanted, data in zip(bag.packets(), messages, strict=True):
            found = packet_from_cdr(data)
            assert (found.stamp_ns, found.frame_id) == (wanted.stamp_ns, wanted.frame_id)
            assert found.packet._replace(events=b"") == wanted.packet._replace(events=b"")
            assert bytes(found.packet.events) == bytes(wanted.packet.events)
    for length in (0, 3, 20, len(messages[0]) - 2):
        with pytest.raises(EventError) as caught:
            packet_from_cdr(messages[0][:length])
        assert caught.value.reason == "truncated_packet"


def test_our_packet_message_has_the_fields_of_the_drivers(repository: Path) -> None:
    text = (repository / "spike_perception_msgs" / "msg" / "EventPacket.msg").read_text()
    ours = get_types_from_msg(text, PACKET_TYPES[1])[PACKET_TYPES[1]]
    assert ours == get_types_from_msg(DEFINITIONS[PACKET_TYPES[0]], "a_msgs/msg/B")["a_msgs/msg/B"]


def test_a_bag_without_definitions_is_replayed_as_it_is(tmp_path: Path) -> None:
    path = packet_bag(tmp_path / "bag", PACKET_TYPES[0], StoragePlugin.SQLITE3)
    with RawBag(path) as bag:
        assert len(list(bag.raw(["/events"]))) == 3


EVENTS = [(k % 80, k % 60, 10**9 * 1_500_000_000 + 1000 * k, k % 3 == 0) for k in range(9)]


@pytest.mark.parametrize("name", ARRAY_TYPES)
@pytest.mark.parametrize("frame_id", ["", "d", "dv", "dvs", "dvs0"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 9])
def test_arrays_of_both_releases(name: str, frame_id: str, number: int) -> None:
    for release, little in (
        (Stores.ROS1_NOETIC, True),
        (Stores.ROS2_JAZZY, True),
        (Stores.ROS2_JAZZY, False),
    ):
        types = store(release)
        message = array(types, name, EVENTS[:number], frame_id)
        if release is Stores.ROS1_NOETIC:
            stamped = events_from_ros1(bytes(types.serialize_ros1(message, name)))
        else:
            stamped = events_from_cdr(
                bytes(types.serialize_cdr(message, name, little_endian=little))
            )
        assert (stamped.stamp_ns, stamped.frame_id) == (5 * 10**9 + 3, frame_id)
        assert (stamped.width, stamped.height) == (80, 60)
        events = stamped.events
        columns = (events.x, events.y, events.t_ns, events.polarity)
        seen = [tuple(row) for row in zip(*(c.tolist() for c in columns), strict=True)]
        assert seen == EVENTS[:number]


def test_arrays_cut_short_are_refused() -> None:
    name = ARRAY_TYPES[0]
    for release, parse in (
        (Stores.ROS1_NOETIC, events_from_ros1),
        (Stores.ROS2_JAZZY, events_from_cdr),
    ):
        types = store(release)
        message = array(types, name, EVENTS)
        one = release is Stores.ROS1_NOETIC
        data = bytes((types.serialize_ros1 if one else types.serialize_cdr)(message, name))
        for length in (0, 1, 10, 20, 30, len(data) - 2):
            with pytest.raises(EventError) as caught:
                parse(data[:length])
            assert caught.value.reason == "truncated_packet"
        claims = bytearray(data)
        at = data.index((9).to_bytes(4, "little"))
        claims[at : at + 4] = b"\xff" * 4
        with pytest.raises(EventError):
            parse(bytes(claims))


def test_arrays_of_a_ros1_bag(tmp_path: Path) -> None:
    name = ARRAY_TYPES[0]
    types = store(Stores.ROS1_NOETIC)
    with Writer1(tmp_path / "run.bag") as bag:
        connection = bag.add_connection("/dvs/events", name, typestore=types)
        outside = [(80, 0, 1, True), (0, 60, 1, True)]
        message = array(types, name, EVENTS + outside)
        bag.write(connection, 10**9, types.serialize_ros1(message, name))
    with EventBag(tmp_path / "run.bag") as reader:
        assert reader.event_topic() == "/dvs/events"
        (stamped,) = reader.arrays()
        assert len(stamped.events) == len(EVENTS)
        with pytest.raises(InputError) as caught:
            next(reader.packets())
    assert caught.value.reason == "topic_missing"


def test_real_recording(data: Path) -> None:
    path = data / "event_bag"
    if not path.exists():
        pytest.skip(f"no {path}")
    stream = EventStream()
    with EventBag(path) as bag:
        decoded = [stream.decode(each.packet) for each in bag.packets()]
    on = sum(int(each.events.polarity.sum()) for each in decoded)
    assert (on, sum(len(each.events) for each in decoded) - on) == (125_183, 218_291)
    assert [each.continues for each in decoded] == [False] + [True] * 516
    assert stream.counts == {"packets": 517}
    assert (stream.width, stream.height) == (640, 480)
