# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import pytest
import torch

from spike_perception.config import from_flat, replace, settings, to_flat
from spike_perception.errors import InputError
from spike_perception.students.registry import create_student
from spike_perception.training.vl2spike.config import VL2SpikeConfig
from spike_perception.training.vl2spike.manifold import TokenStatistics
from spike_perception.training.vl2spike.prototypes import choose_templates, text_anchors
from spike_perception.training.vl2spike.total import TeacherBatch, VL2SpikeLoss

SMALL = {
    "height": 32,
    "width": 48,
    "first_stride": 2,
    "stem_channels": 12,
    "middle_channels": 16,
    "channels": 48,
    "heads": 3,
    "blocks": 2,
    "features": 40,
}
INTEGER = {"neuron": "ilif", "steps": 1}
BINARY = {"neuron": "lif", "steps": 4, "learn_initial": True}
SWITCHES = (
    "cross_entropy.enabled",
    "manifold.enabled",
    "temporal.membrane",
    "temporal.rate",
    "prototypes.enabled",
    "logits.enabled",
    "feature.enabled",
)
TERMS = {
    "cross_entropy.enabled": {"cross_entropy"},
    "manifold.enabled": {"manifold.token", "manifold.relation", "manifold.image"},
    "temporal.membrane": {"temporal.membrane"},
    "temporal.rate": {"temporal.rate"},
    "prototypes.enabled": {"prototypes"},
    "logits.enabled": {"logits"},
    "feature.enabled": {"feature"},
}
CLASSES, TEMPLATES, CHANNELS, TOKEN_CHANNELS, BATCH = 3, 4, 16, 20, 8


@pytest.fixture(autouse=True)
def seeded():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


class Scene:
    """A small student, a teacher's made-up answers, and the losses between them."""

    def __init__(self, neuron, only=None, **changes):
        switches = {} if only is None else {name: name in only for name in SWITCHES}
        self.config = replace(VL2SpikeConfig(), {**switches, **changes})
        self.student = create_student("spikformer-s", {**SMALL, **neuron}).train()
        self.images = torch.randn(BATCH, 3, 32, 48)
        tokens = torch.randn(BATCH, 5, 7, TOKEN_CHANNELS) + 1.0
        self.teacher = TeacherBatch(torch.randn(BATCH, CHANNELS), tokens)
        self.labels = torch.arange(BATCH) % CLASSES
        self.text = torch.randn(CLASSES, TEMPLATES, CHANNELS)
        statistics = TokenStatistics(TOKEN_CHANNELS)
        statistics.add(tokens)
        self.loss = VL2SpikeLoss(
            self.student,
            self.text,
            logit_scale=20.0,
            basis=statistics.basis(8),
            grid=self.student.grid,
            config=self.config,
        )
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self, progress=1.0, **changes):
        trace = self.student.trace(self.images, record=self.loss.record)
        given = {
            "teacher": self.teacher,
            "labels": self.labels,
            "progress": progress,
            "generator": self.generator,
            **changes,
        }
        return self.loss(trace, **given)

    def parameters(self):
        return [*self.student.parameters(), *self.loss.parameters()]


@pytest.mark.parametrize("neuron", [INTEGER, BINARY])
def test_all_terms_on_a_real_student_and_gradient_everywhere_but_in_the_teacher(neuron):
    scene = Scene(neuron)
    scene.teacher.features.requires_grad_()
    scene.teacher.tokens.requires_grad_()
    losses = scene()
    assert set(losses.terms) == set().union(*TERMS.values()) == set(losses.weights)
    expected = sum(losses.weights[name] * term for name, term in losses.terms.items())
    torch.testing.assert_close(losses.total.detach(), expected)
    losses.total.backward()
    assert all(torch.isfinite(each.grad).all() for each in scene.parameters())
    assert all(each.grad.abs().sum() > 0 for each in scene.loss.parameters())
    assert scene.teacher.features.grad is None and scene.teacher.tokens.grad is None
    assert not scene.loss.text.requires_grad
    membrane = losses.terms["temporal.membrane"].item()
    assert membrane > 0 if neuron is BINARY else membrane == 0
    assert losses.terms["temporal.rate"] > 0


