# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
from rosbags.typesys import get_types_from_msg

from spike_perception.bags.event_replay import PACKET_TYPE, PacketMessages
from spike_perception.bags.events import DEFINITIONS, StampedEvents
from spike_perception.sensing.event_packets import MAX_EVENTS
from spike_perception.sensing.event_stream import EventPacket, EventStream
from spike_perception.sensing.events import Events, concatenate

S = 1_000_000_000


def events(t_ns: np.ndarray) -> Events:
    number = len(t_ns)
    return Events(
        (np.arange(number) % 80).astype(np.uint16),
        (np.arange(number) % 60).astype(np.uint16),
        np.arange(number) % 3 == 0,
        t_ns.astype(np.int64),
    )


def read(messages: list[bytes]):
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_JAZZY)
    types.register(get_types_from_msg(DEFINITIONS[PACKET_TYPE], PACKET_TYPE))
    return [types.deserialize_cdr(each, PACKET_TYPE) for each in messages]


def test_events_are_cut_into_packets_that_mono_can_hold() -> None:
    long = np.arange(MAX_EVENTS + 10) * 100
    gaps = np.array([0, 1, 3 * S, 3 * S + 5, 20 * S])
    packets = PacketMessages()
    given = [StampedEvents(7 * S, "dvs", 80, 60, events(START + t)) for t in (long, gaps + S)]
    messages = [read(packets.messages(each)) for each in given]
    assert [len(each) for each in messages] == [2, 3]
    told = [m for each in messages for m in each]
    assert [m.seq for m in told] == list(range(5))
    assert {(m.width, m.height, m.encoding, m.header.frame_id) for m in told} == {
        (80, 60, "mono", "dvs")
    }
    stamps = [m.header.stamp.sec * S + m.header.stamp.nanosec for m in messages[1]]
    assert stamps == [7 * S, 10 * S, 27 * S]
    stream = EventStream()
    found = [
        stream.decode(
            EventPacket(m.height, m.width, m.seq, m.time_base, m.encoding, False, m.events)
        )
        for m in told
    ]
    assert [each.continues for each in found] == [False, *[True] * 4]
    expected = concatenate([each.events for each in given])
    whole = concatenate([each.events for each in found])
    for name in ("x", "y", "polarity", "t_ns"):
        assert np.array_equal(getattr(whole, name), getattr(expected, name))


START = 1_600_000_000 * S


def test_no_events_make_no_packet_and_another_size_another_count() -> None:
    packets = PacketMessages()
    none = events(np.empty(0))
    assert packets.messages(StampedEvents(S, "", 80, 60, none)) == []
    one = events(np.array([START]))
    (first,) = read(packets.messages(StampedEvents(S, "", 80, 60, one)))
    (other,) = read(packets.messages(StampedEvents(S, "", 90, 60, one)))
    assert (first.seq, other.seq, other.width) == (0, 0, 90)
