# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.evaluation.shots import ExamplePool, few_shot_rows, parse_shots
from spike_perception.zero_shot.folding import unit
from spike_perception.zero_shot.pack import VocabularyPack

CLASSES = 4


def test_numbers_of_shots() -> None:
    assert parse_shots("5, 1,5") == (1, 5)
    assert parse_shots("") == ()
    for wrong in ("0", "-1", "a", "1;2", "1e3", "99999"):
        with pytest.raises(InputError):
            parse_shots(wrong)


@pytest.fixture
def sample():
    """Words that point away from what is seen, so that examples must help."""
    rng = np.random.default_rng(4)
    true = unit(rng.standard_normal((CLASSES, 32)))
    rows = unit(0.25 * true + 0.75 * unit(rng.standard_normal((CLASSES, 32)))).astype(np.float32)
    pack = VocabularyPack.build([f"word {k}" for k in range(CLASSES)], rows, "e" * 64)
    labels = np.repeat(np.arange(CLASSES), 30)
    features = (true[labels] * 10 + rng.normal(0, 1.5, (len(labels), 32))).astype(np.float32)
    return pack, features, labels


def pool_of(features: np.ndarray, labels: np.ndarray, broken: tuple[int, ...] = ()) -> ExamplePool:
    return ExamplePool(
        range(CLASSES),
        [np.flatnonzero(labels == k) for k in range(CLASSES)],
        lambda at: None if at in broken else features[at],
    )


def test_draws_are_nested_and_pass_over_what_cannot_be_used(sample) -> None:
    _, features, labels = sample
    many = pool_of(features, labels).draw(10, 3, str)
    few = pool_of(features, labels).draw(2, 3, str)
    assert [each[:2] for each in many] == few
    assert all((labels[chosen] == k).all() for k, chosen in enumerate(many))
    assert many != pool_of(features, labels).draw(10, 4, str)
    broken = (few[0][0], few[2][1])
    other = pool_of(features, labels, broken).draw(2, 3, str)
    assert not {*broken} & {at for chosen in other for at in chosen}
    assert other[0][0] == many[0][1]
    with pytest.raises(InputError, match="'2'") as caught:
        pool_of(features, labels, tuple(range(61, 90))).draw(2, 0, str)
    assert caught.value.reason == "too_few_examples"


def test_examples_help_and_are_not_judged(sample) -> None:
    pack, features, labels = sample
    own = np.arange(len(labels))
    pool = pool_of(features, labels)
    found = few_shot_rows(pack, pool, (1, 10), (0, 1, 2), features, labels, own)
    assert [row["shots"] for row in found] == [0, 1, 10]
    assert [row["images"] for row in found] == [120 - CLASSES * 10] * 3
    assert found[2]["top_1"] > found[0]["top_1"] + 0.1
    assert found[2]["top_1"] == pytest.approx(np.mean(found[2]["top_1_seeds"]))
    assert found[2]["top_1_std"] == pytest.approx(np.std(found[2]["top_1_seeds"]))
    assert found[0]["examples_alone_top_1"] is None
    assert found[2]["examples_alone_top_1"] > found[1]["examples_alone_top_1"]
    assert found == few_shot_rows(pack, pool, (1, 10), (0, 1, 2), features, labels, own)
    others = few_shot_rows(pack, pool, (5,), (0,), features, labels, None)
    assert others[1]["images"] == 120


def test_something_must_be_left_to_judge(sample) -> None:
    pack, features, labels = sample
    pool = pool_of(features, labels)
    with pytest.raises(InputError, match="no image to judge"):
        few_shot_rows(pack, pool, (30,), (0,), features, labels, np.arange(len(labels)))
    with pytest.raises(InputError, match="31 examples"):
        few_shot_rows(pack, pool, (31,), (0,), features, labels, None)
