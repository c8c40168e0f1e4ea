# SPDX-License-Identifier: Apache-2.0
"""What holds for every student: state, streaming, unfolding, additions only, training."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from spike_perception.errors import InputError
from spike_perception.spiking.energy import energy_report
from spike_perception.spiking.folding import fold_batch_norm, quantise_weights
from spike_perception.spiking.synapses import Synapses
from spike_perception.spiking.unfolding import flip_report, unfold
from spike_perception.students.registry import create_student

DEFAULTS = ("spikformer", "pointformer", "pointnet")
ALL = (*DEFAULTS, "published")
LIF_4 = {"neuron": "lif", "steps": 4}
ILIF_3 = {"steps": 3}


@pytest.mark.parametrize("kind", ALL)
def test_output_is_a_spike_count(small, inputs, kind):
    student = small(kind)
    with torch.no_grad():
        counts = student(inputs(student))
    assert counts.shape == (2, student.feature_dim)
    assert torch.equal(counts, counts.round()) and counts.min() >= 0
    assert counts.std() > 0 and not torch.equal(counts[0], counts[1])


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("settings", [LIF_4, ILIF_3, {}])
def test_streaming_equals_the_multi_step_call(small, inputs, kind, settings):
    # float64: the order of a sum depends on the batch, and a last bit can flip a spike.
    student = small(kind, **settings).double()
    with torch.no_grad():
        sequence = student.sequence(inputs(student, 2, steps=6).double())
        together = student.run(sequence)
        state = None
        for t, x_t in enumerate(sequence):
            y_t, state = student.step(x_t, state)
            assert torch.equal(y_t, together.counts[t])
    assert len(state) == len(together.state)
    for mine, other in zip(state, together.state, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("kind", ALL)
def test_frames_are_independent_unless_state_is_passed(small, inputs, kind):
    student = small(kind, **LIF_4)
    with torch.no_grad():
        one, two = student.sequence(inputs(student)), student.sequence(inputs(student, seed=1))
        alone = student.run(two).counts
        state = student.run(one).state
        after = student.run(two).counts
        continued = student.run(two, state).counts
    assert torch.equal(alone, after)
    assert not torch.equal(alone, continued)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("settings", [LIF_4, {"steps": 3, "learn_initial": True, "neuron": "ilif"}])
def test_the_initial_state_is_what_starting_without_one_means(small, inputs, kind, settings):
    student = small(kind, **settings)
    x_t = student.prepare(inputs(student))
    state = student.initial_state(x_t)
    assert len(state) == len(student.neurons())
    with torch.no_grad():
        free, after = student.step(x_t)
        given, after_given = student.step(x_t, state)
    assert torch.equal(free, given)
    assert all(torch.equal(a, b) for a, b in zip(after, after_given, strict=True))


def test_initial_state_leaves_training_statistics_alone(small, inputs):
    student = small("spikformer", **LIF_4).train()
    before = {k: v.clone() for k, v in student.state_dict().items()}
    student.initial_state(inputs(student))
    assert student.training and student.first.norm.training
    assert all(torch.equal(before[k], v) for k, v in student.state_dict().items())


@pytest.mark.parametrize("kind", DEFAULTS)
def test_one_step_without_membrane_has_no_state(small, inputs, kind):
    student = small(kind)
    assert student.initial_state(student.prepare(inputs(student))) == ()


def test_a_foreign_state_is_refused(small, inputs):
    student = small("spikformer", **LIF_4)
    x = inputs(student)
    state = student.initial_state(x)
    for wrong in ((), state[:-1], (*state, state[0]), student.initial_state(x[:1])):
        with pytest.raises(InputError) as caught:
            student.step(x, wrong)
        assert caught.value.reason == "wrong_state"


@pytest.mark.parametrize("kind", ALL)
def test_input_of_the_wrong_rank_is_refused(small, inputs, kind):
    student = small(kind)
    with pytest.raises(InputError, match="axes"):
        student(inputs(student)[0, 0])
    with pytest.raises(InputError, match="axes"):
        student.run(student.prepare(inputs(student)))


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "settings", [{"neuron": "ilif", "steps": 1}, {"neuron": "ilif", "steps": 3}]
)
def test_unfolding_is_bit_exact_with_integer_weights(small, inputs, kind, settings):
    integer = quantise_weights(small(kind, **settings))
    binary = unfold(integer)
    x = integer.sequence(inputs(integer, 4, steps=settings["steps"]))
    with torch.no_grad():
        a, b = integer.run(x, record=None), binary.run(x, record=None)
    assert torch.equal(a.counts, b.counts) and a.counts.max() > 1
    assert a.layers.keys() == integer.neurons().keys()
    for label, layer in a.layers.items():
        assert torch.equal(layer.spikes, b.layers[label].spikes), label
        assert torch.equal(layer.potential, b.layers[label].potential), label
    for mine, other in zip(a.state, b.state, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("settings", [{"map_spikes": True}, {"map_spikes": True, "steps": 2}])
def test_unfolding_with_neurons_on_the_map(small, inputs, settings):
    integer = quantise_weights(small("pointformer", **settings))
    x = inputs(integer)
    with torch.no_grad():
        assert torch.equal(integer(x), unfold(integer)(x))


@pytest.mark.parametrize("name", ["spikformer-m", "pointformer-s", "spike-pointnet-m"])
def test_whole_presets_unfold(preset, inputs, name):
    student = fold_batch_norm(preset(name))
    x = inputs(student, 1)
    report = flip_report(student, unfold(student), student.sequence(x))
    assert report.compared > 1_000_000 and report.rate < 1e-5 and report.bound < 1e-5
    integer = quantise_weights(student)
    with torch.no_grad():
        assert torch.equal(unfold(integer)(x), integer(x))


@pytest.mark.parametrize("kind", DEFAULTS)
def test_spike_flips_with_float_weights_are_rare(small, inputs, kind):
    student = fold_batch_norm(small(kind))
    report = flip_report(student, unfold(student), student.sequence(inputs(student, 16)))
    assert report.compared > 100_000
    assert report.rate < 1e-5 and report.bound < 1e-4


class Products(TorchDispatchMode):
    """Sees every tensor operation below all of torch's interfaces; sorts or refuses it."""

    MATRIX = frozenset(
        {"mm", "bmm", "addmm", "convolution", "baddbmm", "linear", "mv", "addmv", "dot"}
    )
    # Sums, comparisons, copies and views: nothing here can hide a product.
    HARMLESS = frozenset({
        "add", "add_", "sub", "floor", "floor_", "clamp", "clamp_", "ge", "sum", "cat", "stack",
        "amax", "_to_copy",
        "view", "_unsafe_view", "reshape", "expand", "permute", "transpose", "t", "unsqueeze",
        "squeeze", "select", "slice", "split", "unbind", "clone", "detach", "alias", "empty",
        "zeros_like", "copy_", "unfold", "max_pool2d_with_indices", "contiguous", "as_strided",
    })  # fmt: skip

    def __init__(self):
        super().__init__()
        self.factors = []
        self.scalars = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.MATRIX:
            operands = args[1:3] if name in ("addmm", "addmv", "baddbmm") else args[:2]
            self.factors.append((name, operands[0].detach(), operands[1].detach()))
        elif name in ("mul", "div"):
            assert not (torch.is_tensor(args[1]) and args[1].ndim), "product of two tensors"
            self.scalars.append(float(args[1]))
        else:
            assert name in self.HARMLESS, f"operation {name} is not known to be free of products"
        return function(*args, **(kwargs or {}))


