# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from spike_perception.errors import InputError
from spike_perception.training.vl2spike.config import PrototypeConfig
from spike_perception.training.vl2spike.prototypes import (
    Prototypes,
    choose_templates,
    feature_cosine,
    logit_distillation,
    step_cross_entropy,
    text_anchors,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_prompt_dropout_follows_its_generator():
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    draws = [choose_templates(8, 0.5, generator).tolist() for _ in range(200)]
    assert all(len(set(each)) == 4 and each == sorted(each) for each in draws)
    assert {index for each in draws for index in each} == set(range(8))
    assert len({tuple(each) for each in draws}) > 30
    generator.set_state(state)
    assert [choose_templates(8, 0.5, generator).tolist() for _ in range(200)] == draws
    assert choose_templates(8, 1.0, generator).tolist() == list(range(8))
    assert len(choose_templates(8, 0.0, generator)) == 1
    for arguments, reason in (((0, 0.5), "no_templates"), ((8, 1.5), "wrong_share")):
        with pytest.raises(InputError) as caught:
            choose_templates(*arguments, generator)
        assert caught.value.reason == reason


def test_anchors_are_mean_directions_of_the_chosen_templates():
    text = torch.tensor([[[3.0, 0.0], [0.0, 7.0], [-1.0, 0.0]]], requires_grad=True)
    both = text_anchors(text, torch.tensor([0, 1]))
    torch.testing.assert_close(both, torch.full((1, 2), math.sqrt(0.5)))
    torch.testing.assert_close(text_anchors(text), torch.tensor([[0.0, 1.0]]))
    assert not both.requires_grad


def test_equal_directions_have_equal_logits():
    teacher, anchors = torch.randn(5, 8), torch.randn(3, 8)
    student = (4.0 * teacher).expand(2, 5, 8)
    assert logit_distillation(student, teacher, anchors, 50.0, 2.0).item() == pytest.approx(
        0.0, abs=1e-5
    )
    assert logit_distillation(torch.randn(2, 5, 8), teacher, anchors, 50.0, 2.0).item() > 0.1


def test_feature_distillation_is_zero_for_equal_directions_and_teaches_the_student_alone():
    teacher = torch.randn(5, 8, requires_grad=True)
    assert feature_cosine(3.0 * teacher.detach().expand(2, 5, 8), teacher).item() == pytest.approx(
        0.0, abs=1e-6
    )
    assert feature_cosine(-teacher.detach()[None], teacher).item() == pytest.approx(2.0)
    student = torch.randn(2, 5, 8, requires_grad=True)
    feature_cosine(student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None
    with pytest.raises(InputError, match="teacher features"):
        feature_cosine(torch.zeros(2, 5, 8), torch.zeros(4, 8))


def test_known_divergence():
    anchors = torch.eye(2)
    teacher, student = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 1.0]]])
    # Logits (2, 0) / 2 against (0, 2) / 2: the odds are e and 1/e, so KL = p - q with p/q = e.
    p = math.e / (1 + math.e)
    expected = 4.0 * (p - (1 - p))
    assert logit_distillation(student, teacher, anchors, 2.0, 2.0).item() == pytest.approx(expected)
    halves = torch.cat([student, teacher[None]])
    assert logit_distillation(halves, teacher, anchors, 2.0, 2.0).item() == pytest.approx(
        expected / 2
    )


def test_cross_entropy_leaves_out_what_has_no_label():
    logits, labels = torch.randn(3, 4, 5), torch.tensor([0, -1, 4, -100])
    expected = torch.stack(
        [functional.cross_entropy(each[[0, 2]], labels[[0, 2]]) for each in logits]
    )
    torch.testing.assert_close(step_cross_entropy(logits, labels), expected.mean())
    assert step_cross_entropy(logits, torch.full((4,), -1)).item() == 0.0
    sure = 100.0 * functional.one_hot(torch.arange(4), 5).float().expand(3, 4, 5)
    assert step_cross_entropy(sure, torch.arange(4)).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("labels", [torch.tensor([0, 5]), torch.tensor([0.0, 1.0])])
