# SPDX-License-Identifier: Apache-2.0
"""Switches and weights of the VL2Spike losses; the values to start from are our reading."""

from __future__ import annotations

from dataclasses import dataclass

from spike_perception.config import section, setting


@dataclass(frozen=True)
class CrossEntropyConfig:
    """Cross-entropy with the labels, averaged over the time steps."""

    enabled: bool = setting(True, "learn from labels")
    weight: float = setting(1.0, "weight of cross-entropy", minimum=0.0)


@dataclass(frozen=True)
class ManifoldConfig:
    """SVS, first half: spike tokens on the manifold of the teacher's tokens."""

    enabled: bool = setting(True, "align spike tokens with the teacher's image features")
    weight: float = setting(1.0, "w_man, weight of L_man", minimum=0.0)
    token: float = setting(1.0, "share of the token cosine L_tok in L_man", minimum=0.0)
    relation: float = setting(0.5, "share of the Gram relation L_rel in L_man", minimum=0.0)
    image: float = setting(1.0, "share of the global InfoNCE L_glob in L_man", minimum=0.0)
    logit_scale: float = setting(
        1 / 0.07, "logit scale of L_glob before training", minimum=1e-3, maximum=100.0
    )


@dataclass(frozen=True)
class TemporalConfig:
    """SVS, second half: warm-started temporal consistency.

    Warm start W1 is the schedule here. Warm start W2, a learnable initial potential, belongs to
    the neurons: the student's setting ``learn_initial``.
    """

    membrane: bool = setting(True, "make membrane potentials consistent (L_mem)")
    rate: bool = setting(True, "make spike rates consistent (L_rate)")
    weight: float = setting(0.1, "lam_tc, weight of L_mem + L_rate once warm", minimum=0.0)
    warm_start: bool = setting(True, "W1: raise the weight by a cosine; False keeps it constant")
    start: float = setting(
        0.1, "share of the training before the weight leaves zero", minimum=0.0, maximum=1.0
    )
    width: float = setting(
        0.2, "share of the training over which the weight rises", minimum=0.0, maximum=1.0
    )
    decay: float = setting(
        0.5, "share of the old value in the moving average of L_mem", minimum=0.0, maximum=1.0
    )
    substeps: bool = setting(
        True, "with one time step, take L_rate over the sub-steps of an integer; False: zero"
    )


@dataclass(frozen=True)
class PrototypeConfig:
    """SPL: class prototypes against text embeddings."""

    enabled: bool = setting(True, "align class prototypes with text embeddings (L_proto)")
    weight: float = setting(0.5, "w_p, weight of L_proto", minimum=0.0)
    pairs: float = setting(0.5, "share of the similarities between classes in L_proto", minimum=0.0)
    momentum: float = setting(
        0.99, "share of the old prototype in the moving average", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class LogitConfig:
    """SPL: logits of student and teacher against the same text embeddings."""

    enabled: bool = setting(True, "match the teacher's logits (L_logit)")
    weight: float = setting(1.0, "w_l, weight of L_logit", minimum=0.0)
    temperature: float = setting(2.0, "tau, temperature of both softmaxes", minimum=0.01)


@dataclass(frozen=True)
class FeatureConfig:
    """The plain alternative, no part of VL2Spike: embedding against the teacher's feature."""

    enabled: bool = setting(True, "match the teacher's image features (L_feat)")
    weight: float = setting(1.0, "w_f, weight of L_feat", minimum=0.0)


@dataclass(frozen=True)
class VL2SpikeConfig:
    """All terms; each has a switch, so an ablation is a configuration."""

    prompt_keep: float = setting(
        0.5, "share of the prompt templates used in an iteration", minimum=0.0, maximum=1.0
    )
    cross_entropy: CrossEntropyConfig = section(CrossEntropyConfig)
    manifold: ManifoldConfig = section(ManifoldConfig)
    temporal: TemporalConfig = section(TemporalConfig)
    prototypes: PrototypeConfig = section(PrototypeConfig)
    logits: LogitConfig = section(LogitConfig)
    feature: FeatureConfig = section(FeatureConfig)
