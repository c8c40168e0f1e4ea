# SPDX-License-Identifier: Apache-2.0
"""What README and docs say is what the code does."""

from __future__ import annotations

import re

import pytest

from spike_perception.cli import COMMANDS, main
from spike_perception.nodes.command_parameters import NODES, table


@pytest.mark.parametrize("node", sorted(NODES))
def test_the_parameter_table_is_the_one_that_the_command_prints(repository, node):
    text = (repository / "docs" / "nodes.md").read_text()
    shown = re.search(rf"<!-- parameters {node} -->\n(.*?)\n<!-- end -->", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == table(node)


def test_every_command_is_shown(repository):
    readme = (repository / "README.md").read_text()
    for words in COMMANDS:
        alternatives = rf"{words[0]} [\w|-]*{words[-1]}" if len(words) > 1 else words[0]
        assert re.search(rf"spike-perception {alternatives}|make {words[0]}", readme), words


def test_every_launch_argument_is_named(repository):
    text = (repository / "docs" / "nodes.md").read_text()
    shared = repository / "spike_perception" / "nodes" / "launching.py"
    for file in (shared, *sorted((repository / "launch").glob("*.launch.py"))):
        arguments = re.findall(r'^    "(\w+)": \("', file.read_text(), re.MULTILINE)
        assert arguments
        for argument in arguments:
            assert f"`{argument}`" in text, argument


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_every_command_has_help_and_json(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_unknown_commands_are_answered_with_the_known_ones(capsys):
    assert main(["evaluate", "nothing"]) == 2
    assert "evaluate places" in capsys.readouterr().err
    assert main([]) == 0
    assert "replay" in capsys.readouterr().out