def test_impossible_labels_are_refused(labels):
    for call in (
        lambda: step_cross_entropy(torch.zeros(1, 2, 5), labels),
        lambda: Prototypes(5, 3)(torch.zeros(2, 3), labels, torch.randn(5, 3)),
    ):
        with pytest.raises(InputError, match="integers up to 4") as caught:
            call()
        assert caught.value.reason == "wrong_label"


def test_prototypes_on_their_anchors_cost_nothing():
    anchors = functional.normalize(torch.randn(4, 6), dim=-1)
    labels = torch.tensor([2, 0, 0, -1, 3])
    module = Prototypes(4, 6)
    for _ in range(3):
        assert module(5.0 * anchors[labels], labels, anchors).item() == pytest.approx(0, abs=1e-6)
    assert module.seen.tolist() == [True, False, True, True]
    torch.testing.assert_close(module.prototypes[[0, 2, 3]], anchors[[0, 2, 3]])
    assert module(anchors[labels].roll(1, 0), labels, anchors).item() > 0.0
    assert module(anchors[labels], torch.full((5,), -1), anchors).item() == 0.0


def test_known_prototype_value():
    anchors = torch.eye(2)
    # Both samples lie at 45 degrees: cosines sqrt 1/2, products all 1 instead of the identity.
    found = Prototypes(2, 2)(torch.ones(2, 2), torch.tensor([0, 1]), anchors)
    assert found.item() == pytest.approx(1 - math.sqrt(0.5) + 0.5 * 0.5)


def test_prototypes_move_slowly_in_training_and_not_otherwise():
    module = Prototypes(2, 2, PrototypeConfig(momentum=0.9))
    label, anchors = torch.tensor([0]), torch.eye(2)
    module(torch.tensor([[1.0, 0.0]]), label, anchors)
    module(torch.tensor([[0.0, 2.0]]), label, anchors)
    torch.testing.assert_close(module.prototypes[0], torch.tensor([0.9, 0.1]))
    module.eval()(torch.tensor([[0.0, 2.0]]), label, anchors)
    torch.testing.assert_close(module.prototypes[0], torch.tensor([0.9, 0.1]))


def test_gradient_has_the_size_of_the_batch_mean_and_reaches_the_student_only():
    sizes = []
    for momentum in (0.0, 0.99):
        module = Prototypes(4, 6, PrototypeConfig(momentum=momentum))
        generator = torch.Generator().manual_seed(1)
        embeddings = torch.randn(8, 6, generator=generator).requires_grad_()
        anchors = torch.randn(4, 6, generator=generator).requires_grad_()
        labels = torch.arange(8) % 4
        module(embeddings.detach(), labels, anchors)
        module(embeddings, labels, anchors).backward()
        assert anchors.grad is None
        sizes.append(embeddings.grad.norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=1e-4)


def test_logits_send_gradient_into_the_student_only():
    student = torch.randn(2, 5, 8, requires_grad=True)
    teacher, anchors = torch.randn(5, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    logit_distillation(student, teacher, anchors, 10.0, 2.0).backward()
    assert (student.grad.abs().sum((1, 2)) > 0).all()
    assert teacher.grad is None and anchors.grad is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: text_anchors(torch.zeros(3, 4)),
        lambda: logit_distillation(
            torch.zeros(2, 5, 8), torch.zeros(4, 8), torch.zeros(3, 8), 1.0, 2.0
        ),
        lambda: logit_distillation(
            torch.zeros(2, 5, 8), torch.zeros(5, 8), torch.zeros(3, 7), 1.0, 2.0
        ),
        lambda: step_cross_entropy(torch.zeros(4, 5), torch.zeros(4, dtype=torch.long)),
        lambda: step_cross_entropy(torch.zeros(1, 4, 5), torch.zeros(3, dtype=torch.long)),
        lambda: Prototypes(3, 4)(torch.zeros(2, 5), torch.zeros(2).long(), torch.zeros(3, 4)),
        lambda: Prototypes(3, 4)(torch.zeros(2, 4), torch.zeros(2).long(), torch.zeros(2, 4)),
    ],
)
def test_wrong_shapes_are_refused(call):
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.reason == "wrong_shape"