def test_the_weights_to_start_from():
    assert Scene(INTEGER)().weights == {
        "cross_entropy": 1.0,
        "manifold.token": 1.0,
        "manifold.relation": 0.5,
        "manifold.image": 1.0,
        "temporal.membrane": 0.1,
        "temporal.rate": 0.1,
        "prototypes": 0.5,
        "logits": 1.0,
        "feature": 1.0,
    }


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_leaves_its_own_terms_alone(switch):
    scene = Scene(BINARY, only=[switch])
    losses = scene()
    assert set(losses.terms) == TERMS[switch]
    # What is off makes no parameters: distributed training would wait for their gradient.
    manifold = {"manifold.token_projection.weight", "manifold.image_projection.weight"}
    names = {name for name, _ in scene.loss.named_parameters()}
    assert (manifold <= names) == (switch == "manifold.enabled")


@pytest.mark.parametrize("neuron", [INTEGER, BINARY])
@pytest.mark.parametrize("switch", SWITCHES)
def test_thirty_steps_lower_each_loss(neuron, switch):
    if neuron is INTEGER and switch == "temporal.membrane":
        pytest.skip("one step has no membrane to be consistent")
    scene = Scene(neuron, only=[switch], **{"prompt_keep": 1.0})
    optimiser = torch.optim.Adam(scene.parameters(), lr=3e-3)
    values = []
    for _ in range(30):
        losses = scene()
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        values.append(losses.total.item())
    assert sum(values[-3:]) / 3 < 0.9 * values[0]


def test_temporal_terms_wait_for_their_warm_start():
    scene = Scene(BINARY, only=["temporal.membrane", "temporal.rate"])
    cold, half = scene(progress=0.05), scene(progress=0.2)
    assert cold.total.item() == 0.0 and cold.terms["temporal.rate"] > 0
    assert half.weights["temporal.rate"] == pytest.approx(0.05)


def test_prompt_dropout_is_drawn_from_the_generator_given():
    scene = Scene(INTEGER, only=["logits.enabled"])
    scene.student.eval()
    state = scene.generator.get_state()
    drawn = [scene().total.item() for _ in range(6)]
    assert len(set(drawn)) > 1
    scene.generator.set_state(state)
    assert [scene().total.item() for _ in range(6)] == drawn


def test_own_classifier_instead_of_the_text_head():
    scene = Scene(INTEGER, only=["cross_entropy.enabled"])
    logits = torch.zeros(1, BATCH, CLASSES, requires_grad=True)
    losses = scene(logits=logits)
    torch.testing.assert_close(losses.total, torch.tensor(3.0).log())
    losses.total.backward()
    assert logits.grad.abs().sum() > 0


def test_mixed_precision_keeps_the_losses_in_float32():
    scene = Scene(BINARY)
    with torch.autocast("cpu", torch.bfloat16):
        losses = scene()
    assert losses.total.dtype == torch.float32
    losses.total.backward()
    assert all(torch.isfinite(each.grad).all() for each in scene.parameters())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"labels": None}, "no_labels"),
        ({"labels": torch.zeros(3).long()}, "wrong_shape"),
        ({"teacher": TeacherBatch(torch.zeros(BATCH, CHANNELS))}, "no_tokens"),
        ({"progress": 1.5}, "wrong_progress"),
    ],
)
def test_what_is_missing_is_said(changes, reason):
    with pytest.raises(InputError) as caught:
        Scene(INTEGER)(**changes)
    assert caught.value.reason == reason


def test_an_unrecorded_trace_and_a_missing_manifold_are_refused():
    scene = Scene(INTEGER)
    trace = scene.student.trace(scene.images)
    with pytest.raises(InputError) as caught:
        scene.loss(trace, scene.teacher, scene.labels, 0.5, scene.generator)
    assert caught.value.reason == "not_recorded"
    with pytest.raises(InputError) as caught:
        VL2SpikeLoss(scene.student, scene.text, logit_scale=20.0)
    assert caught.value.reason == "no_manifold"


def test_the_configuration_is_one_of_the_projects():
    config = VL2SpikeConfig()
    assert from_flat(VL2SpikeConfig, to_flat(config)) == config
    assert set(SWITCHES) <= {each.path for each in settings(VL2SpikeConfig)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.prompt_keep = 0.1
    with pytest.raises(InputError, match=r"temporal\.start"):
        replace(config, {"temporal.start": 1.5})


def test_anchors_of_an_iteration_are_those_of_its_templates():
    scene = Scene(INTEGER)
    state = scene.generator.get_state()
    found = scene.loss._anchors(scene.generator, torch.float32)
    scene.generator.set_state(state)
    chosen = choose_templates(TEMPLATES, 0.5, scene.generator)
    torch.testing.assert_close(found, text_anchors(scene.text, chosen))