def _within(values, largest):
    return bool(((values == values.round()) & (values >= 0) & (values <= largest)).all())


@pytest.mark.parametrize("kind", DEFAULTS)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("settings", [{}, {"steps": 2, "beta": 0.25}])
def test_every_product_but_the_named_analogue_layers_has_a_spike_as_factor(
    small, inputs, kind, binary, settings
):
    student = small(kind, **settings)
    student = unfold(student) if binary else fold_batch_norm(student)
    largest = 1 if binary else student.config.levels
    sequence = student.sequence(inputs(student))
    weights = {
        m.layer.weight.data_ptr(): n for n, m in student.named_modules() if isinstance(m, Synapses)
    }
    with torch.no_grad(), Products() as seen:
        student.run(sequence)
    analogue, spiking = [], 0
    for _, left, right in seen.factors:
        name = weights.get(right.data_ptr())
        if name in student.analogue_layers():
            analogue.append(name)
        elif name is not None:  # spikes times weights
            assert _within(left, largest), name
            spiking += 1
        else:  # attention: spikes times spikes, or spikes times integer counts
            assert _within(left, largest) and _within(right, math.inf)
            spiking += 1
    assert tuple(analogue) == student.analogue_layers()
    assert spiking >= len(weights) - len(analogue)
    # What is scaled is scaled by powers of two: shifts.
    assert all(math.log2(abs(s)).is_integer() for s in seen.scalars)


