# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.sensing.event_cloud import EventCloudConfig, packet_from_cloud
from spike_perception.sensing.event_stream import EventPacket, EventStream
from spike_perception.sensing.points import DATATYPE, CloudLayout, Field

CONFIG = EventCloudConfig(width=8, height=6)


def cloud(config: EventCloudConfig = CONFIG, big: bool = False, **columns: np.ndarray):
    """A packet from columns by field name, each in its own type."""
    number = len(next(iter(columns.values())))
    order = ">" if big else "<"
    kinds = [(name, each.dtype.newbyteorder(order)) for name, each in columns.items()]
    rows = np.zeros(number, kinds)
    for name, each in columns.items():
        rows[name] = each
    fields = [
        Field(name, rows.dtype.fields[name][1], DATATYPE[each.dtype], 1)
        for name, each in columns.items()
    ]
    step = rows.dtype.itemsize
    layout = CloudLayout(1, number, fields, big, step, step * number)
    return packet_from_cloud(layout, rows.tobytes(), config)


def rows_of(packet: EventPacket) -> list[tuple[int, int, bool, int]]:
    events = EventStream().decode(packet).events
    columns = (events.x, events.y, events.polarity, events.t_ns)
    return list(zip(*(each.tolist() for each in columns), strict=True))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("pixel", [np.int8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("times", "kind"), [([7, 1000], np.uint32), ([7e-9, 1e-6], np.float64), ([7, 1000], np.int32)]
)
def test_fields_of_any_type(big: bool, pixel: type, times: list[float], kind: type) -> None:
    packet = cloud(
        big=big,
        x=np.array([1, 7], pixel),
        y=np.array([5, 0], pixel),
        t=np.array(times, kind),
        p=np.array([1, 0], np.uint8),
    )
    assert rows_of(packet) == [(1, 5, True, 7), (7, 0, False, 1000)]


def test_other_names_and_units() -> None:
    packet = cloud(
        EventCloudConfig(8, 6, "us"),
        polarity=np.array([-1.0, 1.0], np.float32),
        timestamp=np.array([1.5, 3], np.float64),
        y=np.array([0, 0], np.uint16),
        x=np.array([2, 3], np.uint16),
    )
    assert rows_of(packet) == [(2, 0, False, 1500), (3, 0, True, 3000)]


def test_what_is_off_the_sensor_is_left_to_the_decoder() -> None:
    x = np.array([-1, 8, np.nan, np.inf, 1e30, 3], np.float32)
    ones = np.ones(6, np.uint16)
    packet = cloud(x=x, y=ones, t=ones.astype(np.uint32), p=ones)
    stream = EventStream()
    assert len(stream.decode(packet).events) == 1
    assert stream.counts["outside"] == 5


def test_time_within_a_cloud_may_fall() -> None:
    ones = np.ones(3, np.uint16)
    stream = EventStream()
    packet = cloud(x=ones, y=ones, t=np.array([30, 10, 20], np.uint32), p=ones)
    assert stream.decode(packet).events.t_ns.tolist() == [30, 30, 30]
    assert stream.counts["stepped_back"] == 2


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ([0.0, 5.0], "invalid_events"),
        ([0.0, np.nan], "invalid_events"),
        ([0.0, 1e300], "invalid_events"),
        ([-1.0, 0.0], "invalid_events"),
    ],
)
def test_times_that_cannot_be(times: list[float], reason: str) -> None:
    ones = np.ones(2, np.uint16)
    with pytest.raises(InputError) as caught:
        cloud(x=ones, y=ones, t=np.array(times), p=ones)
    assert caught.value.reason == reason


@pytest.mark.parametrize("missing", ["x", "y", "t", "p"])
def test_a_field_that_is_missing_is_named(missing: str) -> None:
    columns = {name: np.ones(2, np.uint32) for name in "xytp" if name != missing}
    with pytest.raises(InputError, match=f"'{missing}'") as caught:
        cloud(**columns)
    assert caught.value.reason == "missing_field"


def test_a_cloud_without_events_breaks_nothing() -> None:
    stream = EventStream()
    column = {"x": np.uint16, "y": np.uint16, "t": np.uint32, "p": np.uint8}
    for number in (1, 0, 2):
        decoded = stream.decode(cloud(**{n: np.ones(number, k) for n, k in column.items()}))
        assert len(decoded.events) == number
    assert decoded.continues
    assert stream.counts == {"packets": 3}
