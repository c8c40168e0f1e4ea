# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import builtins
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.errors import InputError
from spike_perception.sensing.event_noise import (
    BackgroundActivityFilter,
    DvBackgroundActivityFilter,
    NoiseConfig,
    create_filter,
)
from spike_perception.sensing.events import Events

US = 1000


def random_events(seed: int, number: int, size: tuple[int, int], span_us: int) -> Events:
    rng = np.random.default_rng(seed)
    return Events(
        rng.integers(0, size[0], number, dtype=np.uint16),
        rng.integers(0, size[1], number, dtype=np.uint16),
        rng.random(number) < 0.5,
        np.sort(rng.integers(0, span_us // 50, number)) * 50 * US,  # often just as far as allowed
    )


def reference(events: Events, support_us: int) -> np.ndarray:
    """Event by event."""
    kept = np.zeros(len(events), np.bool_)
    last: dict[tuple[int, int], int] = {}
    for k in range(len(events)):
        x, y, t = int(events.x[k]), int(events.y[k]), int(events.t_ns[k])
        around = [(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
        kept[k] = any(t - last[p] < support_us * US for p in around if p in last)
        last[x, y] = t
    return kept


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([(1, 1), (2, 9), (16, 12), (40, 30)]),
    st.sampled_from([50, 2000, 20_000]),
    st.lists(st.integers(0, 1000), max_size=4),
)
def test_equals_event_by_event_however_it_is_cut(
    seed: int, size: tuple[int, int], support_us: int, cuts: list[int]
) -> None:
    events = random_events(seed, 1000, size, 20_000)
    noise = BackgroundActivityFilter(*size, support_us / 1000)
    at = [0, *sorted(cuts), 1000]
    kept = [noise.keep(events[a:b]) for a, b in pairwise(at)]
    np.testing.assert_array_equal(np.concatenate(kept), reference(events, support_us))
    noise.reset()
    np.testing.assert_array_equal(noise.keep(events), reference(events, support_us))


def test_equals_dv_processing() -> None:
    pytest.importorskip("dv_processing")
    events = random_events(1, 3000, (24, 18), 200_000)
    ours = BackgroundActivityFilter(24, 18)
    theirs = DvBackgroundActivityFilter(24, 18)
    for part in (events[:1], events[1:1000], events[1000:1000], events[1000:]):
        kept = ours.keep(part)
        np.testing.assert_array_equal(theirs.keep(part), kept)
    assert 0.2 < kept.mean() < 0.95


def test_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert create_filter(NoiseConfig(filter="none"), 4, 4) is None
    assert isinstance(create_filter(NoiseConfig(), 4, 4), BackgroundActivityFilter)
    real = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "dv_processing":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError) as caught:
        create_filter(NoiseConfig(filter="dv_processing"), 4, 4)
    assert caught.value.reason == "package_missing"
