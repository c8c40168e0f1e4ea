# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

SCRIPT = """
from spike_perception.training.teachers import operators
first = operators.define_torchvision_operators()
assert operators.define_torchvision_operators() == (), "defined twice"
operators.import_open_clip()
import torch, torchvision
print(len(first), torch.ops.torchvision.nms is not None, torchvision.__version__)
"""


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("torchvision", "open_clip"))),
    reason="torchvision or open_clip is not installed",
)
def test_open_clip_is_imported_beside_any_torch():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "True"


def test_operators_that_are_there_stay():
    own = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True)
    if own.returncode == 0:
        pytest.skip("this torchvision loads its own operators, which none may define before")
    script = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from spike_perception.training.teachers import operators
assert "nms" not in operators.define_torchvision_operators()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
