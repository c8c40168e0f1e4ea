# SPDX-License-Identifier: Apache-2.0
"""Random assemblies."""

from __future__ import annotations

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.training.svl.abstract import abstract_shapes


def test_shapes_are_in_the_unit_sphere_and_differ() -> None:
    found = abstract_shapes(40, seed=0, points=200)
    assert found.shape == (40, 200, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=2).max(1), 1, atol=1e-5)
    extents = np.ptp(found, axis=1)
    assert len(np.unique(extents.round(3), axis=0)) == 40
    assert extents.min(1).max() > 0.5
    assert extents.min(1).min() < 0.5


def test_a_shape_depends_on_seed_and_place_alone() -> None:
    few, many = abstract_shapes(3, seed=7), abstract_shapes(6, seed=7)
    np.testing.assert_array_equal(few, many[:3])
    assert not np.array_equal(few, abstract_shapes(3, seed=8))


@pytest.mark.parametrize(("count", "points"), [(0, 100), (3, 3)])
def test_nothing_is_refused(count: int, points: int) -> None:
    with pytest.raises(InputError) as caught:
        abstract_shapes(count, 0, points)
    assert caught.value.reason == "invalid_option"
