# SPDX-License-Identifier: Apache-2.0
"""Point students: order of points, windows of events, width of the input."""

from __future__ import annotations

import pytest
import torch

from spike_perception.errors import InputError

KINDS = ("pointformer", "pointnet")


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_the_points_does_not_matter(small, inputs, kind):
    student = small(kind).double()
    x = inputs(student).double()
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(student(x), student(x[:, order]))


@pytest.mark.parametrize("kind", KINDS)
def test_one_window_of_events_per_step(small, inputs, kind):
    student = small(kind, steps=6)
    windows = inputs(student, 2, steps=6)
    with torch.no_grad():
        together = student(windows)
        state, total = None, 0
        for t in range(6):
            y_t, state = student.step(student.prepare(windows[:, t]), state)
            total = total + y_t
    assert torch.equal(together, total)


@pytest.mark.parametrize("kind", KINDS)
def test_points_of_another_width_are_refused(small, inputs, kind):
    student = small(kind)
    with pytest.raises(InputError, match="values"):
        student(torch.zeros(1, 200, 7))


def test_the_number_of_points_is_free(small):
    with torch.no_grad():
        for kind in KINDS:
            student = small(kind)
            assert student(torch.randn(1, 57, 3 + student.config.point_features)).shape[0] == 1
