# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from spike_perception.deploy.network import deployed_form, student_of
from spike_perception.deploy.runtime import load_runtime, load_stream
from spike_perception.errors import InputError

KINDS = ("spikformer", "published-spikformer", "pointformer", "spike-pointnet")
ENGINES = ("openvino", "onnxruntime", "torch")


def reference(student, precision, batch):
    with torch.no_grad():
        sequence = torch.from_numpy(batch)[None].expand(student.config.steps, *batch.shape)
        return deployed_form(student, precision).run(sequence).feature.numpy()


def cosine(a, b):
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["f32", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree_with_torch(engine, precision, kind, student, bundle, sensor):
    """Spike counts are equal, up to a rounding tie that one engine takes the other way."""
    if engine != "torch":
        pytest.importorskip(engine)
    model = student(kind)
    runtime = load_runtime(bundle(kind), engine, precision, 1, cache=None)
    assert (runtime.engine, runtime.precision) == (engine, precision)
    for batch in (1, 3):
        x = sensor(model, batch)
        expected = reference(model, precision, x)
        assert expected.any() and len(np.unique(expected)) > 3
        found = runtime.infer(x)
        assert found.dtype == np.float32 and found.shape == expected.shape
        assert np.array_equal(found, np.round(found))
        if kind != "published-spikformer":  # its sums of spikes let one flip reach everything
            assert (found != expected).mean() < 0.01
        assert cosine(found, expected) > 0.999


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_agree_on_regions(engine, student, bundle, sensor):
    if engine != "torch":
        pytest.importorskip(engine)
    regions = {"regions_rows": 2, "regions_columns": 3}
    model = student("spikformer", **regions)
    x = sensor(model, 2)
    for precision in ("f32", "int8"):
        runtime = load_runtime(bundle("spikformer", **regions), engine, precision, 1, cache=None)
        expected, found = reference(model, precision, x), runtime.infer(x)
        assert expected.any() and found.shape == expected.shape == (2, 240)
        assert (found != expected).mean() < 0.01


def test_one_and_many_give_the_same(student, bundle, sensor):
    model = student("pointformer")
    runtime = load_runtime(bundle("pointformer"), threads=1, cache=None)
    x = sensor(model, 5)
    together = runtime.infer(x)
    alone = np.concatenate([runtime.infer(each[None]) for each in x])
    assert cosine(together, alone) > 0.9999


def test_warming_up_changes_nothing(student, bundle, sensor):
    runtime = load_runtime(bundle("spike-pointnet"), threads=1, cache=None)
    x = sensor(student("spike-pointnet"), 4)
    before = runtime.infer(x[:1])
    runtime.warm_up(4)
    assert np.array_equal(runtime.infer(x[:1]), before)
    assert np.array_equal(runtime.infer(x)[0], before[0])


def test_weights_beyond_exact_sums_are_not_quantised(student):
    model = student("spike-pointnet", levels=16)
    wide = torch.nn.Parameter(torch.ones(4, 1 << 16), requires_grad=False)
    model.embed.synapses.layer.weight = wide
    model.embed.synapses.norm = None
    with pytest.raises(InputError) as caught:
        deployed_form(model, "int8")
    assert caught.value.reason == "not_quantisable"


def test_a_stream_beyond_eight_bits_is_not_quantised(student):
    # (2 + 2 blocks) spikes of 16 levels each: eight bits would cut them off.
    assert deployed_form(student("published-spikformer", levels=16), "int8").largest_input == 64
    with pytest.raises(InputError) as caught:
        deployed_form(student("published-spikformer", levels=16, blocks=7), "int8")
    assert caught.value.reason == "not_quantisable"


@pytest.mark.parametrize(
    ("kind", "preprocessing", "config"),
    [
        ("spikformer", {"input_size": [1 << 20, 1 << 20]}, {}),
        ("pointformer", {"points": 1 << 20}, {"groups": 4096}),
        ("pointformer", {}, {"point_features": "1"}),
        ("pointformer", {}, {"groups": [12]}),
    ],
)
def test_absurd_samples_are_refused_before_allocation(bundle, kind, preprocessing, config):
    whole = bundle(kind)
    changed = replace(
        whole,
        preprocessing={**whole.preprocessing, **preprocessing},
        student_config={**whole.student_config, **config},
    )
    with pytest.raises(InputError) as caught:
        load_runtime(changed, threads=1, cache=None)
    assert caught.value.reason == "bad_metadata"


def test_bfloat16_is_only_near(student, bundle, sensor):
    pytest.importorskip("openvino")
    model = student("spikformer")
    x = sensor(model, 2)
    found = load_runtime(bundle("spikformer"), "openvino", "bf16", 1, cache=None).infer(x)
    assert np.array_equal(found, np.round(found))
    assert cosine(found, reference(model, "f32", x)) > 0.8


def test_membranes_over_time(student, bundle, sensor):
    model = student("spikformer", steps=3, levels=2)
    whole = load_runtime(bundle("spikformer", steps=3, levels=2), precision="f32", cache=None)
    x = sensor(model, 2)
    assert cosine(whole.infer(x), reference(model, "f32", x)) > 0.9999


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["f32", "int8"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("spikformer", {"steps": 3, "levels": 2}),
        ("spikformer", {"neuron": "lif", "steps": 4, "learn_initial": True}),
        ("pointformer", {"neuron": "lif", "steps": 2}),
        ("spike-pointnet", {"steps": 2, "learn_initial": True}),
    ],
)
def test_streaming_is_the_multi_step_call(
    engine, precision, kind, settings, student, bundle, sensor
):
    if engine != "torch":
        pytest.importorskip(engine)
    model = student(kind, **settings)
    stream = load_stream(bundle(kind, **settings), engine, precision, 1, cache=None)
    steps = model.config.steps
    frames = np.stack([sensor(model, 2, seed) for seed in range(steps)])
    with torch.no_grad():
        expected = deployed_form(model, precision).run(torch.from_numpy(frames)).counts.numpy()
    state = stream.initial_state(2)
    assert state
    for x, wanted in zip(frames, expected, strict=True):
        before = [each.copy() for each in state]
        counts, after = stream.step(x, state)
        for each, kept in zip(state, before, strict=True):
            assert np.array_equal(each, kept), "the state that was given must not change"
        state = after
        assert counts.shape == wanted.shape
        if wanted.any():
            assert cosine(counts, wanted) > 0.999
    assert expected.any()


