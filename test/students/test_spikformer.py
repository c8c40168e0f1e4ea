# SPDX-License-Identifier: Apache-2.0
"""Image students: sizes, tokens, the kept classifier of the published form."""

from __future__ import annotations

import pytest
import torch

from spike_perception.errors import InputError
from spike_perception.students.blocks import attention_shift
from spike_perception.students.registry import create_student
from spike_perception.students.spikformer import SpikformerConfig


@pytest.mark.parametrize(("size", "stride"), [(32, 1), (64, 2), (128, 4)])
def test_common_sizes_give_64_tokens(size, stride):
    student = create_student("spikformer-s", height=size, width=size, first_stride=stride)
    assert student.grid == (8, 8)


def test_other_sizes_run_with_the_same_weights(small):
    student = small("spikformer")
    with torch.no_grad():
        trace = student.run(torch.randn(1, 1, 3, 64, 40))
    assert trace.tokens.shape == (1, 1, 8 * 5, 40)
    with pytest.raises(InputError, match="multiples of 8"):
        student(torch.zeros(1, 3, 30, 32))


def test_regions_are_counted_apart(small, inputs):
    whole, parts = small("spikformer"), small("spikformer", regions_rows=2, regions_columns=3)
    x = inputs(whole)
    with torch.no_grad():
        trace = parts.trace(x)
        assert parts.feature_dim == 40 * 6
        torch.testing.assert_close(parts(x).unflatten(1, (40, 6)).sum(2), whole(x))
    tokens = trace.tokens[0].unflatten(1, parts.grid)  # [B, 4, 6, C']
    middle = tokens[:, 2:, 2:4].sum((1, 2))  # second row, second column
    torch.testing.assert_close(trace.feature.unflatten(1, (40, 2, 3))[:, :, 1, 1], middle)
    with torch.no_grad():
        assert parts(torch.zeros(1, 3, 64, 24)).shape == (1, 240)
    with pytest.raises(InputError, match="regions do not divide"):
        parts(torch.zeros(1, 3, 32, 40))


def test_the_scale_follows_tokens_width_and_levels():
    assert attention_shift(SpikformerConfig(), 64, 32) == 6
    assert attention_shift(SpikformerConfig(), 256, 32) == 8
    assert attention_shift(SpikformerConfig(neuron="lif", steps=4), 64, 32) == -3


def test_the_published_classifier(small, inputs):
    student = small("published", classes=7)
    with torch.no_grad():
        logits = student.classify(inputs(student))
        counts = student(inputs(student))
    assert logits.shape == (2, 7)
    torch.testing.assert_close(logits, student.head(counts / (4 * 64)))
    with pytest.raises(InputError, match="classes = 0"):
        small("published").classify(inputs(student))
