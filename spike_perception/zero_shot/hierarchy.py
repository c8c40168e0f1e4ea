# SPDX-License-Identifier: Apache-2.0
"""A tree of classes: answer as finely as the evidence allows.

Every node has a head row of its own. Softmax is taken within each group of siblings, so a class
added under one node leaves the decisions at all others as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spike_perception.errors import InputError

ROOT = -1


@dataclass(frozen=True)
class Hierarchy:
    """Parents of K nodes, in an order of evaluation.

    Attributes:
        parents: for each node the index of its parent, or -1 for a node at the top.
        groups: (parent, children) of every node that has children, the top (-1) first, parents
            before their children.
    """

    parents: tuple[int, ...]
    groups: tuple[tuple[int, NDArray[np.intp]], ...]

    @classmethod
    def of(cls, parents: Sequence[int]) -> Hierarchy:
        """Build the tree.

        Raises:
            InputError: ``bad_hierarchy`` for a parent that does not exist or a loop.
        """
        given = tuple(int(parent) for parent in parents)
        children: dict[int, list[int]] = {}
        for node, parent in enumerate(given):
            if not ROOT <= parent < len(given):
                raise InputError(
                    "bad_hierarchy",
                    f"class {node} has parent {parent}, allowed are -1 (top) to {len(given) - 1}",
                )
            children.setdefault(parent, []).append(node)
        groups: list[tuple[int, NDArray[np.intp]]] = []
        waiting = [ROOT]
        for parent in waiting:
            if parent in children:
                groups.append((parent, np.array(children[parent], np.intp)))
                waiting += children[parent]
        if len(waiting) != len(given) + 1:
            raise InputError(
                "bad_hierarchy", "the parents form a loop; every class must hang below -1"
            )
        return cls(given, tuple(groups))

    @property
    def flat(self) -> bool:
        """True if no class has a parent."""
        return len(self.groups) <= 1

    @property
    def leaves(self) -> NDArray[np.intp]:
        """Indices of the nodes without children."""
        return np.setdiff1d(np.arange(len(self.parents)), [parent for parent, _ in self.groups])

    def posteriors(self, cosines: ArrayLike, temperature: float) -> NDArray[np.float64]:
        """P(node) [..., K]: the product of sibling softmaxes from the top down to the node.

        Args:
            cosines: [..., K].
            temperature: the softmax is of ``cosines / temperature``.
        """
        values = np.asarray(cosines, np.float64)
        result = np.empty_like(values)
        for parent, nodes in self.groups:
            above = 1.0 if parent == ROOT else result[..., parent, None]
            result[..., nodes] = above * softmax(values[..., nodes] / temperature)
        return result

    def deepest(self, posteriors: NDArray[np.float64], p_min: float) -> int:
        """Walk down from the top by the likeliest child while its P is at least ``p_min``.

        Args:
            posteriors: P(node) [K].
            p_min: smallest probability of an answer.

        Returns:
            The last node reached, or -1 if not even a node at the top is likely enough.
        """
        children = dict(self.groups)
        node = ROOT
        while node in children:
            best = int(children[node][np.argmax(posteriors[children[node]])])
            if posteriors[best] < p_min:
                break
            node = best
        return node


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Softmax along the last axis, safe for any finite values."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
