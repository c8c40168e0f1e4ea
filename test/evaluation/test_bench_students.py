# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json

import pytest
import torch

from spike_perception.errors import InputError
from spike_perception.evaluation import bench_peers, bench_students

SMALL = (
    "spikformer-s:height=32,width=32,stem_channels=8,middle_channels=16,channels=24,heads=3,"
    "blocks=1,features=16,levels=2"
)
CLOUD = "pointformer-s:groups=8,neighbours=4,channels=24,heads=3,blocks=1,patch_channels=4,levels=2"


def call(*words):
    parser = argparse.ArgumentParser()
    bench_students.configure(parser)
    return bench_students.run(parser.parse_args(list(words)))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ViT-B-32 image tower", 87_849_216),
        ("ResNet-18", 11_689_512),
        ("MobileNetV3-small", 2_542_856),
    ],
)
def test_peers_have_the_published_parameters(name, parameters):
    with torch.device("meta"):
        network = bench_peers.PEERS[name]()
    assert sum(each.numel() for each in network.parameters()) == parameters
    assert set(bench_peers.PEERS) == {"ViT-B-32 image tower", "ResNet-18", "MobileNetV3-small"}


@torch.no_grad()
@pytest.mark.parametrize("name", ["ResNet-18", "MobileNetV3-small"])
def test_peers_in_their_fast_forms_are_the_same_networks(name):
    torch.manual_seed(0)
    network = bench_peers.PEERS[name]().eval()
    x = torch.randn(2, 3, 64, 64)
    plain = network(x)
    assert plain.shape == (2, 1000)
    torch.testing.assert_close(bench_peers.folded(network)(x), plain, rtol=1e-3, atol=1e-4)
    eight = bench_peers.quantised(network, x)(x)
    assert not torch.equal(eight, plain)
    assert torch.cosine_similarity(eight, plain).min() > 0.99


def test_students_are_timed_in_every_form(capsys):
    assert call(
        "--students", SMALL, CLOUD, "--no-peers", "--threads", "1", "--rounds", "2", "--json", "-"
    ) == 0  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    names = {each["network"] for each in result["networks"]}
    assert names == {SMALL, CLOUD} == set(result["best"]["1"])
    forms = {(each["network"], each["form"]) for each in result["timings"]}
    assert forms == {(name, form) for name in names for form in ("integer", "binary")} | {
        (CLOUD, "grouping")
    }
    eager = [each for each in result["timings"] if each["engine"] == "torch"]
    assert {each["form"] for each in eager} == {"integer", "binary"}
    for each in result["timings"]:
        assert 0 < each["minimum_ms"] <= each["median_ms"] <= each["p95_ms"]
    best = result["best"]["1"][SMALL]["median_ms"]
    found = next(
        each["median_ms"] for each in eager if (each["network"], each["form"]) == (SMALL, "integer")
    )
    assert result["ratios"]["1"][SMALL]["integer torch f32"] == pytest.approx(found / best)


def test_the_table(capsys):
    assert call("--students", SMALL, "--no-peers", "--no-binary", "--threads", "1",
                "--rounds", "1") == 0  # fmt: skip
    text = capsys.readouterr().out
    assert "x eager" in text and "random weights" in text


@pytest.mark.parametrize(
    "words",
    [
        ["--threads", "0"],
        ["--threads", "two"],
        ["--rounds", "0"],
        ["--students", "resnet-50"],
        ["--students", "spikformer-s:colour=red"],
        ["--students", "spikformer-s:heads=many"],
    ],
)
def test_bad_options_are_refused(words):
    with pytest.raises(InputError):
        call(*words, "--no-peers")
