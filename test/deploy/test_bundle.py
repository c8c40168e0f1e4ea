# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.deploy import bundle as bundle_module
from spike_perception.deploy import command_info, safe_file
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.safe_file import Limits
from spike_perception.errors import InputError

PREPROCESSING = {
    "input_size": [32, 48],
    "channel_order": "rgb",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "resize": "stretch",
    "interpolation": "area",
}


def make(**changes) -> Bundle:
    rng = np.random.default_rng(3)
    fields = {
        "kind": "image",
        "student": "spikformer",
        "student_config": {"channels": 8, "neuron.tau": 2.0, "stem": (3, 4)},
        "preprocessing": PREPROCESSING,
        "timesteps": 1,
        "levels": 4,
        "embedding_dim": 8,
        "tensors": {
            "conv.weight": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
            "norm.running_mean": np.zeros(8, np.float32),
            "norm.num_batches_tracked": np.array(7),
        },
        "provenance": {
            "command": "spike-train distill --seed 3",
            "data": ["photos"],
            "seeds": [3],
            "version": "0.1.0",
            "teacher": {"name": "ViT-B-32", "sha256": "a" * 64},
        },
        "metrics": [{"name": "top_1", "value": 0.5, "command": "spike-perception evaluate x"}],
    }
    return Bundle(**{**fields, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "student.safetensors"
    make().save(file)
    return file


def parts(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path: Path, header: object, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def refusal(path: Path, **arguments) -> InputError:
    """What Bundle.load refuses the file with; the message names the file."""
    with pytest.raises(InputError) as caught:
        Bundle.load(path, **arguments)
    assert str(path) in str(caught.value)
    return caught.value


def test_what_is_saved_is_loaded(path):
    bundle, original = Bundle.load(path), make()
    assert bundle.encoder_id == original.encoder_id == bundle.weights_id
    assert bundle.student_config == {"channels": 8, "neuron.tau": 2.0, "stem": [3, 4]}
    assert bundle.metrics[0]["value"] == 0.5
    assert bundle.tensors.keys() == original.tensors.keys()
    for name, array in original.tensors.items():
        assert bundle.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(bundle.tensors[name], array)
    with pytest.raises(ValueError):
        bundle.tensors["conv.weight"][0] = 0


def test_saving_twice_gives_the_same_bytes(path, tmp_path):
    again = tmp_path / "again.safetensors"
    Bundle.load(path).save(again)
    assert again.read_bytes() == path.read_bytes()


def test_inspect_reads_the_header_alone(path):
    header, data = parts(path)
    rewrite(path, header, b"\xff" * len(data))
    info = Bundle.inspect(path)
    assert info.parameter_count == 8 * 27 == make().parameter_count
    assert info.encoder_id == make().encoder_id
    assert refusal(path).reason == "wrong_checksum"


@pytest.mark.parametrize(
    "changes",
    [
        {"levels": 2},
        {"timesteps": 2},
        {"student": "other"},
        {"student_config": {"channels": 9}},
        {"kind": "place"},
        {"preprocessing": {**PREPROCESSING, "interpolation": "bilinear"}},
        {"tensors": {"conv.weight": np.zeros((8, 3, 3, 3), np.float32)}},
        {"embedding_dim": 16},
    ],
)
def test_the_encoder_hash_depends_on_all_that_makes_a_feature(changes):
    assert make(**changes).encoder_id != make().encoder_id


def test_the_encoder_hash_ignores_provenance_metrics_and_layout():
    tensors = dict(reversed(make().tensors.items()))
    tensors["conv.weight"] = np.asfortranarray(tensors["conv.weight"])
    assert make(tensors=tensors, metrics=()).encoder_id == make().encoder_id


def test_tensors_of_equal_bytes_but_other_shape_or_name_hash_differently():
    a = np.arange(6, dtype=np.float32)
    digests = {
        safe_file.tensors_digest(t)
        for t in ({"a": a}, {"a": a.reshape(2, 3)}, {"b": a}, {"a": a.view(np.int32)}, {})
    }
    assert len(digests) == 5


@pytest.mark.parametrize("keep", [0, 7, 8, 40, -1, -200])
def test_truncated(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    error = refusal(path)
    assert error.reason == "truncated_file"
    assert str(path.stat().st_size) in str(error) or "expected" in str(error)


def test_bytes_after_the_last_tensor(path):
    path.write_bytes(path.read_bytes() + b"more")
    assert refusal(path).reason == "bad_header"


def test_oversized_by_file(path):
    error = refusal(path, limits=Limits(file_bytes=100))
    assert error.reason == "oversized_file"
    assert "100" in str(error) and str(path.stat().st_size) in str(error)


def test_a_sparse_giant_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "giant.safetensors"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    assert refusal(file).reason == "oversized_file"


def test_too_many_tensors(path):
    assert refusal(path, limits=Limits(tensors=2)).reason == "oversized_file"


def test_unknown_version_and_format(path):
    header, data = parts(path)
    document = json.loads(header["__metadata__"]["spike_perception"])
    for key, value, reason in [
        ("version", 9, "unknown_version"),
        ("version", True, "bad_metadata"),
        ("format", "another", "wrong_format"),
    ]:
        changed = {**document, key: value}
        header["__metadata__"]["spike_perception"] = json.dumps(changed)
        rewrite(path, header, data)
        error = refusal(path)
        assert error.reason == reason
        assert repr(value) in str(error)


def test_a_plain_safetensors_file_is_no_bundle(tmp_path):
    file = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(3)}, file)
    error = refusal(file)
    assert error.reason == "wrong_format"
    assert "spike_perception.bundle" in str(error)


def test_one_flipped_bit_anywhere_in_the_weights_is_found(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert refusal(path).reason == "wrong_checksum"


def test_metrics_cannot_be_polished(path):
    header, data = parts(path)
    text = header["__metadata__"]["spike_perception"]
    header["__metadata__"]["spike_perception"] = text.replace('"value":0.5', '"value":0.9')
    rewrite(path, header, data)
    assert refusal(path).reason == "wrong_checksum"


def test_weights_of_another_encoder(tmp_path):
    file = tmp_path / "mixed.safetensors"
    document = {**make()._document(), "encoder_id": "0" * 64}
    safe_file.save(file, bundle_module.FORMAT, document, make().tensors)
    error = refusal(file)
    assert error.reason == "wrong_encoder_id"
    assert "0" * 64 in str(error) and make().encoder_id in str(error)


class Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_never_executed(tmp_path, protocol):
    trace = tmp_path / "executed"
    raw = pickle.dumps(Hostile(trace), protocol)
    file = tmp_path / "hostile.safetensors"
    for content in (raw, len(raw).to_bytes(8, "little") + raw):
        file.write_bytes(content)
        assert refusal(file).reason in ("bad_header", "truncated_file")
    # As the bytes of a tensor, in an otherwise proper file, it stays a row of numbers.
    tensors = {"weight": np.frombuffer(raw, np.uint8)}
    honest = make(tensors=tensors)
    honest.save(file)
    assert Bundle.load(file).tensors["weight"].tobytes() == raw
    assert not trace.exists()
    pickle.loads(raw)
    assert trace.exists(), "the pickle of this test is hostile indeed"


def entry(**changes) -> dict:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}


@pytest.mark.parametrize(
    "tensor",
    [
        entry(shape=[2**62, 2**62, 2**62]),
        entry(shape=[2**32, 2**32], data_offsets=[0, 0]),
        entry(shape=[-2]),
        entry(shape=[2.0]),
        entry(shape=[True, 2]),
        entry(shape="2"),
        entry(shape=[1] * 9 + [2]),
        entry(shape=[3]),
        entry(dtype="F8"),
        entry(dtype=["F32"]),
        entry(data_offsets=[8, 0]),
        entry(data_offsets=[0]),
        entry(data_offsets=[-8, 0]),
        entry(data_offsets=[0, 2**70]),
        entry(extra=1),
        [],
        None,
        "F32",
    ],
)
def test_absurd_tensor_declarations(path, tensor):
    header, _ = parts(path)
    rewrite(path, {"__metadata__": header["__metadata__"], "a": tensor}, bytes(8))
    assert refusal(path).reason in ("bad_header", "truncated_file")


@pytest.mark.parametrize(
    "offsets", [([0, 8], [0, 8]), ([0, 8], [4, 12]), ([0, 8], [12, 20]), ([4, 12], [12, 20])]
)
def test_overlapping_tensors_and_gaps(path, offsets):
    header, _ = parts(path)
    entries = {f"t{k}": entry(data_offsets=each) for k, each in enumerate(offsets)}
    rewrite(path, {"__metadata__": header["__metadata__"], **entries}, bytes(20))
    assert "overlap" in str(refusal(path))


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"__metadata__":' + b"[" * 900 + b"]" * 900 + b"}",
        b"{}" * 1000,
        b'"' + b'\\"' * 500_000,
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b"[]",
        b"7",
        b"",
        b"null",
    ],
    ids=range(15),
)
def test_metadata_bombs(path, text):
    rewrite(path, text, b"")
    error = refusal(path)
    assert error.reason in ("bad_header", "wrong_format")
    assert len(str(error)) < 1000


