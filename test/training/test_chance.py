# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.training.chance import Order, key, keys, uniform


def test_keys_tell_their_parts_apart():
    grid = keys(1, np.arange(50)[:, None], np.arange(50)[None])
    assert grid.shape == (50, 50) and len(np.unique(grid)) == 2500
    assert key(1, 2) != key(2, 1) and key(1, 2) == key(1, 2) and 0 <= key(3) < 2**63
    assert int(keys(1, 4, 9)) == int(grid[4, 9])


def test_uniform_numbers_are_uniform_and_independent():
    u = uniform(keys(0, np.arange(20_000)), 3)
    assert u.min() >= 0 and u.max() < 1
    for column in u.T:
        shares = np.histogram(column, 10, (0, 1))[0] / len(column)
        assert np.abs(shares - 0.1).max() < 0.01
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < 0.03
    # Neighbouring keys do not give neighbouring numbers.
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03


def test_the_order_is_a_function_of_the_step():
    one, other = Order([7, 30], [1, 1], 5, 0), Order([7, 30], [1, 1], 5, 0)
    forward = [one(step) for step in range(40)]
    for step in reversed(range(40)):
        for a, b in zip(other(step), forward[step], strict=True):
            assert np.array_equal(a, b)
    changed = [Order([7, 30], [1, 1], 5, 1)(step) for step in range(40)]
    assert any(not np.array_equal(a[1], b[1]) for a, b in zip(forward, changed, strict=True))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (4.0, 1.0, 0.1)])
def test_every_set_gives_its_share_and_every_sample_equally_often(weights):
    sizes = [10, 25, 40]
    order = Order(sizes, list(weights), 6, 0)
    seen = [np.zeros(size, int) for size in sizes]
    steps = 200
    for step in range(steps):
        sets, indices, epochs = order(step)
        assert len(sets) == len(indices) == len(epochs) == 6
        for number, index in zip(sets, indices, strict=True):
            seen[number][index] += 1
    shares = np.array(sizes) * weights / np.dot(sizes, weights)
    for number, each in enumerate(seen):
        assert each.sum() == pytest.approx(shares[number] * 6 * steps, abs=1)
        assert each.max() - each.min() <= 1
    assert order.epoch_steps() == round(75 / 6)


def test_an_epoch_is_a_permutation_and_epochs_differ():
    order = Order([12], [1.0], 4, 0)
    first, second = (
        [int(i) for s in steps for i in order(s)[1]] for steps in ((0, 1, 2), (3, 4, 5))
    )
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    assert order(3)[2].tolist() == [1, 1, 1, 1]
