# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from spike_perception.cli import run_command
from spike_perception.errors import InputError
from spike_perception.training.ablation.command import ablate, configure, run
from spike_perception.training.ablation.config import (
    AblationConfig,
    GridConfig,
    SetConfig,
    load_config,
)
from spike_perception.training.ablation.rows import Run
from spike_perception.training.ablation.sets import load_set, open_set, token_basis
from spike_perception.training.ablation.training import batches_of, make_student, run_identity
from spike_perception.training.config import dump_yaml

from .. import colours

pytest.importorskip("lightning_fabric")
COMMANDS = {("ablation",): ("spike_perception.training.ablation.command", "ablation")}
FIGURES = ("accuracy", "accuracy_by_step", "energy_ratio", "mean_rate", "key", "seed")


def tiny(folder, **changes):
    """The tiny preset on the coloured images in ``folder``."""
    config = load_config("tiny").changed(
        {
            "teacher.cache": str(folder / "cache"),
            "teacher.token_dimensions": 4,
            "trainer.steps": 12,
            "student.overrides.first_stride": 4,
            "student.overrides.features": 32,
        }
    )
    held = SetConfig(name="colours", train="train", test="test", pool=10, labelled=6)
    return dataclasses.replace(
        config,
        **{"sets": (held,), "grid": GridConfig(), "rows": ("linear", "ce", "all"), **changes},
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Image sets and a finished ablation of one seed."""
    folder = tmp_path_factory.mktemp("ablation")
    colours.write_images(folder / "train", 12, 0)
    colours.write_images(folder / "test", 8, 1)
    teacher = colours.ColourTeacher()
    document = ablate(tiny(folder), folder, folder / "out", "spike-train x", teacher=teacher)
    return argparse.Namespace(folder=folder, teacher=teacher, document=document)


def main(arguments):
    return run_command("spike-train", COMMANDS, arguments)


def options(*arguments):
    parser = argparse.ArgumentParser()
    configure(parser)
    return parser.parse_args([str(each) for each in arguments])


def test_every_row_learns_to_name_colours(world):
    runs = {each["row"]: each for each in world.document["runs"]}
    assert list(runs) == ["linear", "ce", "all"]
    for found in runs.values():
        assert found["accuracy"] > 0.6 and len(found["accuracy_by_step"]) == 2
        assert found["accuracy"] == found["accuracy_by_step"][-1]
        assert 0 < found["energy_ratio"] < 1 and found["mean_rate"] > 0
        assert found["labelled_images"] == 18 and found["test_images"] == 24
        assert found["command"] == f"spike-train x --only {found['key']}"
    described = world.document["sets"]["colours"]
    assert described["pool_images"] == 29 and described["teacher_top_1_on_pool"] == 1.0
    assert described["skipped"].keys() == {"red/broken.png"}


def test_a_run_leaves_its_result_alone_and_results_json_holds_all(world):
    folders = list((world.folder / "out" / "runs").iterdir())
    assert len(folders) == 3
    assert all([each.name for each in folder.iterdir()] == ["result.json"] for folder in folders)
    written = json.loads((world.folder / "out" / "results.json").read_text())
    assert written == world.document


def test_finished_runs_are_not_repeated(world, monkeypatch):
    from spike_perception.training.ablation import sets, training

    def fail(*_arguments, **_more):
        raise AssertionError("nothing was left to do")

    monkeypatch.setattr(training, "fit", fail)
    monkeypatch.setattr(sets, "load_set", fail)
    again = ablate(
        tiny(world.folder), world.folder, world.folder / "out", "other", teacher=world.teacher
    )
    assert again["runs"] == world.document["runs"] and again["sets"] == world.document["sets"]


def test_only_takes_some_and_keeps_the_rest(world):
    config = tiny(world.folder, seeds=(0, 1))
    found = ablate(
        config, world.folder, world.folder / "out", "x", only=["*.ce.*"], teacher=world.teacher
    )
    assert [each["key"] for each in found["runs"]] == [
        "colours.ce.T2.D4.s0", "colours.ce.T2.D4.s1"
    ]  # fmt: skip
    with pytest.raises(InputError) as caught:
        ablate(config, world.folder, world.folder / "out", "x", only=["z*"], teacher=world.teacher)
    assert caught.value.reason == "no_runs"


def test_two_processes_give_what_one_gives(world, tmp_path):
    config = tiny(world.folder, workers=2, rows=("ce", "all"))
    found = ablate(config, world.folder, tmp_path, "spike-train x", teacher=world.teacher)
    one = {each["key"]: each for each in world.document["runs"]}
    assert len(found["runs"]) == 2
    for each in found["runs"]:
        assert {k: each[k] for k in FIGURES} == {k: one[each["key"]][k] for k in FIGURES}


def test_an_error_in_another_process_comes_back(world, tmp_path):
    config = tiny(world.folder, workers=2, rows=("ce", "all"))
    config = config.changed({"trainer.optimiser.learning_rate": 1e30, "trainer.log_every": 1})
    with pytest.raises(InputError) as caught:
        ablate(config, world.folder, tmp_path, "x", teacher=world.teacher)
    assert caught.value.reason == "diverged" and "colours." in str(caught.value)


def test_seeds_choose_their_labels_and_identities_what_they_depend_on(world):
    config = tiny(world.folder)
    opened = open_set(config.sets[0], world.folder)
    basis = token_basis(opened, world.teacher, config.recipe)
    found = load_set(opened, world.teacher, config.recipe, (32, 32), basis)
    chosen = [found.chosen(seed)[0] for seed in (0, 0, 1)]
    assert (chosen[0] == chosen[1]).all() and (chosen[0] != chosen[2]).any()
    for each in chosen:
        assert np.bincount(found.labels[each]).tolist() == [6, 6, 6]
    fewer = open_set(dataclasses.replace(config.sets[0], labelled=5), world.folder)
    first = Run("colours", "ce", 2, 4, 0)
    own = run_identity(first, config, [opened.id, "t"])
    assert own == run_identity(first, config.changed({"teacher.cache": "x"}), [opened.id, "t"])
    assert len({
        own,
        run_identity(dataclasses.replace(first, seed=1), config, [opened.id, "t"]),
        run_identity(first, config.changed({"trainer.steps": 13}), [opened.id, "t"]),
        run_identity(first, config, [opened.id, "u"]),
        run_identity(first, config, [fewer.id, "t"]),
    }) == 5  # fmt: skip


def test_images_without_label_go_to_rows_that_need_none_and_are_never_labelled(world, tmp_path):
    held = dataclasses.replace(tiny(world.folder).sets[0], labelled=2, unlabelled=5, steps=4)
    config = tiny(world.folder, sets=(held,), rows=("ce", "prototypes", "temporal-w1", "all"))
    basis = token_basis(open_set(held, world.folder), world.teacher, config.recipe)
    found = load_set(open_set(held, world.folder), world.teacher, config.recipe, (32, 32), basis)
    labelled, unlabelled = found.chosen(0)
    assert len(labelled) == 6 and len(unlabelled) == 15
    assert not set(labelled) & set(unlabelled)
    document = ablate(config, world.folder, tmp_path, "x", teacher=world.teacher)
    seen = {r["row"]: (r["labelled_images"], r["unlabelled_images"]) for r in document["runs"]}
    assert seen == {"ce": (6, 0), "prototypes": (6, 0), "temporal-w1": (6, 15), "all": (6, 15)}
    assert {r["training_steps"] for r in document["runs"]} == {4}
    batch = batches_of(Run("colours", "all", 2, 4, 0), found, config)
    drawn = np.concatenate([batch(step, 0, 1)["labels"].numpy() for step in range(4)])
    assert 0.4 < np.mean(drawn == -1) < 0.6


def test_rows_of_a_seed_start_from_the_same_weights():
    config = load_config("tiny")
    plain, warm = (
        make_student(Run("a", row, 2, 4, 7), config).state_dict() for row in ("ce", "all")
    )
    assert set(warm) - set(plain) and all(key.endswith("kappa") for key in set(warm) - set(plain))
    assert all((warm[key] == value).all() for key, value in plain.items())
    # One step of I-LIF has no membrane that could start anywhere.
    assert set(make_student(Run("a", "all", 1, 4, 7), config).state_dict()) == set(plain)


def test_sets_of_other_classes_do_not_belong_together(world, tmp_path):
    colours.write_images(tmp_path / "test", 2, 1)
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "scarlet")
    config = SetConfig(name="a", train=str(world.folder / "train"), test=str(tmp_path / "test"))
    with pytest.raises(InputError) as caught:
        open_set(config, tmp_path)
    assert caught.value.reason == "no_labels"


def test_tables_come_of_finished_runs_alone(world, capsys):
    out = world.folder / "tables"
    out.mkdir()
    (out / "results.json").write_text(json.dumps(world.document))
    assert run(options(out, "--tables", "--json", "-")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["runs"] == 3 and summary["sets"]["colours"]["baseline"] in ("linear", "ce")
    assert "all of VL2Spike" in (out / "ablation.md").read_text(encoding="utf-8")
    assert (out / "report.html").is_file() and (out / "ablation.png").is_file()


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_results_that_cannot_be_read(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert main(["ablation", str(tmp_path), "--tables"]) == 2
    assert "results" in capsys.readouterr().err


def test_the_command_says_what_is_missing(tmp_path, capsys):
    assert main(["ablation", str(tmp_path), "--config", "tiny"]) == 2
    assert "--teacher" in capsys.readouterr().err
    assert main(["ablation", str(tmp_path), "--config", "nothing"]) == 2
    assert "tiny" in capsys.readouterr().err
    shown = ["ablation", str(tmp_path), "--config", "tiny", "--set", "trainer.steps=3"]
    assert main([*shown, "--workers", "3", "--show-config", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    config = AblationConfig.of(document)
    assert config.recipe.trainer.steps == 3 and config.workers == 3


_STOPPED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import colours
from spike_perception.training.ablation.command import ablate
from spike_perception.training.ablation.config import load_config
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    config = load_config(str(folder / "stopped.yaml"))
    ablate(config, folder, folder / "stopped", "x", teacher=colours.ColourTeacher())
"""


@pytest.mark.slow
def test_a_terminated_ablation_ends_its_processes_and_keeps_checkpoints(world, repository):
    script = world.folder / "stopped.py"
    script.write_text(_STOPPED)
    config = tiny(world.folder, workers=2, rows=("ce", "all")).changed({"trainer.steps": 100000})
    (world.folder / "stopped.yaml").write_text(dump_yaml(config.document()))
    colours_at = repository / "test" / "training"
    process = subprocess.Popen([sys.executable, script, world.folder, colours_at])
    runs = world.folder / "stopped" / "runs"
    deadline = time.monotonic() + 90
    while len(list(runs.glob("*/log/*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert len(list(runs.glob("*/checkpoint.pt"))) == 2
