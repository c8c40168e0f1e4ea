# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.zero_shot.bank import WordBank
from spike_perception.zero_shot.folding import fold, unit
from spike_perception.zero_shot.head import Head
from spike_perception.zero_shot.pack import Teacher
from spike_perception.zero_shot.rejection import Rejection

from .example import ENCODER, rows, spike_counts

DATA = Path(os.environ.get("SPIKE_PERCEPTION_DATA", Path(__file__).parents[2] / "../shared/data"))
NAMES = ["dog", "traffic light", "glasses", "glass", "baseball bat", "bat (animal)", "1e5", "couch"]
NAMES += ["shoe", "scissors"]
ALIASES = {
    "dog": ["hound", "puppy"],
    "couch": ["sofa"],
    "baseball bat": ["bat"],
    "bat (animal)": ["bat"],
}


def bank(**fields) -> WordBank:
    return WordBank.of(NAMES, fold(list(rows(len(NAMES), 48))), ENCODER, ALIASES, **fields)


@pytest.mark.parametrize(
    ("word", "noun"),
    [
        ("dog", "dog"),
        ("Dogs", "dog"),
        ("HOUND", "dog"),
        ("puppies", "dog"),
        ("traffic_lights", "traffic light"),
        ("Traffic-Light", "traffic light"),
        ("glass", "glass"),
        ("glasses", "glasses"),
        ("sofas", "couch"),
        ("1e5", "1e5"),
        ("baseball bats", "baseball bat"),
        ("Shoes", "shoe"),
        ("scissor", "scissors"),
    ],
)
def test_a_word_finds_its_noun(word, noun):
    assert NAMES[bank().find(word)] == noun


@pytest.mark.parametrize(
    ("word", "reason", "told"),
    [
        ("dgo", "unknown_name", "'dog'"),
        ("shoese", "unknown_name", "'shoe'"),
        ("trafic light", "unknown_name", "'traffic light'"),
        ("soffa", "unknown_name", "'couch'"),
        ("qqqq", "unknown_name", "no noun is near"),
        ("bat", "ambiguous_name", "'baseball bat', 'bat (animal)'"),
        ("bats", "ambiguous_name", "'baseball bat', 'bat (animal)'"),
        ("", "bad_name", "1 to 100"),
        ("a\x00", "bad_name", "control"),
        (3, "bad_name", "expected a string"),
    ],
)
def test_a_word_that_is_refused(word, reason, told):
    with pytest.raises(InputError) as caught:
        bank().find(word)
    assert caught.value.reason == reason
    assert told in str(caught.value)


def test_a_vocabulary_by_names():
    rule = Rejection("max_softmax", 0.2)
    b = bank(temperature=0.03, rejection=rule, teacher=Teacher("t"), prompts=("a {name}",))
    p = b.vocabulary(["Sofas", "dog"])
    assert p.names == ("Sofas", "dog"), "objects are named as the robot's owner named them"
    assert (p.temperature, p.rejection, p.teacher, p.prompts, p.encoder_id) == (
        0.03, rule, Teacher("t"), ("a {name}",), ENCODER,
    )  # fmt: skip
    np.testing.assert_allclose(p.rows[0], rows(len(NAMES), 48)[7], atol=2 * b.quantised.scale)
    np.testing.assert_array_equal(p.rows[1], b.row("dog"))
    counts = spike_counts(rows(len(NAMES), 48), np.array([7, 0]), noise=0.1)
    assert [d.name for d in Head(p.replace(rejection=None)).decide_all(counts)] == ["Sofas", "dog"]


def test_a_centred_vocabulary_gets_its_bias():
    mean = np.linspace(0, 3, 48).astype(np.float32)
    b = WordBank.of(NAMES, fold(list(rows(len(NAMES), 48)), feature_mean=mean), ENCODER)
    p = b.vocabulary(["dog", "glass"], negatives=2)
    np.testing.assert_allclose(p.bias, -p.rows @ mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["dog", "hound"], "duplicate_name"),
        (["dog", "Dog"], "duplicate_name"),
        (["dog", "zebra"], "unknown_name"),
        ([], "bad_pack"),
    ],
)
def test_vocabularies_that_are_refused(words, reason):
    with pytest.raises(InputError) as caught:
        bank().vocabulary(words)
    assert caught.value.reason == reason


