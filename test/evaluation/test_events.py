# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spike_perception.bags.labelled_events import open_event_set
from spike_perception.deploy.bundle import Bundle
from spike_perception.errors import InputError
from spike_perception.evaluation import events
from spike_perception.evaluation.events import EventEncoder, EventsEvaluationConfig, Recording
from spike_perception.evaluation.naming import energy
from spike_perception.zero_shot.bank import WordBank


def call(world: Any, data: object, *options: object) -> int:
    parser = argparse.ArgumentParser()
    events.configure(parser)
    given = [data, "--bundle", world.bundle, "--engine", "torch", "--threads", 1, *options]
    return events.run(parser.parse_args([str(each) for each in given]))


def result(
    world: Any, data: object, capsys: pytest.CaptureFixture[str], *options: object
) -> dict[str, Any]:
    assert call(world, data, *options, "--json", "-") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("window_ms", "overlap", "steps"), [(0.0, 0.0, 3), (0.0, 0.5, 3), (70.0, 0.25, 6)]
)
def test_streaming_and_whole_form_agree(event_world, window_ms, overlap, steps) -> None:
    bundle = Bundle.load(event_world.bundle)
    data = open_event_set(event_world.data)
    streaming, whole = (
        EventEncoder(
            bundle,
            EventsEvaluationConfig(
                engine="torch", threads=1, form=form, window_ms=window_ms, overlap=overlap
            ),
        )
        for form in ("streaming", "whole")
    )
    seen = []
    for k in range(4):
        sample = Recording(data.events(k), data.size)
        assert len(streaming.clouds(sample)) == steps
        found = streaming.features(sample)
        np.testing.assert_array_equal(found, whole.features(sample))
        assert found.any()
        seen.append(found)
    assert not np.array_equal(seen[0], seen[1])


def test_the_bundle_says_how_windows_are_cut(event_world) -> None:
    bundle = Bundle.load(event_world.bundle)
    stated = Bundle(
        bundle.kind,
        bundle.student,
        bundle.student_config,
        {**bundle.preprocessing, "window_ms": 40.0},
        bundle.timesteps,
        bundle.levels,
        bundle.embedding_dim,
        bundle.student_tensors,
        bundle.provenance,
    )
    data = open_event_set(event_world.data)
    config = EventsEvaluationConfig(engine="torch", threads=1)
    assert len(EventEncoder(stated, config).clouds(Recording(data.events(0), data.size))) == 8


def test_energy_is_that_of_a_window_for_the_twin_must_see_every_window(event_world) -> None:
    pytest.importorskip("torch")
    import torch

    from spike_perception.deploy.network import deployed_form, student_of
    from spike_perception.spiking.energy import energy_report

    data = open_event_set(event_world.data)
    encoder = EventEncoder(
        Bundle.load(event_world.bundle), EventsEvaluationConfig(engine="torch", threads=1)
    )
    samples = encoder.network_input(Recording(data.events(0), data.size))[None]
    found = energy(encoder.runtime, samples, 10)
    student = deployed_form(student_of(encoder.runtime.bundle), encoder.runtime.precision)
    whole = energy_report(student, torch.from_numpy(samples), 10)
    assert found is not None and found["of"] == "window"
    assert found["ratio_to_ann_twin"] == pytest.approx(whole.ratio_to_ann_twin / samples.shape[1])
    assert found["ann_twin_mj"] == whole.ann_twin_mj


def test_digits_are_words(event_world, capsys: pytest.CaptureFixture[str]) -> None:
    found = result(event_world, event_world.data, capsys, "--word-bank", event_world.bank)
    assert found["folders"] == {"0": "zero", "1": "one"}
    assert found["top_1"] >= 0.8  # chance is a half
    assert found["images"] == found["recordings"] == 16
    assert found["ms_per_recording"] == found["ms_per_image"] > 0
    assert found["energy"]["student_mj"] > 0
    options = ["--word-bank", event_world.bank, "--form", "whole"]
    whole = result(event_world, event_world.data, capsys, *options)
    for key in ("top_1", "mean_confidence", "expected_calibration_error", "per_class"):
        assert whole[key] == found[key]


def test_the_last_recordings_and_a_pack(
    event_world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = WordBank.load(event_world.bank).vocabulary(["one", "zero", "snow"])
    pack.save(tmp_path / "pack.safetensors")
    options = ["--vocabulary", tmp_path / "pack.safetensors", "--last", 4, "--shots", "1"]
    found = result(
        event_world, event_world.data, capsys, *options, "--shots-from", event_world.more
    )
    assert (found["images"], found["distractors"]) == (4, 1)
    assert [row["images"] for row in found["few_shot"]] == [4.0, 4.0]


def test_corrupt_recordings_are_named(
    event_world, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(event_world.data) as source, zipfile.ZipFile(path, "w") as file:
        for name in source.namelist():
            data = source.read(name)
            file.writestr(name, data[:-2] if name == "events/3.bs2" else data)
    options = ["--word-bank", event_world.bank, "--report", tmp_path / "run"]
    found = result(event_world, path, capsys, *options)
    assert list(found["skipped"]) == ["events/3.bs2"]
    assert found["images"] == 15
    assert "events/3.bs2" in (tmp_path / "run" / "report.html").read_text()


def test_refusals(event_world, point_world) -> None:
    with pytest.raises(InputError) as caught:
        call(point_world, event_world.data, "--word-bank", event_world.bank)
    assert caught.value.reason == "wrong_kind"
    with pytest.raises(InputError, match="--word-bank BANK or --vocabulary PACK"):
        call(event_world, event_world.data)
