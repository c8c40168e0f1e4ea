# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from spike_perception.config import replace
from spike_perception.errors import InputError
from spike_perception.training.ablation.config import (
    AblationConfig,
    GridConfig,
    SetConfig,
    load_config,
    preset_names,
)
from spike_perception.training.ablation.rows import BASELINES, ROWS, WHOLE
from spike_perception.training.vl2spike.config import VL2SpikeConfig


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_and_are_written_as_they_were_read(name):
    config = load_config(name)
    assert AblationConfig.of(config.document()) == config
    assert {WHOLE, *BASELINES} <= set(config.rows)


def test_the_presets_are_there():
    assert preset_names() == ("cpu", "full", "tiny")
    for name in ("cpu", "full"):
        config = load_config(name)
        assert len(config.sets) == 3 and len(config.seeds) >= 3
        assert {"logits", "manifold", "temporal-w1", "temporal-w2", "prototypes"} < set(config.rows)


def test_a_row_switches_on_what_it_names_and_nothing_else():
    on = {
        name: {
            "logits": c.logits.enabled,
            "manifold": c.manifold.enabled,
            "temporal": c.temporal.membrane and c.temporal.rate,
            "prototypes": c.prototypes.enabled,
            "feature": c.feature.enabled,
        }
        for name, row in ROWS.items()
        for c in [replace(VL2SpikeConfig(), row.loss())]
    }
    assert all(replace(VL2SpikeConfig(), r.loss()).cross_entropy.enabled for r in ROWS.values())
    for baseline in BASELINES:
        assert not any(on[baseline].values())
    for single in ("logits", "manifold", "prototypes", "feature"):
        assert [k for k, v in on[single].items() if v] == [single]
    for row in ("temporal-w1", "temporal-w2", "temporal-w1-w2"):
        assert [k for k, v in on[row].items() if v] == ["temporal"]
    assert on[WHOLE] == {
        "logits": True, "manifold": True, "temporal": True, "prototypes": True, "feature": False
    }  # fmt: skip
    warm = {
        name: (replace(VL2SpikeConfig(), r.loss()).temporal.warm_start, r.initial)
        for name, r in ROWS.items()
    }
    assert warm["temporal-w1"] == (True, False) and warm["temporal-w2"] == (False, True)
    assert warm["temporal-w1-w2"] == warm[WHOLE] == (True, True)


def test_runs_are_sets_times_rows_times_seeds_and_the_variants_besides():
    config = AblationConfig(
        sets=(SetConfig(name="a"), SetConfig(name="b")),
        rows=("ce", "all"),
        seeds=(3, 4),
        grid=GridConfig("b", ("all",), (1, 2), (4,), (3,)),
        overrides={"steps": 2},
    )
    keys = [run.key for run in config.runs()]
    assert len(keys) == len(set(keys)) == 2 * 2 * 2 + 1
    assert keys[:2] == ["a.ce.T2.D4.s3", "a.all.T2.D4.s3"]
    assert keys[-1] == "b.all.T1.D4.s3"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"rows": ["everything"]}, "invalid_setting"),
        ({"rows": "all"}, "invalid_setting"),
        ({"seeds": [0.5]}, "invalid_setting"),
        ({"seeds": [True]}, "invalid_setting"),
        ({"workers": 0}, "invalid_setting"),
        ({"grid": {"set": "a"}}, "invalid_setting"),
        ({"grid": {"depth": [1]}}, "unknown_setting"),
        ({"sets": [{"name": "a"}, {"name": "a"}]}, "invalid_setting"),
        ({"sets": [{"name": "../a"}]}, "invalid_setting"),
        ({"sets": [{"path": "a"}]}, "unknown_setting"),
        ({"recipe": {"trainer": {"batches": 3}}}, "unknown_setting"),
        ({"recipe": {"data": [{"path": "a"}]}}, "invalid_setting"),
        ({"colour": 1}, "unknown_setting"),
    ],
)
def test_what_cannot_be_used_is_refused(document, reason):
    with pytest.raises(InputError) as caught:
        AblationConfig.of(document)
    assert caught.value.reason == reason


def test_settings_of_the_recipe_change_by_dotted_path():
    config = load_config("tiny").changed(
        {"trainer.steps": 3, "loss.logits.weight": 2, "student.overrides.blocks": 1}
    )
    assert config.recipe.trainer.steps == 3 and config.recipe.loss.logits.weight == 2.0
    assert config.overrides["blocks"] == 1