def test_streams_refuse_a_foreign_state(bundle, student, sensor):
    stream = load_stream(bundle("spike-pointnet", steps=2), "torch", cache=None)
    x = sensor(student("spike-pointnet", steps=2), 2)
    for state in ((), stream.initial_state(1), stream.initial_state(2)[1:]):
        with pytest.raises(InputError) as caught:
            stream.step(x, state)
        assert caught.value.reason == "wrong_state"


@pytest.fixture(scope="module")
def runtime(bundle):
    return load_runtime(bundle("spikformer"), engine="torch", cache=None)


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        (np.zeros((1, 3, 32, 47), np.float32), "wrong_input"),
        (np.zeros((3, 32, 48), np.float32), "wrong_input"),
        (np.zeros((0, 3, 32, 48), np.float32), "wrong_input"),
        (np.zeros((257, 3, 32, 48), np.float32), "wrong_input"),
        (np.zeros((1, 3, 32, 48), complex), "wrong_input"),
        (np.zeros((1, 3, 32, 48), object), "wrong_input"),
        (np.full((1, 3, 32, 48), np.nan, np.float32), "not_finite"),
        (np.full((1, 3, 32, 48), np.inf, np.float32), "not_finite"),
    ],
)
def test_hostile_batches_are_refused(runtime, batch, reason):
    with pytest.raises(InputError) as caught:
        runtime.infer(batch)
    assert caught.value.reason == reason


def test_images_in_features_out(runtime):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (each, 60, 3), dtype=np.uint8) for each in (40, 70)]
    assert runtime.infer(runtime.prepare_images(images)).shape == (2, runtime.feature_dim)
    with pytest.raises(InputError, match="given points"):
        runtime.prepare_points([np.zeros((9, 3))])
    with pytest.raises(InputError):
        runtime.prepare_images([])
    with pytest.raises(InputError):
        runtime.prepare_images([images[0].astype(np.float32)])


@pytest.mark.parametrize("kind", ["pointformer", "spike-pointnet"])
def test_clouds_in_features_out(kind, bundle):
    runtime = load_runtime(bundle(kind), engine="torch", cache=None)
    rng = np.random.default_rng(0)
    clouds = [rng.standard_normal((count, 4)) for count in (500, 7)]
    batch = runtime.prepare_points(clouds)
    assert batch.shape[1:] == runtime.sample_shape
    assert runtime.infer(batch).shape == (2, runtime.feature_dim)
    with pytest.raises(InputError, match="given images"):
        runtime.prepare_images([np.zeros((4, 4, 3), np.uint8)])


