# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spike_perception.errors import InputError
from spike_perception.zero_shot.head import Head, HeadConfig
from spike_perception.zero_shot.hierarchy import Hierarchy
from spike_perception.zero_shot.pack import VocabularyPack

from .example import ENCODER, rows


@st.composite
def trees(draw):
    """Parents of 2 to 12 nodes, numbered in any order."""
    count = draw(st.integers(2, 12))
    parents = [-1] + [draw(st.integers(-1, k - 1)) for k in range(1, count)]
    order = draw(st.permutations(range(count)))
    shuffled = [0] * count
    for k, parent in enumerate(parents):
        shuffled[order[k]] = -1 if parent < 0 else order[parent]
    return shuffled


def tree_pack(parents, seed=0) -> VocabularyPack:
    names = [f"node {k}" for k in range(len(parents))]
    return VocabularyPack.build(
        names, rows(len(parents), 24, seed), ENCODER, parents=parents, temperature=0.05
    )


@settings(max_examples=100, deadline=None)
@given(trees(), st.integers(0, 1000))
def test_leaves_share_out_all_probability_and_inner_nodes_sum_their_children(parents, seed):
    tree = Hierarchy.of(parents)
    p = tree.posteriors(np.random.default_rng(seed).uniform(-1, 1, len(parents)), 0.1)
    assert p[tree.leaves].sum() == pytest.approx(1)
    for parent, children in tree.groups:
        if parent >= 0:
            assert p[children].sum() == pytest.approx(p[parent])


@settings(max_examples=150, deadline=None)
@given(trees().filter(lambda p: max(p) >= 0), st.integers(0, 1000), st.floats(0, 1), st.data())
def test_a_new_leaf_never_changes_a_decision_at_other_branches(parents, seed, p_min, data):
    node = data.draw(st.integers(0, len(parents) - 1))
    before = tree_pack(parents, seed)
    leaf = np.random.default_rng(seed + 1).standard_normal(24)
    after = before.with_class("a new leaf", leaf, parent=node)
    config = HeadConfig(p_min=p_min)
    counts = np.random.default_rng(seed + 2).integers(0, 9, (20, 24)) + 1

    def path(index):
        found = {index}
        while index >= 0:
            index = after.parents[index]
            found.add(index)
        return found

    decisions = zip(
        Head(before, config).decide_all(counts), Head(after, config).decide_all(counts), strict=True
    )
    for old, new in decisions:
        if new.index != old.index:
            assert node in path(old.index) and node in path(new.index)


def test_the_answer_is_as_fine_as_the_evidence_allows():
    names = ["vehicle", "animal", "car", "lorry", "dog", "cat"]
    p = VocabularyPack.build(
        names, np.eye(6), ENCODER, parents=[-1, -1, 0, 0, 1, 1], temperature=0.1
    )
    head = Head(p)
    clear, torn = [8, 0, 8, 0, 0, 0], [10, 0, 5, 5, 0, 0]
    assert head.decide(clear).name == "car"
    between = Head(p, HeadConfig(p_min=0.8)).decide(torn)
    assert between.name == "vehicle"
    assert {h.name for h in between.hypotheses[1:3]} == {"car", "lorry"}
    lost = Head(p, HeadConfig(p_min=0.8)).decide([1, 1, 1, 1, 1, 1])
    assert (lost.unknown, lost.reason) == (True, "no_likely_node")
    assert all(h.name not in ("vehicle", "animal") for h in lost.hypotheses)
    assert head.nearest(torn) in (2, 3)


def test_flat_vocabularies_are_no_trees():
    assert Hierarchy.of([-1, -1]).flat
    assert not Hierarchy.of([-1, 0]).flat
    assert Hierarchy.of([-1, 0, 0]).leaves.tolist() == [1, 2]


@pytest.mark.parametrize("parents", [[0], [1, 0], [-1, 2, 1], [-2], [5], [-1, 1]])
def test_loops_and_parents_that_do_not_exist(parents):
    with pytest.raises(InputError) as caught:
        Hierarchy.of(parents)
    assert caught.value.reason == "bad_hierarchy"


def test_a_very_deep_tree():
    tree = Hierarchy.of([*range(-1, 4999)])
    p = tree.posteriors(np.zeros(5000), 1.0)
    assert tree.deepest(p, 0.5) == 4999
