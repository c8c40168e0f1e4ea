# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from spike_perception.errors import InputError
from spike_perception.training.vl2spike.config import ManifoldConfig
from spike_perception.training.vl2spike.manifold import (
    SharedManifold,
    TokenStatistics,
    area_average,
    gram_relation,
    symmetric_info_nce,
    token_cosine,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def fitted(tokens, dimensions):
    statistics = TokenStatistics(tokens.shape[-1])
    for part in tokens.split(3):
        statistics.add(part)
    return statistics.basis(dimensions)


def test_the_basis_is_the_principal_components_however_tokens_are_split():
    tokens = torch.randn(10, 20, 6) * torch.tensor([5.0, 4, 3, 2, 1, 0.5]) + 100.0
    basis = fitted(tokens, 3)
    rows = tokens.reshape(-1, 6).double()
    _, s, v = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    torch.testing.assert_close(basis.mean, rows.mean(0).float())
    torch.testing.assert_close((basis.axes.double() @ v[:3].T).abs(), torch.eye(3).double(),
                               atol=1e-5, rtol=0)  # fmt: skip
    assert basis.explained == pytest.approx(float(s[:3].square().sum() / s.square().sum()))


@pytest.mark.parametrize("dimensions", [0, 7, -1])
def test_impossible_dimensions_are_refused(dimensions):
    with pytest.raises(InputError, match="allowed are 1 to 6") as caught:
        fitted(torch.randn(10, 20, 6), dimensions)
    assert caught.value.reason == "wrong_dimensions"


def test_area_average_of_known_grids():
    row = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
    expected = torch.tensor([(1 + 0.5 * 2) / 1.5, (0.5 * 2 + 3) / 1.5])
    torch.testing.assert_close(area_average(row, 1, 2).flatten(), expected)
    grid = torch.randn(2, 14, 14, 5)
    torch.testing.assert_close(area_average(grid, 14, 14), grid.flatten(1, 2))
    torch.testing.assert_close(area_average(grid, 8, 8).mean(1), grid.mean((1, 2)))
    pooled = functional.avg_pool2d(grid.movedim(3, 1), 2).movedim(1, 3).flatten(1, 2)
    torch.testing.assert_close(area_average(grid, 7, 7), pooled)


@pytest.mark.parametrize("loss", [token_cosine, gram_relation])
def test_identical_tokens_cost_nothing_others_do(loss):
    tokens = torch.randn(2, 5, 8)
    assert loss(tokens, tokens).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(3.0 * tokens, tokens).item() == pytest.approx(0.0, abs=1e-6)
    assert loss(torch.randn(2, 5, 8), tokens).item() > 1e-3


def test_known_values():
    one, other = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
    assert token_cosine(one, other).item() == pytest.approx(1.0)
    assert token_cosine(one, -one).item() == pytest.approx(2.0)
    # Two equal tokens: all Gram rows (1, 1)/sqrt 2. Two orthogonal ones: the identity.
    same, apart = torch.ones(1, 2, 2), torch.eye(2)[None]
    expected = (2 * (1 - math.sqrt(0.5)) ** 2 + 2 * 0.5) / 4
    assert gram_relation(same, apart).item() == pytest.approx(expected)
    scale = torch.tensor(10.0)
    expected = math.log1p(math.exp(-10.0))
    assert symmetric_info_nce(torch.eye(2), torch.eye(2), scale).item() == pytest.approx(
        expected, rel=1e-3
    )
    assert symmetric_info_nce(torch.eye(2)[:1], torch.eye(2)[:1], scale).item() == 0.0


def test_info_nce_is_near_zero_only_on_the_own_images():
    features = torch.eye(6)
    scale = torch.tensor(100.0)
    assert symmetric_info_nce(features, features, scale).item() < 1e-6
    assert symmetric_info_nce(features.roll(1, 0), features, scale).item() > 10.0


def test_gradient_reaches_the_student_only():
    basis = fitted(torch.randn(10, 20, 12), 4)
    module = SharedManifold(basis, 7, 5, (2, 3))
    rates = torch.rand(4, 6, 7, requires_grad=True)
    tokens = torch.randn(4, 5, 5, 12, requires_grad=True)
    features = torch.randn(4, 5, requires_grad=True)
    terms = module(rates, tokens, features)
    assert set(terms) == {"token", "relation", "image"}
    for term in terms.values():
        rates.grad = None
        term.backward(retain_graph=True)
        assert rates.grad.abs().sum() > 0
    assert tokens.grad is None and features.grad is None
    assert all(each.grad is not None for each in module.parameters())
    assert {name for name, _ in module.named_parameters()} == {
        "token_projection.weight", "image_projection.weight", "log_scale"}  # fmt: skip
    assert module.scale.item() == pytest.approx(1 / 0.07, rel=1e-6)


def test_a_student_that_is_the_teacher_lies_on_the_manifold():
    basis = fitted(torch.randn(10, 20, 12), 4)
    module = SharedManifold(basis, 12, 12, (5, 5))
    with torch.no_grad():
        module.token_projection.weight.copy_(basis.axes)
    tokens = torch.randn(4, 5, 5, 12)
    terms = module((tokens - basis.mean).flatten(1, 2), tokens, torch.randn(4, 12))
    assert terms["token"].item() == pytest.approx(0.0, abs=1e-5)
    assert terms["relation"].item() == pytest.approx(0.0, abs=1e-5)


def test_silent_tokens_get_a_finite_gradient():
    module = SharedManifold(fitted(torch.randn(10, 20, 12), 4), 7, 5, (1, 2))
    rates = torch.zeros(3, 2, 7, requires_grad=True)
    terms = module(rates, torch.randn(3, 1, 2, 12), torch.randn(3, 5))
    sum(terms.values()).backward()
    # At most what a floor of 0.01 allows; dividing by 1e-12 would give 1e10.
    assert torch.isfinite(rates.grad).all() and rates.grad.abs().max() < 1e3


def test_shares_of_zero_switch_terms_off():
    config = ManifoldConfig(relation=0.0, image=0.0)
    module = SharedManifold(fitted(torch.randn(10, 20, 12), 4), 7, 5, (1, 2), config)
    terms = module(torch.rand(3, 2, 7), torch.randn(3, 1, 2, 12), torch.randn(3, 5))
    assert set(terms) == {"token"}


@pytest.mark.parametrize(
    ("rates", "tokens", "features"),
    [
        ((3, 4, 7), (3, 2, 2, 12), (3, 5)),
        ((3, 2, 6), (3, 2, 2, 12), (3, 5)),
        ((3, 2, 7), (2, 2, 2, 12), (3, 5)),
        ((3, 2, 7), (3, 4, 12), (3, 5)),
        ((3, 2, 7), (3, 2, 2, 12), (3, 6)),
        ((0, 2, 7), (0, 2, 2, 12), (0, 5)),
    ],
)
def test_wrong_shapes_are_refused(rates, tokens, features):
    module = SharedManifold(fitted(torch.randn(10, 20, 12), 4), 7, 5, (1, 2))
    with pytest.raises(InputError) as caught:
        module(torch.rand(rates), torch.randn(tokens), torch.randn(features))
    assert caught.value.reason == "wrong_shape"
