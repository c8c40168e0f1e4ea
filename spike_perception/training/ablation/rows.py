# SPDX-License-Identifier: Apache-2.0
"""Rows of the ablation's table: which losses are on, and what else differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        title: in tables.
        terms: switches of the losses, beside cross-entropy, that are on.
        schedule: W1, the schedule of the temporal weight; otherwise that weight is constant.
        initial: W2, the student learns its initial potential.
        linear: classify by a learned linear layer on the spike counts, not by the text head.
    """

    title: str
    terms: tuple[str, ...] = ()
    schedule: bool = False
    initial: bool = False
    linear: bool = False

    def loss(self) -> dict[str, bool]:
        """Changes of the losses' configuration, by dotted path."""
        return {
            **{switch: switch in self.terms for switch in SWITCHES},
            "cross_entropy.enabled": True,
            "temporal.warm_start": self.schedule,
        }

    @property
    def without_labels(self) -> bool:
        """True if it learns from images without labels too."""
        return bool(set(self.terms) - set(_PROTOTYPES))


_TEMPORAL = ("temporal.membrane", "temporal.rate")
_LOGITS = ("logits.enabled",)
_MANIFOLD = ("manifold.enabled",)
_PROTOTYPES = ("prototypes.enabled",)
_FEATURE = ("feature.enabled",)
SWITCHES = (*_LOGITS, *_MANIFOLD, *_TEMPORAL, *_PROTOTYPES, *_FEATURE)

ROWS: Mapping[str, Row] = {
    "linear": Row("cross-entropy only, learned linear head", linear=True),
    "ce": Row("cross-entropy only, text head"),
    "logits": Row("+ logits", _LOGITS),
    "manifold": Row("+ manifold", _MANIFOLD),
    "temporal-w1": Row("+ temporal, W1 (schedule)", _TEMPORAL, schedule=True),
    "temporal-w2": Row("+ temporal, W2 (initial potential)", _TEMPORAL, initial=True),
    "temporal-w1-w2": Row("+ temporal, W1 and W2", _TEMPORAL, schedule=True, initial=True),
    "prototypes": Row("+ prototypes", _PROTOTYPES),
    "all": Row(
        "all of VL2Spike",
        (*_LOGITS, *_MANIFOLD, *_TEMPORAL, *_PROTOTYPES),
        schedule=True,
        initial=True,
    ),
    "feature": Row("+ plain feature cosine (no part of VL2Spike)", _FEATURE),
}
#: Rows without a teacher; gains are over the stronger of them.
BASELINES = ("linear", "ce")
WHOLE = "all"


@dataclass(frozen=True, order=True)
class Run:
    """One training.

    Attributes:
        set: name of the image set.
        row: of :data:`ROWS`.
        steps: T.
        levels: D.
        seed: of weights, order, augmentation and the choice of labelled images.
    """

    set: str
    row: str
    steps: int
    levels: int
    seed: int = field(default=0)

    @property
    def key(self) -> str:
        """Its name, such as ``cifar10.all.T2.D4.s0``."""
        return f"{self.set}.{self.row}.T{self.steps}.D{self.levels}.s{self.seed}"
