# SPDX-License-Identifier: Apache-2.0
"""The documents' examples run as they stand, print what is shown, and name every reason."""

from __future__ import annotations

import ast
import re

import pytest

# A Python block, and the text block right behind it, if there is one: what it prints.
EXAMPLE = re.compile(
    r"^```python\n(.*?)^```\n(?:\n?^```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
DOCUMENTS = ("deploy.md", "spiking.md")
ROOMS = ("spiking", "students", "deploy", "zero_shot")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_examples_run_in_order_and_print_what_is_shown(
    name, repository, tmp_path, monkeypatch, capsys
):
    torch = pytest.importorskip("torch")
    pytest.importorskip("nir")
    monkeypatch.chdir(tmp_path)
    text = (repository / "docs" / name).read_text()
    examples = list(EXAMPLE.finditer(text))
    assert len(examples) == text.count("```python\n") >= 5
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    namespace: dict[str, object] = {"__name__": name}
    try:
        for each in examples:
            # Line numbers of a failure are those of the document.
            lines = "\n" * text.count("\n", 0, each.start(1))
            exec(compile(lines + each[1], name, "exec"), namespace)  # noqa: S102
            printed = capsys.readouterr().out
            if each[2] is not None:
                assert printed == each[2]
    finally:
        torch.set_num_threads(threads)


def test_every_document_with_examples_is_run(repository):
    found = {
        path.name for path in (repository / "docs").glob("*.md") if "```python" in path.read_text()
    }
    assert found == set(DOCUMENTS)


def test_every_reason_of_these_rooms_is_explained(repository):
    raised = {
        call.args[0].value
        for room in ROOMS
        for path in (repository / "spike_perception" / room).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "InputError"
        and isinstance(call.args[0], ast.Constant)
    }
    text = (repository / "docs" / "deploy.md").read_text()
    table = text[text.index("## Refusals") :]
    explained = set(
        re.findall(r"`([a-z_0-9]+)`", "\n".join(re.findall(r"^\| (.*?) \|", table, re.M)))
    )
    assert len(raised) > 30
    assert raised - explained == set()
    # Settings are read by config.py, for every room.
    assert explained - raised <= {"unknown_setting"}
