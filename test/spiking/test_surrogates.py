# SPDX-License-Identifier: Apache-2.0
"""Spike functions: exact values, ties upwards, surrogate slopes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spike_perception.spiking.surrogates import SURROGATES, clipped_round, heaviside


@pytest.mark.parametrize("shape", SURROGATES)
def test_slope_peaks_at_one_on_the_threshold(shape):
    distance = torch.linspace(-3, 3, 601, dtype=torch.float64, requires_grad=True)
    heaviside(distance, shape).sum().backward()
    assert distance.grad.max().item() == pytest.approx(1.0)
    assert distance.grad[300].item() == pytest.approx(1.0)
    assert distance.grad[0] < 0.05


def test_sigmoid_slope_is_the_derivative_of_the_sigmoid():
    distance = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    heaviside(distance, "sigmoid", 4.0).backward()
    sigmoid = 1 / (1 + np.exp(-1.2))
    assert distance.grad.item() == pytest.approx(4 * sigmoid * (1 - sigmoid), rel=1e-12)


def test_heaviside_is_one_at_the_threshold_with_and_without_gradient():
    values = [-1e-7, 0.0, 1e-7]
    plain = heaviside(torch.tensor(values))
    traced = heaviside(torch.tensor(values, requires_grad=True))
    assert plain.tolist() == traced.detach().tolist() == [0.0, 1.0, 1.0]


def test_ties_are_rounded_up():
    ties = torch.tensor([-0.5, 0.5, 1.5, 2.5, 3.5, 4.5])
    assert clipped_round(ties, 4).tolist() == [0, 1, 2, 3, 4, 4]


def test_clipped_round_equals_the_definition():
    x = np.random.default_rng(0).normal(1.5, 2.5, 20_000).astype(np.float32)
    x = np.concatenate([x, np.arange(-2, 7, 0.25, dtype=np.float32)])
    expected = np.floor(np.clip(x, 0, 4) + np.float32(0.5))
    assert np.array_equal(clipped_round(torch.from_numpy(x), 4).numpy(), expected)


def test_straight_through_gradient_is_one_inside_and_zero_outside():
    x = torch.tensor([-0.1, 0.0, 0.2, 3.9, 4.0, 4.1], requires_grad=True)
    clipped_round(x, 4).backward(torch.full((6,), 3.0))
    assert x.grad.tolist() == [0, 3, 3, 3, 3, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_is_kept(dtype):
    x = torch.tensor([0.4, 2.6], dtype=dtype)
    assert clipped_round(x, 4).dtype == heaviside(x).dtype == dtype