def test_a_huge_header_is_not_read(path):
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    assert "1099511627776" in str(refusal(path))
    rewrite(path, b'{"a":"' + b"x" * (5 << 20) + b'"}', b"")
    assert refusal(path).reason == "bad_header"


@pytest.mark.parametrize(
    "bomb", ["[" * 50_000, '{"format":' * 50_000, '{"format": "spike_perception.bundle"', "1e999"]
)
def test_bombs_inside_the_document(path, bomb):
    header, data = parts(path)
    header["__metadata__"]["spike_perception"] = bomb
    rewrite(path, header, data)
    assert refusal(path).reason == "bad_header"


def document_with(path: Path, **changes) -> None:
    """A file whose checksum is right and whose metadata is not."""
    header, data = parts(path)
    document = {**json.loads(header["__metadata__"]["spike_perception"]), **changes}
    document["sha256"] = safe_file.checksum(document, make().tensors)
    header["__metadata__"]["spike_perception"] = json.dumps(document)
    rewrite(path, header, data)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "sound"},
        {"timesteps": 0},
        {"levels": "4"},
        {"embedding_dim": 10**9},
        {"encoder_id": "x"},
        {"encoder_id": "a" * 64 + "\n"},
        {"student": "spikformer"},
        {"student": {"name": "a", "config": {"b": {"c": 1}}}},
        {"student": {"name": "a\x1b[2J", "config": {}}},
        {"preprocessing": {}},
        {"preprocessing": {**PREPROCESSING, "std": [0, 1, 1]}},
        {"preprocessing": {**PREPROCESSING, "input_size": [0, 10**12]}},
        {"preprocessing": {**PREPROCESSING, "patch_norm": 9}},
        {"preprocessing": {**PREPROCESSING, "patch_norm": 8, "patch_norm_floor": 0.1}},
        {"preprocessing": {**PREPROCESSING, "patch_norm": [3, 5], "patch_norm_floor": 0.1}},
        {"preprocessing": {**PREPROCESSING, "patch_norm": 9, "patch_norm_floor": 0}},
        {"provenance": {}},
        {"metrics": [{"name": "top_1", "value": "0.5", "command": ""}]},
        {"surplus": 1},
    ],
)
def test_the_schema_is_checked(path, changes):
    document_with(path, **changes)
    assert refusal(path).reason == "bad_metadata"
    with pytest.raises(InputError, match="metadata at"):
        Bundle.inspect(path)


