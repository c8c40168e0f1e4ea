# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional

from spike_perception.errors import InputError
from spike_perception.training.svl.mta import MTAConfig, MTALoss, info_nce, squared_distance
from spike_perception.zero_shot.folding import fold


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def test_info_nce_is_equation_6_written_out():
    x, y, g = unit(5, 8), unit(5, 8, seed=1), 7.0
    total = 0.0
    for i in range(5):
        along = sum(math.exp(g * float(x[i] @ y[j])) for j in range(5))
        across = sum(math.exp(g * float(x[j] @ y[i])) for j in range(5))
        own = math.exp(g * float(x[i] @ y[i]))
        total += math.log(own / along) + math.log(own / across)
    assert float(info_nce(x, y, torch.tensor(g))) == pytest.approx(-total / 10, rel=1e-5)


def test_samples_of_one_class_are_all_positives():
    y = unit(2, 16)[[0, 0, 1]]
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    # Perfect alignment leaves the entropy of the choice among equals, and no gradient.
    x = y.clone().requires_grad_()
    loss = info_nce(x, y, torch.tensor(100.0), same)
    assert float(loss.detach()) == pytest.approx(2 / 3 * math.log(2), abs=1e-3)
    loss.backward()
    tangential = x.grad - (x.grad * y).sum(1, keepdim=True) * y
    assert float(tangential.abs().max()) < 1e-2
    # In other prompts twins have other texts: which of them a twin gets must not matter.
    texts, spikes, scale = unit(3, 16, seed=3), unit(3, 16, seed=4), torch.tensor(5.0)
    swapped = texts[[1, 0, 2]]
    torch.testing.assert_close(
        info_nce(spikes, texts, scale, same), info_nce(spikes, swapped, scale, same)
    )
    assert not torch.isclose(info_nce(spikes, texts, scale), info_nce(spikes, swapped, scale))


@pytest.mark.parametrize("reduction", ["sample", "sum", "element"])
def test_equal_features_are_at_distance_zero(reduction):
    x = unit(4, 8)
    assert squared_distance(x, x, reduction) == 0


def test_reductions_differ_by_their_denominators():
    x, y = unit(4, 8), unit(4, 8, seed=1)
    whole = float(squared_distance(x, y, "sum"))
    assert whole == pytest.approx(float((x - y).square().sum()))
    assert float(squared_distance(x, y, "sample")) == pytest.approx(whole / 4)
    assert float(squared_distance(x, y, "element")) == pytest.approx(whole / 32)


def batch(size=6, width=8, counts=10):
    generator = torch.Generator().manual_seed(3)
    rates = torch.rand(size, counts, generator=generator).requires_grad_()
    texts, images = unit(size, width, seed=5), unit(size, width, seed=6)
    return rates, texts.requires_grad_(), images.requires_grad_()


@pytest.mark.parametrize(
    ("weights", "present"),
    [
        ({"image": 0.0, "mse": 0.0}, {"text"}),
        ({"text": 0.0, "mse": 0.0}, {"image"}),
        ({"mse": 0.0}, {"text", "image"}),
        ({}, {"text", "image", "mse"}),
        ({"own_image_projection": True}, {"text", "image", "mse"}),
    ],
)
def test_terms_are_switches_and_the_teacher_gets_no_gradient(weights, present):
    loss = MTALoss(10, 8, MTAConfig(**weights))
    rates, texts, images = batch()
    total, terms = loss(rates, texts, torch.arange(6) % 3, images)
    total.backward()
    assert set(terms) == present | {"scale"}
    assert float(total.detach()) == pytest.approx(
        sum(float(terms[name].detach()) for name in present)
    )
    assert rates.grad is not None and rates.grad.abs().sum() > 0
    assert texts.grad is None and images.grad is None
    assert loss.projection.weight.grad is not None
    assert (loss.log_scale.grad is None) == (present == {"mse"})


def test_only_named_samples_take_part_in_the_text_term():
    loss = MTALoss(10, 8, MTAConfig(image=0.0, mse=0.0))
    rates, texts, _ = batch()
    labels = torch.tensor([0, 1, 2, -1, -1, -1])
    whole = loss(rates, texts, labels, None)[1]["text"]
    part = loss(rates[:3], texts[:3], labels[:3], None)[1]["text"]
    assert torch.equal(whole, part)
    total, terms = loss(rates, texts, torch.full((6,), -1), None)
    assert set(terms) == {"scale"} and float(total.detach()) == 0.0
    total.backward()  # a batch without names moves nothing, and fails no step


def test_the_scale_starts_at_the_released_value_and_is_bounded():
    loss = MTALoss(4, 4, MTAConfig())
    assert float(loss.log_scale.exp()) == pytest.approx(14.28)
    with torch.no_grad():
        loss.log_scale.fill_(50.0)
    assert float(loss(torch.rand(2, 4), unit(2, 4), torch.arange(2), unit(2, 4))[1]["scale"]) == 100


def test_without_any_term_there_is_nothing_to_train():
    with pytest.raises(InputError, match="all 0"):
        MTALoss(4, 4, MTAConfig(text=0.0, image=0.0, mse=0.0))
    with pytest.raises(InputError, match="teacher's features"):
        MTALoss(4, 4, MTAConfig())(torch.rand(2, 4), unit(2, 4), torch.arange(2), None)


def test_the_projection_folds_into_the_vocabulary():
    """The cosine of P r with each text and the folded rows on counts choose alike."""
    loss = MTALoss(12, 8, MTAConfig())
    counts = torch.randint(0, 9, (200, 12)).float() + 1.0
    texts = unit(7, 8, seed=2)
    x = functional.normalize(loss.projection(counts / 8), dim=1)
    folded = fold(list(texts.numpy()), projection=loss.projection.weight.detach().numpy().T)
    # Rows P^T t differ in length, so the plain argmax is that of unit rows only after folding.
    rows = functional.normalize(texts @ loss.projection.weight.detach(), dim=1).numpy()
    np.testing.assert_allclose(folded.rows, rows, atol=1e-6)
    scores = (x @ texts.T).detach().numpy()
    lengths = np.linalg.norm((texts @ loss.projection.weight.detach()).numpy(), axis=1)
    np.testing.assert_array_equal(
        (scores / lengths).argmax(1), (counts.numpy() @ folded.rows.T).argmax(1)
    )


HALF = """
import sys, torch
from torch.distributed import init_process_group
from torch.nn.parallel import DistributedDataParallel
from spike_perception.training.svl.mta import MTAConfig, MTALoss

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if world > 1:
    init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
torch.manual_seed(0)
loss = MTALoss(10, 8, MTAConfig())
rates, texts, images = torch.rand(8, 10), torch.randn(8, 8), torch.randn(8, 8)
texts, images = (torch.nn.functional.normalize(each, dim=1) for each in (texts, images))
labels = torch.tensor([0, 1, 2, 0, -1, 1, 2, 0])
own = [each[rank::world] for each in (rates, texts, labels, images)]
module = DistributedDataParallel(loss) if world > 1 else loss
module(*own)[0].backward()
if rank == 0:
    torch.save(loss.projection.weight.grad, f"{folder}/gradient{world}.pt")
"""


@pytest.mark.slow
def test_processes_together_have_the_gradient_of_the_whole_batch(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", HALF, str(tmp_path), str(rank), str(world)], env=environment
        )
        for rank, world in ((0, 2), (1, 2), (0, 1))
    ]
    assert [each.wait(timeout=200) for each in started] == [0, 0, 0]
    one, two = (torch.load(tmp_path / f"gradient{n}.pt", weights_only=True) for n in (1, 2))
    torch.testing.assert_close(one, two)
