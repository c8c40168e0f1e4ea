# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import pytest

from spike_perception.errors import InputError
from spike_perception.training.svl.ablation import (
    ROWS,
    Comparison,
    Run,
    ablate,
    runs_of,
    write_pages,
)
from spike_perception.training.svl.config import AblationConfig

pytest.importorskip("lightning_fabric")


@pytest.fixture(scope="module")
def config(run):
    quick = {
        "compare.rows": "none,text,mse",
        "compare.grid": "1x2,1x4",
        "compare.seeds": 2,
        "compare.workers": 1,
        "trainer.steps": 2,
        "trainer.batch": 8,
        "trainer.precision": "32-true",
        "trainer.accelerator": "cpu",
        "input.points": 64,
        "text.templates": "plain",
        "teacher.views": 2,
        "teacher.cache": run.config.settings.teacher.cache,
    }
    loaded = AblationConfig.load("ablation").changed(quick)
    return dataclasses.replace(
        loaded,
        overrides=dict(run.config.overrides),
        data=run.config.data,
        evaluate=run.config.evaluate,
    )


def test_runs_share_the_whole_row_between_both_tables(config):
    runs = runs_of(config)
    assert len(runs) == len(set(runs)) == 2 * (3 + 1)
    assert Run("mse", "1x4", 1) in runs and Run("mse", "1x2", 0) in runs
    recipe = config.recipe()
    own = Run("image", "2x1", 1).config(recipe)
    assert own.settings.loss.text == 0.0 and own.settings.loss.mse == 0.0
    assert own.overrides["steps"] == 2 and own.overrides["levels"] == 1
    assert own.settings.trainer.seed == 1
    with pytest.raises(InputError, match="no row pictures"):
        runs_of(config.changed({"compare.rows": "pictures"}))
    with pytest.raises(InputError, match="no TxD"):
        Run("mse", "4", 0).config(recipe)


def test_one_call_trains_what_is_missing_and_writes_tables(config, solids, tmp_path):
    results = ablate(config, tmp_path, "spike-train svl-ablation", teacher=solids.teacher)
    assert len(results) == 8
    marks = {key: (tmp_path / key / "metrics.json").stat().st_mtime_ns for key in results}
    (tmp_path / "text.1x4.s1" / "metrics.json").unlink()
    again = ablate(config, tmp_path, "spike-train svl-ablation", teacher=solids.teacher)
    changed = [
        key for key in marks if (tmp_path / key / "metrics.json").stat().st_mtime_ns != marks[key]
    ]
    assert changed == ["text.1x4.s1"]
    assert again["text.1x4.s1"]["metrics"] == results["text.1x4.s1"]["metrics"]
    of_other_data = tmp_path / "text.1x4.s0" / "metrics.json"
    of_other_data.write_text(of_other_data.read_text().replace(" shapes, ", " shapes, 0"))
    again = ablate(config, tmp_path, "spike-train svl-ablation", teacher=solids.teacher)
    assert again["text.1x4.s0"]["data"] == results["text.1x4.s0"]["data"]
    found = Comparison(config, again)
    assert found.figure == "shapes/dev.int8.top_1"
    assert len(found.document()["rows"]["mse"]) == 2 and set(found.document()["grid"]) == {
        "1x2",
        "1x4",
    }
    text = found.markdown()
    for row in ("none", "text", "mse"):
        assert ROWS[row][0] in text and f"{ROWS[row][2]:.1f}" in text
    assert "78.5" in text and "image" not in found.rows
    page = write_pages(found, tmp_path, "spike-train svl-ablation")
    assert page.is_file() and (tmp_path / "ablation.md").read_text(encoding="utf-8") == text
    assert (tmp_path / "ablation.png").is_file()


def test_none_keeps_the_random_weights(config, solids, tmp_path):
    own = config.changed({"compare.rows": "none", "compare.seeds": 1, "compare.grid": ""})
    key = next(iter(ablate(own, tmp_path, "x", teacher=solids.teacher)))
    import torch

    from spike_perception.students.registry import create_student
    from spike_perception.training.run_folder import RunFolder

    found = RunFolder(tmp_path / key).bundle().tensors["patch_2.layer.weight"]
    torch.manual_seed(0)
    fresh = create_student(own.settings.student.name, {**own.overrides, "steps": 1, "levels": 4})
    wanted = fresh.state_dict()["patch_2.layer.weight"].half().numpy()
    assert (found == wanted).all()
