# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util

import pytest

from spike_perception.training.cli import COMMANDS, main


def test_the_overview_names_every_command(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: spike-train COMMAND")
    assert all(" ".join(words) in shown for words in COMMANDS)


@pytest.mark.parametrize("words", list(COMMANDS), ids=" ".join)
def test_every_command_has_help(words, capsys):
    module, line = COMMANDS[words]
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    assert found is not None, f"{module} is registered, but is not there"
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"spike-train {' '.join(words)}" in shown and line in " ".join(shown.split())


def test_unknown_commands_and_bad_input_end_with_status_2(capsys, tmp_path):
    assert main(["distil"]) == 2
    assert "spike-train: no command 'distil'" in capsys.readouterr().err
    assert main(["export", "nowhere", "x.safetensors"]) == 2
    assert capsys.readouterr().err.startswith("spike-train: nowhere")
    absent = tmp_path / "absent" / "shown.json"
    assert main(["svl", str(tmp_path), "--show-config", "--json", str(absent)]) == 2
    shown = capsys.readouterr()
    assert "name: points" in shown.out and "absent" in shown.err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("spike-train ")