def test_threads_do_not_disturb_each_other(bundle, student, sensor):
    runtime = load_runtime(bundle("spikformer"), threads=1, cache=None)
    x = [sensor(student("spikformer"), 1 + i % 2, seed=i) for i in range(4)]
    expected = [runtime.infer(each) for each in x]
    wrong = []

    def work(index):
        for _ in range(30):
            if not np.array_equal(runtime.infer(x[index]), expected[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert not wrong


def test_the_next_engine_stands_in(bundle, monkeypatch):
    model = bundle("spike-pointnet")
    chosen = []
    for missing in ((), ("openvino",), ("openvino", "onnxruntime")):
        for name in missing:
            monkeypatch.setitem(sys.modules, name, None)
        chosen.append(load_runtime(model, cache=None).engine)
    assert chosen[-1] == "torch"
    for engine in ("openvino", "bf16"):
        options = {"precision": "bf16"} if engine == "bf16" else {"engine": engine}
        with pytest.raises(InputError) as caught:
            load_runtime(model, cache=None, **options)
        assert caught.value.reason == "engine_missing"


@pytest.mark.parametrize(
    "options",
    [{"engine": "tensorflow"}, {"precision": "f64"}, {"threads": 0},
     {"engine": "onnxruntime", "precision": "bf16"}],
)  # fmt: skip
def test_unknown_options_are_refused(bundle, options):
    with pytest.raises(InputError):
        load_runtime(bundle("spike-pointnet"), cache=None, **options)


def test_the_bundle_says_its_precision(bundle):
    model = bundle("spike-pointnet", {"precision": "int8"})
    assert load_runtime(model, cache=None).precision == "int8"
    assert load_runtime(bundle("spike-pointnet"), cache=None).precision == "f32"
    assert model.encoder_id != bundle("spike-pointnet").encoder_id
    assert load_runtime(model, precision="f32", cache=None).precision == "f32"


@pytest.mark.parametrize("kind", ["spikformer", "pointformer"])
def test_a_second_start_needs_no_torch(kind, bundle, tmp_path, sensor, student):
    pytest.importorskip("openvino")
    model, cache = bundle(kind), tmp_path / "cache"
    file = tmp_path / "model.safetensors"
    model.save(file)
    x = sensor(student(kind), 1)
    first = load_runtime(file, "openvino", cache=cache).infer(x)
    np.save(tmp_path / "x.npy", x)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from spike_perception.deploy.runtime import load_runtime\n"
        "file, cache, x, y = sys.argv[1:]\n"
        "runtime = load_runtime(file, 'openvino', cache=cache)\n"
        "if runtime.bundle.kind == 'points':\n"
        "    runtime.prepare_points([np.ones((200, 4))])\n"
        "np.save(y, runtime.infer(np.load(x)))\n"
    )
    paths = [str(each) for each in (file, cache, tmp_path / "x.npy", tmp_path / "y.npy")]
    subprocess.run([sys.executable, "-c", code, *paths], check=True, env={**os.environ})
    assert np.array_equal(np.load(tmp_path / "y.npy"), first)
    empty = subprocess.run(
        [sys.executable, "-c", code, paths[0], str(tmp_path / "other"), *paths[2:]],
        capture_output=True, text=True,
    )  # fmt: skip
    assert empty.returncode and "needs torch" in empty.stderr


def test_a_damaged_cache_is_made_anew(bundle, tmp_path, sensor, student):
    pytest.importorskip("openvino")
    model = bundle("spike-pointnet", steps=2)
    x = sensor(student("spike-pointnet", steps=2), 1)
    stream = load_stream(model, "openvino", cache=tmp_path)
    expected = stream.step(x, stream.initial_state())[0]
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    for damage in (data[:100], data[:-1] + bytes([data[-1] ^ 1])):
        file.write_bytes(damage)
        again = load_stream(model, "openvino", cache=tmp_path)
        assert np.array_equal(again.step(x, again.initial_state())[0], expected)
        assert file.read_bytes() == bytes(data)
    file.unlink()
    file.mkdir()  # cannot be replaced by a file: nothing is kept, and all goes on
    load_stream(model, "openvino", cache=tmp_path)


def test_contradictions_are_refused(bundle):
    import dataclasses

    model = bundle("spike-pointnet")
    wrong = [
        dataclasses.replace(model, levels=3),
        dataclasses.replace(model, embedding_dim=7),
        dataclasses.replace(model, tensors=dict(list(model.tensors.items())[1:])),
        dataclasses.replace(
            model, preprocessing={**model.preprocessing, "channels": ["x", "y", "z"]}
        ),
    ]
    for each in wrong:
        with pytest.raises(InputError):
            load_runtime(each, "torch", cache=None)


def test_int8_rounds_weights_and_nothing_else(student):
    """Weights are integers times one scale per channel, within half a step of the folded ones."""
    from spike_perception.spiking.synapses import Synapses

    model = student("spikformer")
    folded, int8 = deployed_form(model, "f32"), deployed_form(model, "int8")
    pairs = [
        (a, b)
        for a, b in zip(folded.modules(), int8.modules(), strict=True)
        if isinstance(a, Synapses)
    ]
    for a, b in pairs:
        if a.analogue:
            assert b.scale is None and torch.equal(a.layer.weight, b.layer.weight)
            continue
        shape = (-1, *[1] * (a.layer.weight.ndim - 1))
        error = (b.layer.weight * b.scale.reshape(shape) - a.layer.weight).abs()
        assert (error <= b.scale.reshape(shape) * 0.5001).all()
        assert b.layer.weight.abs().max() <= 127


def test_a_bundle_gives_back_its_student(student, bundle):
    again = student_of(bundle("spikformer"))
    for name, each in student("spikformer").state_dict().items():
        assert torch.equal(again.state_dict()[name], each)
