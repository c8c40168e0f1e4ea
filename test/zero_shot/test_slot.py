# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import sys
import threading

import numpy as np
import pytest

from spike_perception.errors import InputError
from spike_perception.zero_shot.head import Head, HeadConfig
from spike_perception.zero_shot.pack import VocabularyPack
from spike_perception.zero_shot.slot import HeadSlot

from .example import ENCODER, pack, rows, spike_counts


def vocabulary(tag: str, classes: int, seed: int) -> VocabularyPack:
    names = [f"{tag} {k}" for k in range(classes)]
    return VocabularyPack.build(names, rows(classes, 64, seed), ENCODER)


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_no_frame_sees_parts_of_two_vocabularies_under_load(arithmetic):
    config = HeadConfig(arithmetic=arithmetic)
    heads = [Head(vocabulary("a", 5, 1), config), Head(vocabulary("b", 40, 2), config)]
    counts = spike_counts(rows(12, 64, 3), np.arange(12))
    expected = {id(head): [d.hypotheses for d in head.decide_all(counts)] for head in heads}
    slot = HeadSlot(heads[0])
    ended = threading.Event()
    wrong: list[object] = []
    seen: list[set[int]] = []

    def frames() -> None:
        generations = set()
        last = -1
        while not ended.is_set():
            installed = slot.current
            got = [d.hypotheses for d in installed.head.decide_all(counts)]
            if got != expected[id(installed.head)] or installed.generation < last:
                wrong.append(got)
            if installed.head is not heads[installed.generation % 2]:
                wrong.append(installed.generation)
            last = installed.generation
            generations.add(last)
        seen.append(generations)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=frames) for _ in range(3)]
        for thread in threads:
            thread.start()
        for k in range(400):
            slot.swap(heads[(k + 1) % 2])
            ended.wait(0.0005)
        ended.set()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert len(set.union(*seen)) > 20, "frames ran between the swaps"
    assert slot.current.generation == 400


def test_swaps_from_many_threads_all_count():
    heads = [Head(vocabulary("a", 2, 1)), Head(vocabulary("b", 2, 2))]
    slot = HeadSlot(heads[0])
    threads = [
        threading.Thread(target=lambda k=k: [slot.swap(heads[k % 2]) for _ in range(50)])
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slot.current.generation == 400


def test_swapping_back_gives_the_same_answers():
    slot = HeadSlot(Head(vocabulary("a", 5, 1)))
    counts = spike_counts(rows(5, 64, 1), np.arange(5))
    before = slot.current.head.decide_all(counts)
    old = slot.swap(Head(vocabulary("b", 3, 2)))
    assert old.generation == 0
    assert slot.current.head.decide_all(counts) != before
    slot.swap(old.head)
    assert slot.current.head.decide_all(counts) == before


def test_a_vocabulary_of_another_encoder_is_refused_and_changes_nothing():
    slot = HeadSlot(Head(pack()))
    other = VocabularyPack.build(["a"], rows(1, 64), "0" * 64)
    with pytest.raises(InputError) as caught:
        slot.swap(Head(other))
    assert caught.value.reason == "wrong_encoder"
    assert ENCODER in str(caught.value) and "0" * 64 in str(caught.value)
    assert slot.current.generation == 0


def test_every_swap_leaves_a_line(caplog):
    slot = HeadSlot(Head(pack()))
    new = vocabulary("b", 3, 2)
    with caplog.at_level(logging.INFO):
        slot.swap(Head(new))
    assert new.vocabulary_id[:12] in caplog.text and pack().vocabulary_id[:12] in caplog.text