def test_the_published_form_does_not_see_spikes_everywhere(small, inputs):
    # The reason for the pre-activation default: the stream of the published form holds sums.
    published = energy_report(small("published"), inputs(small("published"), 4))
    kinds = {layer.name: layer.type for layer in published.layers}
    assert kinds["blocks.0.attention.q"] == kinds["blocks.0.widen"] == "MAC"
    assert kinds["blocks.0.narrow"] == kinds["stem.convs.3"] == "AC"
    student = unfold(small("spikformer"))
    report = energy_report(student, inputs(student, 4))
    assert [layer.name for layer in report.layers if layer.type == "MAC"] == ["first"]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "settings", [{}, LIF_4, {"steps": 2, "neuron": "ilif", "learn_initial": True}]
)
def test_every_parameter_gets_a_gradient(small, inputs, kind, settings):
    student = small(kind, **settings).train()
    trace = student.trace(inputs(student, 8), record=None)
    loss = (trace.feature * torch.randn_like(trace.feature)).sum()
    loss = loss + sum(layer.potential.square().mean() for layer in trace.layers.values())
    loss.backward()
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("kind", "settings"), [*((kind, {}) for kind in DEFAULTS), ("spikformer", LIF_4)]
)
def test_a_student_learns(small, inputs, kind, settings):
    student = small(kind, **settings).train()
    x, y = inputs(student, 12), torch.arange(12) % 4
    head = torch.nn.Linear(student.feature_dim, 4)
    parameters = [*student.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, 2e-3)
    losses = []
    for _ in range(25):
        feature = student(x)
        loss = torch.nn.functional.cross_entropy(head(feature / feature.detach().mean()), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("kind", ALL)
def test_mixed_precision_training_step(small, inputs, kind):
    student = small(kind).train()
    with torch.autocast("cpu", torch.bfloat16):
        feature = student(inputs(student, 4))
        loss = feature.float().square().mean()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in student.parameters())


@pytest.mark.parametrize("kind", ALL)
def test_a_trace_holds_what_distillation_needs(small, inputs, kind):
    student = small(kind, **LIF_4)
    layers = student.block_layers
    trace = student.trace(inputs(student), record=layers)
    assert set(layers) <= set(trace.layers) <= {*layers, student.tokens_from}
    assert trace.counts.shape == (4, 2, student.feature_dim)
    assert trace.tokens.shape[:2] == (4, 2) and trace.tokens.ndim == 4
    for layer in trace.layers.values():
        assert layer.potential.shape == layer.spikes.shape
        fired = layer.potential >= 1.0
        assert torch.equal(layer.spikes, fired.to(layer.spikes.dtype))
    if hasattr(student, "grid"):
        assert trace.tokens.shape[2] == math.prod(student.grid)


@pytest.mark.parametrize("kind", ALL)
def test_folding_batch_norm_keeps_the_counts(small, inputs, kind):
    student = small(kind).double()  # float32 rounding could flip a spike
    x = inputs(student, 4).double()
    with torch.no_grad():
        assert torch.equal(fold_batch_norm(student)(x), student(x))


class Step(torch.nn.Module):
    """The streaming step with its state as plain arguments and results, as exporters want it."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def forward(self, x_t, *state):
        y_t, after = self.student.step(x_t, state)
        return (y_t, *after)


@pytest.mark.parametrize("kind", DEFAULTS)
@pytest.mark.parametrize("settings", [{}, LIF_4, ILIF_3])
def test_a_step_can_be_exported(small, inputs, kind, settings):
    student = fold_batch_norm(small(kind, **settings))
    x_t = student.prepare(inputs(student, 1))
    arguments = (x_t, *student.initial_state(x_t))
    graph = torch.export.export(Step(student), arguments).module()
    for mine, other in zip(graph(*arguments), Step(student)(*arguments), strict=True):
        assert torch.equal(mine, other)


def test_an_initial_potential_needs_a_membrane():
    with pytest.raises(InputError, match="membrane"):
        create_student("spikformer-s", learn_initial=True)
