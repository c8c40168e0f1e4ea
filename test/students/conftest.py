# SPDX-License-Identifier: Apache-2.0
"""Students with random weights whose batch normalisation has seen data, and data for them."""

from __future__ import annotations

import pytest
import torch

from spike_perception.students.registry import create_student

#: Small but whole: every kind of layer of the default students is in them.
SMALL = {
    "spikformer": (
        "spikformer-s",
        {"height": 32, "width": 48, "first_stride": 2, "stem_channels": 12, "middle_channels": 16,
         "channels": 48, "heads": 3, "blocks": 2, "features": 40},
    ),
    "published": (
        "published-spikformer-4-256",
        {"channels": 96, "heads": 2, "blocks": 1, "size": 32},
    ),
    "pointformer": (
        "pointformer-s",
        {"groups": 12, "neighbours": 8, "channels": 48, "heads": 3, "blocks": 2,
         "patch_channels": 8, "point_features": 1},
    ),
    "pointnet": (
        "spike-pointnet-s",
        {"local_channels": 16, "global_channels": 64, "features": 40, "hidden_layers": 2},
    ),
}  # fmt: skip


def samples(student, batch=2, steps=None, seed=0):
    """Random data [B, ...], or [B, T, ...], in the student's own layout."""
    generator = torch.Generator().manual_seed(seed)
    config = student.config
    if hasattr(config, "height"):
        shape = (3, config.height, config.width)
    elif hasattr(config, "size"):
        shape = (3, config.size, config.size)
    else:
        shape = (128 if config.steps > 1 else 256, 3 + config.point_features)
    lead = (batch,) if steps is None else (batch, steps)
    return torch.randn(*lead, *shape, generator=generator)


@pytest.fixture(autouse=True)
def seeded():
    """Seed torch, and keep to one thread: tests run in parallel already."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def warm(student, batch=8):
    """Evaluation mode after a few batches of statistics, so that every layer spikes."""
    student.train()
    for module in student.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None  # a plain average over the batches
    for seed in range(2):
        student(samples(student, batch, seed=100 + seed))
    return student.eval()


@pytest.fixture
def small():
    def make(kind, **settings):
        torch.manual_seed(0)
        name, overrides = SMALL[kind]
        return warm(create_student(name, {**overrides, **settings}))

    return make


@pytest.fixture
def inputs():
    return samples


@pytest.fixture
def preset():
    def make(name):
        torch.manual_seed(0)
        return warm(create_student(name), 2)

    return make
