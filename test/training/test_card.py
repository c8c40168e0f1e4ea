# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess

from spike_perception import __version__
from spike_perception.training import card


def test_a_commit_is_named_only_if_it_is_of_this_software(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "spike_perception"
    (package / "training").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(card, "__file__", str(package / "training" / "card.py"))

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert card.version() == __version__
    git("init")
    git("commit", "--allow-empty", "-m", "a robot's own files")
    assert card.version() == __version__
    git("add", ".")
    git("commit", "-m", "a checkout")
    assert card.version().startswith(f"{__version__}+")
