# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from spike_perception.training.cli import main

TRAININGS = {
    "distill": ["--teacher", "t"],
    "svl": ["--teacher", "t"],
    "finetune": ["--kind", "points", "--initial", "none"],
}


@pytest.mark.parametrize("command", TRAININGS)
def test_trainings_ask_for_data_in_the_same_words(command, tmp_path, capsys):
    assert main([command, str(tmp_path), *TRAININGS[command]]) == 2
    assert "nothing to learn from: give --data PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "given"),
    [
        *((name, [*words, "--data", "x"]) for name, words in TRAININGS.items()),
        ("svl-ablation", ["--teacher", "t", "--data", "x", "--evaluate", "x"]),
        ("ablation", ["--teacher", "t", "--data", "x"]),
    ],
)
def test_a_file_in_place_of_the_runs_folder_is_refused_before_anything_else(
    command, given, tmp_path, capsys
):
    out = tmp_path / "file"
    out.write_text("mine")
    assert main([command, str(out), *given]) == 2  # neither the teacher nor the data exists
    assert "is a file; a run needs a folder of its own" in capsys.readouterr().err
    assert out.read_text() == "mine"
