# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from spike_perception.sensing.event_packets import EventPacker
from spike_perception.sensing.event_stream import EventStream
from spike_perception.sensing.events import Events


def test_packets_are_read_back_without_a_gap():
    rng = np.random.default_rng(0)
    pack, stream = EventPacker(240, 180), EventStream()
    start = 1_700_000_000_000_000_000
    for k in range(3):
        events = Events(
            rng.integers(0, 240, 500).astype(np.uint16),
            rng.integers(0, 180, 500).astype(np.uint16),
            rng.random(500) < 0.5,
            np.sort(start + 10_000_000 * k + rng.integers(0, 10_000_000, 500)),
        )
        packet = pack(events)
        assert (packet.seq, packet.time_base, packet.encoding) == (k, events.t_ns[0], "mono")
        decoded = stream.decode(packet)
        assert decoded.continues == (k > 0)
        for name in ("x", "y", "polarity", "t_ns"):
            assert np.array_equal(getattr(decoded.events, name), getattr(events, name))
    assert stream.counts == {"packets": 3}
    assert (stream.width, stream.height) == (240, 180)