def test_a_descriptor_is_no_part_of_the_student():
    rows = np.ones((8, 8), np.float32)
    tensors = {**make().tensors, "descriptor.projection": rows}
    place = make(kind="place", tensors=tensors)
    assert set(place.student_tensors) == set(make().tensors)
    assert set(make(tensors=tensors).student_tensors) == set(tensors), "in no other kind"
    assert place.encoder_id != make(kind="place").encoder_id


@pytest.mark.parametrize(
    ("kind", "preprocessing"),
    [
        ("points", {"points": 1024, "channels": ["x", "y", "z"], "normalise": "unit_sphere"}),
        ("events", {"points": 512, "channels": ["x", "y", "z", "p"], "normalise": "none", "w": 5}),
        ("place", PREPROCESSING),
        ("place", {**PREPROCESSING, "patch_norm": [5, 9, 21], "patch_norm_floor": 0.05}),
    ],
)
def test_every_kind_has_its_preprocessing(tmp_path, kind, preprocessing):
    file = tmp_path / "b.safetensors"
    make(kind=kind, preprocessing=preprocessing).save(file)
    assert Bundle.load(file).preprocessing == preprocessing
    with pytest.raises(InputError):
        make(kind=kind, preprocessing={"points": 0}).save(file)
    assert Bundle.load(file).kind == kind, "a refused save leaves the old file"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(tmp_path, value):
    with pytest.raises(InputError, match="not finite"):
        make(tensors={"a": np.array([value], np.float32)}).save(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_is_no_json_is_not_saved(tmp_path):
    for metrics in ([{"name": "a", "value": float("nan"), "command": ""}], [{"name": object()}]):
        with pytest.raises(InputError):
            make(metrics=metrics).save(tmp_path / "b")


def test_save_is_atomic_and_leaves_nothing_behind(path, monkeypatch):
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left") as caught:
        make(levels=2).save(path)
    assert caught.value.reason == "cannot_write"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_missing_file_folder_and_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in (tmp_path / "none", tmp_path, pipe):
        assert refusal(file).reason == "file_missing"
    with pytest.raises(InputError, match="cannot be written"):
        make().save(tmp_path / "none" / "b.safetensors")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_refused_and_never_crashes(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("fuzz") / "b.safetensors"
    make().save(file)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    unchanged = bytes(content) == file.read_bytes()
    file.write_bytes(content)
    try:
        bundle = Bundle.load(file)
    except InputError:
        return
    # JSON has blanks and escapes that mean the same: what was accepted must be what was saved.
    assert unchanged or bundle.encoder_id == make().encoder_id


def arguments(path: Path, where: str | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command_info.configure(parser)
    return parser.parse_args([str(path), *(["--json", where] if where else [])])


def test_model_info_prints_a_card(path, capsys):
    assert command_info.run(arguments(path)) == 0
    text = capsys.readouterr().out
    for part in ("spikformer", "216", "1 x 4", "input_size", make().encoder_id, "ViT-B-32", "0.5"):
        assert part in text
    assert "spike-train distill --seed 3" in text


def test_model_info_as_json(path, capsys):
    assert command_info.run(arguments(path, "-")) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["parameters"] == 216
    assert result["file_bytes"] == path.stat().st_size
    assert result["metrics"][0]["name"] == "top_1"


def test_model_info_verifies(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError):
        command_info.run(arguments(path))


def test_bundles_need_no_torch():
    code = (
        "import sys; from spike_perception.deploy import bundle, command_info; "
        "import spike_perception.zero_shot.bank, spike_perception.zero_shot.calibration; "
        "sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_bundle_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().levels = 2


def test_a_student_goes_through_a_bundle(tmp_path):
    torch = pytest.importorskip("torch")
    from spike_perception.students import registry

    student = registry.create_student("spike-pointnet-s")
    written = registry.student_config_to_json(student)
    tensors = {name: each.numpy() for name, each in student.state_dict().items()}
    file = tmp_path / "student.safetensors"
    original = make(
        kind="points",
        preprocessing={"points": 64, "channels": ["x", "y", "z"], "normalise": "unit_sphere"},
        student=written["student"],
        student_config=written["config"],
        tensors=tensors,
    )
    original.save(file)
    bundle = Bundle.load(file)
    again = registry.student_from_json(bundle.architecture)
    again.load_state_dict(
        {name: torch.from_numpy(each.copy()) for name, each in bundle.tensors.items()}
    )
    for name, each in again.state_dict().items():
        assert torch.equal(each, student.state_dict()[name])
    assert bundle.parameter_count == sum(each.numel() for each in student.parameters())
    assert bundle.encoder_id == original.encoder_id


@pytest.mark.parametrize("size", [[32.0, 48.0], [1 << 21, 48], [10**400, 48]])
def test_sizes_are_whole_numbers_in_range(tmp_path, size):
    with pytest.raises(InputError) as caught:
        make(preprocessing={**PREPROCESSING, "input_size": size}).save(tmp_path / "b")
    assert caught.value.reason == "bad_metadata"


@pytest.mark.parametrize("shape", [[0, 1 << 62], [1 << 63, 0]])
def test_an_empty_tensor_of_impossible_shape_is_refused(tmp_path, shape):
    form = safe_file.Format("f", 1, (), {})
    document = json.dumps({"format": "f", "version": 1, "sha256": "0" * 64})
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    entries = {"__metadata__": {"spike_perception": document}, "a": tensor}
    header = json.dumps(entries).encode()
    path = tmp_path / "f"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError) as caught:
        safe_file.load(path, form)
    assert caught.value.reason == "bad_header"


def test_numbers_beyond_64_bits_are_refused(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    document = header["__metadata__"]["spike_perception"]
    changed = document.replace('"timesteps":1', '"timesteps":1' + "0" * 400)
    assert changed != document
    header["__metadata__"]["spike_perception"] = changed
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    error = refusal(path)
    assert error.reason == "bad_header" and "too large" in str(error)
