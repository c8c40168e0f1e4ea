# SPDX-License-Identifier: Apache-2.0
"""Bundles of small students with random weights, whose every layer spikes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spike_perception.deploy.bundle import Bundle
from spike_perception.students.registry import create_student, student_config_to_json

SMALL = {
    "spikformer": (
        "spikformer-s",
        {"height": 32, "width": 48, "first_stride": 2, "stem_channels": 12, "middle_channels": 16,
         "channels": 48, "heads": 3, "blocks": 2, "features": 40},
    ),
    "published-spikformer": (
        "published-spikformer-4-256",
        {"channels": 96, "heads": 2, "blocks": 1, "size": 32, "neuron": "ilif", "steps": 1},
    ),
    "pointformer": (
        "pointformer-s",
        {"groups": 12, "neighbours": 8, "channels": 48, "heads": 3, "blocks": 2,
         "patch_channels": 8, "point_features": 1},
    ),
    "spike-pointnet": (
        "spike-pointnet-s",
        {"local_channels": 16, "global_channels": 64, "features": 40, "hidden_layers": 2,
         "point_features": 1},
    ),
}  # fmt: skip
POINTS = 96


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def raw(student, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    config = student.config
    if hasattr(config, "height"):
        shape = (3, config.height, config.width)
    elif hasattr(config, "size"):
        shape = (3, config.size, config.size)
    else:
        shape = (POINTS, 3 + config.point_features)
    return torch.randn(batch, *shape, generator=generator)


@torch.no_grad()
def random_student(kind, **settings):
    """A student whose batch normalisation has seen data."""
    torch.manual_seed(0)
    name, overrides = SMALL[kind]
    student = create_student(name, {**overrides, **settings}).train()
    for module in student.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None  # a plain average over the batches
    for seed in range(2):
        student(raw(student, 8, seed=100 + seed))
    return student.eval().requires_grad_(False)


def bundle_of(student, **preprocessing):
    """The student as a bundle."""
    written = student_config_to_json(student)
    config = student.config
    if hasattr(config, "point_features"):
        kind = "points"
        channels = ["x", "y", "z", *(f"f{i}" for i in range(config.point_features))]
        given = {"points": POINTS, "channels": channels, "normalise": "unit_sphere"}
    else:
        kind = "image"
        size = getattr(config, "size", None)
        given = {
            "input_size": [size, size] if size else [config.height, config.width],
            "channel_order": "rgb",
            "mean": [0.48, 0.46, 0.41],
            "std": [0.27, 0.26, 0.28],
            "resize": "shorter_side_crop",
            "interpolation": "area",
        }
    return Bundle(
        kind=kind,
        student=written["student"],
        student_config=written["config"],
        preprocessing={**given, **preprocessing},
        timesteps=config.steps,
        levels=config.levels if config.neuron == "ilif" else 1,
        embedding_dim=student.feature_dim,
        tensors={name: np.array(each.numpy()) for name, each in student.state_dict().items()},
        provenance={
            "command": "none: random weights",
            "data": [],
            "seeds": [0],
            "version": "0",
            "teacher": None,
        },
    )


@pytest.fixture(scope="session")
def student():
    return random_student


@pytest.fixture(scope="session")
def bundle():
    def make(kind, preprocessing=None, **settings):
        return bundle_of(random_student(kind, **settings), **(preprocessing or {}))

    return make


@pytest.fixture(scope="session")
def sensor():
    """Prepared input for a student."""

    def make(student, batch=2, seed=0):
        return student.prepare(raw(student, batch, seed)).numpy()

    return make
