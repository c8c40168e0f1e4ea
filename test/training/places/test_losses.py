# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from spike_perception.errors import InputError  # noqa: E402
from spike_perception.training.places.losses import (  # noqa: E402
    pair_nce,
    too_near,
    unit_signs,
)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(values, dim=-1)


def nothing(count: int) -> torch.Tensor:
    return torch.zeros(count, count, dtype=torch.bool)


@pytest.mark.parametrize("near", [[], [(0, 1), (1, 0)]])
def test_the_pair_loss_is_its_formula(near: list[tuple[int, int]]) -> None:
    first, second = unit(3, 5), unit(3, 5, seed=1)
    ignored = nothing(3)
    for pair in near:
        ignored[pair] = True
    views, total = [first, second], 0.0
    for side in range(2):
        for k in range(3):
            own = math.exp(7 * float(views[side][k] @ views[1 - side][k]))
            others = sum(
                math.exp(7 * float(views[side][k] @ each[j]))
                for each in views
                for j in range(3)
                if j != k and (k, j) not in near
            )
            total -= math.log(own / (own + others))
    found = pair_nce(first, second, ignored, torch.tensor(7.0))
    assert float(found) == pytest.approx(total / 6, rel=1e-5)


def test_equal_views_of_unlike_places_cost_nothing() -> None:
    views = torch.eye(4)
    assert float(pair_nce(views, views, nothing(4), torch.tensor(50.0))) < 1e-6


def test_places_near_one_another_are_no_negatives() -> None:
    drive = torch.tensor([0, 0, 0, 1, -1, -1, -1])
    place = torch.tensor([5, 7, 8, 6, 5, 6, 5])
    near = too_near(drive, place, 2)
    assert near.diagonal().all()
    assert near[0].tolist() == [True, True, False, False, False, False, False]
    # A photo drawn twice is the same place, its neighbour in the set is not.
    assert near[4].tolist() == [False, False, False, False, True, False, True]


def test_signs_compare_as_maps_compare_bits() -> None:
    values = torch.tensor([[0.5, -2.0, 0.1, 3.0], [1.0, 1.0, -1.0, 0.2]], requires_grad=True)
    signs = unit_signs(values)
    assert float((signs[0] @ signs[1]).detach()) == pytest.approx(1 - 2 * 2 / 4)
    signs.sum().backward()
    assert (values.grad != 0).tolist() == [[True, False, True, False], [True] * 4]


def test_shapes_are_checked() -> None:
    with pytest.raises(InputError):
        pair_nce(unit(3, 5), unit(2, 5), nothing(3), torch.tensor(1.0))
