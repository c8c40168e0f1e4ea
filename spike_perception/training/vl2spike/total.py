# SPDX-License-Identifier: Apache-2.0
"""All VL2Spike terms of one batch, weighted and switched by the configuration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spike_perception.errors import InputError
from spike_perception.students.student import Student, Trace
from spike_perception.training.vl2spike.config import VL2SpikeConfig
from spike_perception.training.vl2spike.manifold import Basis, SharedManifold
from spike_perception.training.vl2spike.prototypes import (
    Prototypes,
    choose_templates,
    feature_cosine,
    logit_distillation,
    step_cross_entropy,
)
from spike_perception.training.vl2spike.temporal import (
    consistency_weight,
    membrane_consistency,
    rate_consistency,
)
from spike_perception.training.vl2spike.vectors import require_shape, target, unit


@dataclass(frozen=True)
class TeacherBatch:
    """What the teacher says about a batch of images.

    Attributes:
        features: global image features in the space of the text embeddings, [B, C].
        tokens: patch tokens without class token, [B, H, W, C_T]; the manifold alone needs them.
    """

    features: Tensor
    tokens: Tensor | None = None


@dataclass(frozen=True)
class Losses:
    """Result of one batch.

    Attributes:
        total: what to minimise, a scalar.
        terms: every switched-on term before its weight, a scalar each without gradient, for logs.
        weights: the weight that each had in ``total``.
    """

    total: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, float]


class VL2SpikeLoss(nn.Module):
    """The whole objective (our reading of VL2Spike).

    ``CE + w_man (L_tok + 0.5 L_rel + L_glob) + lam_tc(e) (L_mem + L_rate) + w_p L_proto +
    w_l L_logit``, and besides, as the plain alternative, ``w_f L_feat``. Its parameters train with
    the student's. ``embedding`` (P) outlives training: it is folded into the vocabulary; everything
    else is dropped. Terms that are switched off make no parameters.

    Attributes:
        record: labels of the neuron layers that the trace must hold.
        embedding: P, spike counts F to the text embeddings' space, without bias.
    """

    text: Tensor

    def __init__(
        self,
        student: Student,
        text: Tensor,
        *,
        logit_scale: float,
        basis: Basis | None = None,
        grid: tuple[int, int] | None = None,
        token_channels: int | None = None,
        config: VL2SpikeConfig | None = None,
    ) -> None:
        """Make the losses for one student.

        Args:
            student: gives widths, levels and labels; it is not kept.
            text: text embeddings by class and template, [K, P, C].
            logit_scale: g, the teacher's logit scale.
            basis: frozen manifold of the teacher's tokens; the manifold alone needs it.
            grid: rows and columns of the student's tokens; the manifold alone needs it.
            token_channels: channels of the student's tokens; None if they are its feature's.
            config: switches and weights.

        Raises:
            InputError: ``wrong_shape``; ``no_manifold`` if the manifold is on without its basis or
                grid.
        """
        super().__init__()
        require_shape("text embeddings", text, None, None, None)
        self.config = config or VL2SpikeConfig()
        classes, _, channels = text.shape
        neurons = student.neurons()
        temporal = self.config.temporal
        used = student.block_layers if temporal.membrane or temporal.rate else ()
        self._layers = {label: (neurons[label].levels, neurons[label].axis) for label in used}
        self.record = tuple(used)
        self._token_levels = neurons[student.tokens_from].levels
        self.logit_scale = logit_scale
        # Directions, template by template: with thousands of words to normalise and gather them
        # in every step would take a good part of it.
        directions = target(text).transpose(0, 1).contiguous()
        self.register_buffer("text", directions, persistent=False)
        self.embedding = nn.Linear(student.feature_dim, channels, bias=False)
        self.manifold: SharedManifold | None = None
        if self.config.manifold.enabled:
            if basis is None or grid is None:
                raise InputError(
                    "no_manifold",
                    "the manifold is switched on without basis or grid; give both, or set "
                    "manifold.enabled to false",
                )
            self.manifold = SharedManifold(
                basis,
                token_channels or student.feature_dim,
                channels,
                grid,
                self.config.manifold,
            )
        self.prototypes: Prototypes | None = None
        if self.config.prototypes.enabled:
            self.prototypes = Prototypes(classes, channels, self.config.prototypes)

    def forward(
        self,
        trace: Trace,
        teacher: TeacherBatch,
        labels: Tensor | None,
        progress: float,
        generator: torch.Generator,
        logits: Tensor | None = None,
    ) -> Losses:
        """Losses of one batch, in full precision under mixed precision too.

        Args:
            trace: the student's, from ``student.trace(images, record=loss.record)``.
            teacher: the teacher's features of the same images; get no gradient.
            labels: int64 [B], negative where there is none; needed by cross-entropy and
                prototypes.
            progress: share of the training that is done, 0..1.
            generator: source of prompt dropout, on the CPU.
            logits: [T, B, K] of a classifier of the caller's for cross-entropy; None for the text
                head, g cos(f_t, e_c), under the same prompt dropout.

        Raises:
            InputError: ``wrong_shape``, ``wrong_label``, ``wrong_progress``, ``no_labels``,
                ``no_tokens``, ``not_recorded``.
        """
        with torch.autocast(trace.counts.device.type, enabled=False):
            return self._forward(trace, teacher, labels, progress, generator, logits)

    def _forward(
        self,
        trace: Trace,
        teacher: TeacherBatch,
        labels: Tensor | None,
        progress: float,
        generator: torch.Generator,
        logits: Tensor | None,
    ) -> Losses:
        c = self.config
        dtype = self.embedding.weight.dtype
        features = teacher.features.detach().to(dtype)
        anchors = self._anchors(generator, dtype)
        counts = trace.counts.to(dtype)
        terms: dict[str, Tensor] = {}
        weights: dict[str, float] = {}
        if c.cross_entropy.enabled:
            if logits is None:
                logits = self.logit_scale * unit(self.embedding(counts)) @ anchors.T
            terms["cross_entropy"] = step_cross_entropy(logits.to(dtype), _given(labels))
            weights["cross_entropy"] = c.cross_entropy.weight
        if self.manifold is not None:
            if teacher.tokens is None:
                raise InputError(
                    "no_tokens",
                    "the manifold needs the teacher's tokens; give them, or set manifold.enabled "
                    "to false",
                )
            rates = trace.tokens.to(dtype).mean(0) / self._token_levels
            shares = c.manifold
            for name, term in self.manifold(rates, teacher.tokens.to(dtype), features).items():
                terms[f"manifold.{name}"] = term
                weights[f"manifold.{name}"] = shares.weight * float(getattr(shares, name))
        if self._layers:
            now = consistency_weight(progress, c.temporal)
            for name, term in self._temporal(trace).items():
                terms[f"temporal.{name}"], weights[f"temporal.{name}"] = term, now
        if self.prototypes is not None:
            overall = self.embedding(counts.sum(0))
            terms["prototypes"] = self.prototypes(overall, _given(labels), anchors)
            weights["prototypes"] = c.prototypes.weight
        if c.logits.enabled:
            terms["logits"] = logit_distillation(
                self.embedding(counts), features, anchors, self.logit_scale, c.logits.temperature
            )
            weights["logits"] = c.logits.weight
        if c.feature.enabled:
            terms["feature"] = feature_cosine(self.embedding(counts), features)
            weights["feature"] = c.feature.weight
        total = counts.new_zeros(())
        for name, term in terms.items():
            if weights[name] > 0.0:
                total = total + weights[name] * term
        return Losses(total, {name: term.detach() for name, term in terms.items()}, weights)

    def _anchors(self, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Text anchors [K, C] of this iteration's templates, as :func:`text_anchors`."""
        chosen = choose_templates(len(self.text), self.config.prompt_keep, generator).tolist()
        total = self.text[chosen[0]].clone()
        for template in chosen[1:]:
            total += self.text[template]
        return target(total).to(dtype)

    def _temporal(self, trace: Trace) -> dict[str, Tensor]:
        missing = [label for label in self._layers if label not in trace.layers]
        if missing:
            raise InputError(
                "not_recorded",
                f"the trace lacks {', '.join(missing)}; trace with record=loss.record",
            )
        c, dtype = self.config.temporal, self.embedding.weight.dtype
        membrane, rate = [], []
        for label, (levels, axis) in self._layers.items():
            layer = trace.layers[label]
            membrane.append(membrane_consistency(layer.potential.to(dtype), axis, c.decay))
            rate.append(rate_consistency(layer.spikes.to(dtype), levels, c.substeps))
        means = {"membrane": torch.stack(membrane).mean(), "rate": torch.stack(rate).mean()}
        return {name: term for name, term in means.items() if getattr(c, name)}


def _given(labels: Tensor | None) -> Tensor:
    if labels is None:
        raise InputError(
            "no_labels",
            "cross-entropy and prototypes need labels; give them, or switch both off",
        )
    return labels
