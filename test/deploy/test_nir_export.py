# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from spike_perception.deploy import command_export
from spike_perception.deploy.network import deployed_form
from spike_perception.deploy.nir_export import to_nir, write_nir
from spike_perception.errors import InputError

nir = pytest.importorskip("nir")


def pair(value):
    return tuple(int(each) for each in np.atleast_1d(value).repeat(2 // np.size(value)))


class Interpreter:
    """Runs a NIR graph step by step, dt = 1, signals summed where edges meet."""

    def __init__(self, graph, product=None):
        self.graph, self.product, self.potential = graph, product, {}
        self.binary = set()

    def step(self, x):
        values = {}

        def value(name):
            if name not in values:
                values[name] = self.node(name, self.graph.nodes[name], value, x)
            return values[name]

        return value("output")

    def node(self, name, node, value, x):
        sources = [a for a, b in self.graph.edges if b == name]
        if isinstance(node, nir.Input):
            if name == "input":
                return x
            return self.product(name, value(name.replace("product", "factors")))
        incoming = sum(value(each) for each in sources)
        if isinstance(node, (nir.Threshold, nir.LIF)):
            self.binary.add(name)
            return self.fire(name, node, incoming)
        if isinstance(node, nir.Affine):
            return torch.tensor(node.weight) @ incoming + torch.tensor(node.bias)
        if isinstance(node, nir.Conv2d):
            return functional.conv2d(
                incoming[None], torch.tensor(node.weight), torch.tensor(node.bias),
                pair(node.stride), pair(node.padding), pair(node.dilation), int(node.groups),
            )[0]  # fmt: skip
        if isinstance(node, nir.SumPool2d):
            across, down = pair(node.padding)
            padded = functional.pad(incoming[None], (down, down, across, across))
            kernel, stride = pair(node.kernel_size), pair(node.stride)
            return functional.avg_pool2d(padded, kernel, stride, divisor_override=1)[0]
        if isinstance(node, nir.Flatten):
            return incoming.flatten()
        assert isinstance(node, nir.Output)
        return incoming

    def fire(self, name, node, incoming):
        if isinstance(node, nir.Threshold):
            assert tuple(node.threshold.shape) == tuple(incoming.shape)
            return (incoming > torch.tensor(node.threshold)).float()
        v = self.potential.get(name, torch.tensor(node.v_leak))
        v = v + (torch.tensor(node.v_leak) - v + torch.tensor(node.r) * incoming) / torch.tensor(
            node.tau
        )
        spikes = (v > torch.tensor(node.v_threshold)).float()
        self.potential[name] = torch.where(spikes > 0, torch.tensor(node.v_reset), v)
        return spikes


def run(graph, frames, product=None):
    machine = Interpreter(graph, product)
    total = sum(machine.step(each) for each in frames)
    assert machine.binary
    return total.numpy()


def again(graph, path):
    write_nir(graph, path)
    return nir.read(path)


SPIKING = [{}, {"levels": 2}, {"neuron": "lif", "steps": 5, "tau": 1.25}]


@pytest.mark.parametrize("settings", SPIKING)
def test_spike_pointnet_is_whole_in_nir(settings, student, sensor, tmp_path):
    model = student("spike-pointnet", **settings)
    x = torch.from_numpy(sensor(model, 1))
    graph = again(to_nir(model, x.shape[1:]), tmp_path / "net.nir")
    steps = model.config.steps
    found = run(graph, [x[0].T[..., None]] * steps)
    with torch.no_grad():
        expected = deployed_form(model, "f32").run(x[None].expand(steps, *x.shape)).feature[0]
    assert expected.any()
    assert np.array_equal(found, expected.numpy())


@pytest.mark.parametrize("settings", [*SPIKING, {"regions_rows": 2, "regions_columns": 3}])
def test_spikformer_but_for_its_products(settings, student, sensor, tmp_path):
    model = student("spikformer", **settings)
    x = torch.from_numpy(sensor(model, 1))
    with pytest.raises(InputError) as caught:
        to_nir(model, x.shape[1:])
    assert caught.value.reason == "not_expressible"
    graph = again(to_nir(model, x.shape[1:], products=True), tmp_path / "net.nir")

    def product(name, factors):
        attention = model.blocks[int(name.split(".")[1])].attention
        q, k, v = factors.unflatten(0, (3, attention.heads, -1)).flatten(-2).transpose(-1, -2)
        y = attention.product.scale * (q @ (k.transpose(-1, -2) @ v))
        return y.transpose(-1, -2).flatten(0, 1).unflatten(1, model.grid)

    steps = model.config.steps
    found = run(graph, [x[0]] * steps, product)
    with torch.no_grad():
        expected = deployed_form(model, "f32").run(x[None].expand(steps, *x.shape)).feature[0]
    assert expected.any()
    assert (found != expected.numpy()).mean() < 0.01


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("pointformer", {}),
        ("published-spikformer", {}),
        ("spike-pointnet", {"steps": 2}),
        ("spike-pointnet", {"neuron": "lif", "reset": "soft", "steps": 2}),
        ("spike-pointnet", {"neuron": "lif", "learn_initial": True, "steps": 2}),
        ("spikformer", {"map_spikes": True}),
    ],
)
def test_what_nir_cannot_say_is_refused(kind, settings, student):
    with pytest.raises(InputError) as caught:
        to_nir(student(kind, **settings), (8, 4), products=True)
    assert caught.value.reason == "not_expressible"


def test_the_command_writes_a_file(bundle, tmp_path, capsys):
    import argparse
    import json

    file, out = tmp_path / "b.safetensors", tmp_path / "net.nir"
    bundle("spike-pointnet").save(file)
    parser = argparse.ArgumentParser()
    command_export.configure(parser)
    assert command_export.run(parser.parse_args([str(file), str(out), "--json", "-"])) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["nodes"]["Threshold"] == sum(
        isinstance(each, nir.Threshold) for each in nir.read(out).nodes.values()
    )
    with pytest.raises(InputError):
        command_export.run(parser.parse_args([str(file), str(tmp_path / "no" / "net.nir")]))
