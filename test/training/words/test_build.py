# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from spike_perception.training.words import load_words
from spike_perception.training.words.build import WordNet, _Bank, build

NOUNS = """\
  1 a line of the licence
00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | everything
00000002 05 n 02 cat 0 true_cat 0 001 @ 00000001 n 0000 | an animal
00000003 05 n 02 Felis_catus 0 Persian_cat 0 001 @ 00000002 n 0000 | a breed
00000004 18 n 01 cat 1 001 @ 00000001 n 0000 | a person
00000005 05 n 02 Felis 0 genus_Felis 0 001 @ 00000001 n 0000 | a genus
"""
INDEX = """\
  1 a line of the licence
entity n 1 1 ~ 1 0 00000001
cat n 2 2 @ ~ 2 1 00000002 00000004
true_cat n 1 1 @ 1 0 00000002
felis_catus n 1 1 @ 1 0 00000003
persian_cat n 1 1 @ 1 0 00000003
genus_felis n 1 1 @ 1 0 00000005
"""


def test_wordnet_is_read(tmp_path: Path):
    (tmp_path / "data.noun").write_text(NOUNS)
    (tmp_path / "index.noun").write_text(INDEX)
    (tmp_path / "cntlist.rev").write_text("cat%1:05:00:: 1 18\ncat%1:18:00:: 2 3\n")
    wordnet = WordNet(tmp_path)
    assert wordnet.usual("00000002") == ("cat", "true cat")
    assert wordnet.usual("00000004") == ()  # its word usually means the animal
    assert wordnet.common("cat") == 18
    assert wordnet.below == {"00000001": 4, "00000002": 1}
    assert "genus felis" in wordnet


def test_words_are_taken_once():
    bank = _Bank()
    bank.add("flashlight", ["torch", "lamp"], listed=True)
    bank.add("lamp", ["light"], listed=True)  # a listed noun takes its word
    bank.add("torch", ["cresset"])  # another is the noun that has the word
    bank.add("flashlights", ["pocket torch"])
    bank.add("binoculars", [])
    bank.add("binocular", ["field glass"])
    assert {each.name: each.aliases for each in bank.entries()} == {
        "flashlight": ("torch", "cresset", "pocket torch"),
        "lamp": ("light",),
        "binoculars": ("field glass",),
    }


@pytest.mark.slow
def test_the_shipped_bank_is_what_the_script_builds():
    folder = Path("/usr/share/wordnet")
    if not (folder / "data.noun").is_file():
        pytest.skip("no WordNet: apt install wordnet-base")
    if not (find_spec("timm") and find_spec("open_clip")):
        pytest.skip("timm or open_clip is not installed")
    assert tuple(build(WordNet(folder))) == load_words("bank").entries
