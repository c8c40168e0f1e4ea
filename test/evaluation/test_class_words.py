# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.evaluation.class_words import (
    Labels,
    bank_vocabulary,
    find_classes,
    match_folders,
    parse_labels,
)
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.folding import fold
from spike_perception.zero_shot.pack import VocabularyPack

NOUNS = ["traffic light", "sofa", "cat", "dog", "tabby", "person", "goldfish"]


@pytest.fixture(scope="module")
def bank() -> WordBank:
    rows = fold(list(np.random.default_rng(0).standard_normal((len(NOUNS), 16))))
    return WordBank.of(
        NOUNS, rows, "e" * 64, {"sofa": ["couch"], "goldfish": ["Carassius auratus"]}
    )


def test_labels_on_the_command_line() -> None:
    assert parse_labels("cat, dog") == Labels(("cat", "dog"))
    assert parse_labels("n01=cat,n02=dog,bird") == Labels(
        ("bird",), {"n01": ("cat",), "n02": ("dog",)}
    )
    assert parse_labels(",".join(f"word {k}" for k in range(500))).words[-1] == "word 499"
    with pytest.raises(InputError, match="no label"):
        parse_labels(" , ")


def test_labels_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n\n dog \n", encoding="utf-8-sig")
    assert parse_labels(str(tmp_path / "names.txt")) == Labels(("cat", "dog"))
    text = "wnid\tnames\nn01\ttabby, tabby cat\nn02\tcat, house cat\nn03\t\n"
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("classes.tsv", text)
    found = parse_labels(str(tmp_path / "set.zip" / "classes.tsv"))
    assert found.words == ()
    assert found.folders["n01"] == ("tabby", "tabby cat")
    assert "n03" not in found.folders
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError) as caught:
        parse_labels(str(tmp_path / "bad.txt"))
    assert caught.value.reason == "bad_labels"
    with pytest.raises(InputError, match="no file"):
        parse_labels(str(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="cannot be read"):
        parse_labels(str(tmp_path / "set.zip" / "none.tsv"))


def test_folders_are_the_words(bank: WordBank) -> None:
    folders = ("Traffic_Lights", "couch", "cats")
    pack, labels = bank_vocabulary(bank, folders, Labels(), 2)
    assert pack.names == ("Traffic Lights", "couch", "cats")
    assert len(pack.negatives) == 2
    assert match_folders(pack, folders, labels, bank).tolist() == [0, 1, 2]


def test_every_folder_that_is_no_word_is_named(bank: WordBank) -> None:
    with pytest.raises(InputError, match=r"'golfish'.*'goldfish'.*'zebra'.*--labels") as caught:
        bank_vocabulary(bank, ("golfish", "cat", "zebra"), Labels(), 0)
    assert caught.value.reason == "unknown_name"


def test_given_words_are_all_there_is_to_choose(bank: WordBank) -> None:
    labels = Labels(("dog", "couch", "person"))
    pack, named = bank_vocabulary(bank, ("sofa", "people"), labels, 0)
    assert pack.names == ("dog", "couch", "person")
    assert match_folders(pack, ("sofa", "people"), named, bank).tolist() == [1, 2]
    with pytest.raises(InputError, match=r"'cat'.*3 names of the vocabulary"):
        match_folders(pack, ("cat", "dog"), named, bank)


def test_folders_take_the_first_word_that_is_known_and_free(bank: WordBank) -> None:
    mapping = {
        "n1": ("tabby", "cat"),
        "n2": ("Felis", "tabby", "cat"),
        "n3": ("unheard of", "Carassius auratus"),
        "unused": ("dog",),
    }
    folders = ("n1", "n2", "n3")
    pack, labels = bank_vocabulary(bank, folders, Labels((), mapping), 0)
    assert pack.names == ("tabby", "cat", "Carassius auratus")
    assert match_folders(pack, folders, labels, bank).tolist() == [0, 1, 2]
    both = Labels(("dog", "person"), {"n1": ("tabby",)})
    pack, labels = bank_vocabulary(bank, ("n1", "dogs"), both, 0)
    assert pack.names == ("dog", "person", "tabby")
    assert match_folders(pack, ("n1", "dogs"), labels, bank).tolist() == [2, 0]


def test_a_pack_keeps_its_distractors_and_takes_the_banks_aliases(bank: WordBank) -> None:
    pack = bank.vocabulary(["person", "sofa", "traffic light"])
    assert match_folders(pack, ("traffic-lights", "people"), Labels()).tolist() == [2, 0]
    assert match_folders(pack, ("couch",), Labels(), bank).tolist() == [1]
    with pytest.raises(InputError, match="'couch'"):
        match_folders(pack, ("couch",), Labels())
    assert match_folders(pack, ("x",), Labels(folders={"x": ("sofa",)})).tolist() == [1]
    assert find_classes(pack, ["couches"], bank) == [1]


def test_two_folders_of_one_class_and_inner_classes_are_refused(bank: WordBank) -> None:
    pack, labels = bank_vocabulary(bank, ("sofa", "couch"), Labels(), 0)
    with pytest.raises(InputError, match="both mean 'sofa'") as caught:
        match_folders(pack, ("sofa", "couch"), labels, bank)
    assert caught.value.reason == "duplicate_name"
    tree = VocabularyPack.build(["animal", "cat"], np.eye(2, 4), "e" * 64, parents=[-1, 0])
    with pytest.raises(InputError, match="classes below"):
        match_folders(tree, ("animal", "cat"), Labels())
