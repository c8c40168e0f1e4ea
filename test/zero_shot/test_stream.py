# SPDX-License-Identifier: Apache-2.0
"""The order of time within a stream."""

from __future__ import annotations

import pytest

from spike_perception.errors import InputError
from spike_perception.zero_shot.stream import StreamOrder


def reason(order: StreamOrder, stamp: int) -> str:
    with pytest.raises(InputError) as refused:
        order.check(stamp)
    assert "scans" in str(refused.value)
    return refused.value.reason


def test_stamps_are_checked_against_the_last_frame_that_was_answered():
    order = StreamOrder("scans")
    assert reason(order, 0) == "zero_stamp"
    order.check(10)
    order.check(5)  # nothing was answered yet
    order.follow(10)
    order.check(10)
    assert reason(order, 9) == "stamp_out_of_order"
    order.reset()
    order.check(1)