def test_negative_labels_are_the_nouns_farthest_off():
    b = bank()
    p = b.vocabulary(["dog", "couch"], negatives=3)
    assert len(p.negatives) == 3 and not {"dog", "couch"} & set(p.negatives)
    nearest = {n: float((p.rows[:2] @ b.row(n)).max()) for n in NAMES if n not in p.names}
    assert sorted(nearest, key=nearest.__getitem__)[:3] == list(p.negatives)
    with pytest.raises(InputError, match="negative labels"):
        b.vocabulary(["dog"], negatives=len(NAMES))


def test_a_bank_is_saved_and_loaded(tmp_path):
    b = bank(rejection=Rejection("energy", 0.5))
    b.save(tmp_path / "bank")
    loaded = WordBank.load(tmp_path / "bank", encoder_id=ENCODER)
    assert loaded.names == b.names and loaded.find("puppy") == 0
    assert loaded.vocabulary(["dog"]).vocabulary_id == b.vocabulary(["dog"]).vocabulary_id
    with pytest.raises(InputError) as caught:
        WordBank.load(tmp_path / "bank", encoder_id="0" * 64)
    assert caught.value.reason == "wrong_encoder"
    content = bytearray((tmp_path / "bank").read_bytes())
    content[-1] ^= 1
    (tmp_path / "bank").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        WordBank.load(tmp_path / "bank")


@pytest.mark.parametrize(
    "aliases",
    [{"zebra": ["x"]}, {"dog": [1]}, {"dog": [""]}, {"dog": [f"x{k}" for k in range(65)]}],
)
def test_aliases_that_are_refused(aliases):
    with pytest.raises(InputError):
        WordBank.of(NAMES, fold(list(rows(len(NAMES), 48))), ENCODER, aliases)


def test_thousands_of_nouns_are_quick_and_small(tmp_path):
    syllables = ["ba", "do", "ki", "lu", "me", "no", "pa", "ru", "ti", "ve"]
    names = [a + b + c + d for a in syllables for b in syllables for c in syllables for d in "xyz"]
    b = WordBank.of(names, fold(list(rows(len(names), 256))), ENCODER)
    b.save(tmp_path / "bank")
    assert (tmp_path / "bank").stat().st_size < 1.1 * len(names) * 256 + 60_000
    start = time.perf_counter()
    loaded = WordBank.load(tmp_path / "bank")
    loaded.vocabulary(names[:80], negatives=20)
    with pytest.raises(InputError, match="near are"):
        loaded.find("badokiw")
    assert time.perf_counter() - start < 5


def test_words_of_a_real_text_tower(tmp_path):
    file = DATA / "clip_vitb32_text_lvis1203.npz"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    with np.load(file, allow_pickle=False) as data:
        names = [str(name) for name in data["names"]]
        features = unit(data["features"])
        aliases = {
            name: [w for w in str(line).split("|") if w and w != name]
            for name, line in zip(names, data["synonyms"], strict=True)
        }
    b = WordBank.of(names, fold(list(features)), ENCODER, aliases)
    b.save(tmp_path / "bank")
    b = WordBank.load(tmp_path / "bank")
    wanted = ["cars", "Traffic Lights", "dustbin", "sofas", "people", "dogs", "aeroplane"]
    p = b.vocabulary(wanted)
    assert [names[b.find(word)] for word in wanted[:3]] == [
        "car_(automobile)", "traffic_light", "trash_can",
    ]  # fmt: skip
    counts = spike_counts(p.rows, np.arange(len(wanted)), noise=0.5)
    assert [d.name for d in Head(p).decide_all(counts)] == wanted
    with pytest.raises(InputError, match="'zebra'"):
        b.find("zebbra")
