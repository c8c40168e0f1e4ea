# SPDX-License-Identifier: Apache-2.0
"""SPL: prototypes and logits against text embeddings that stand for prompts.

VL2Spike's abstract names class prototypes and logits aligned with promptable text embeddings. The
formulas, and prompt dropout as what makes a head promptable, are our reading.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from spike_perception.errors import InputError
from spike_perception.training.vl2spike.config import PrototypeConfig
from spike_perception.training.vl2spike.vectors import require_shape, target, unit


def choose_templates(templates: int, keep: float, generator: torch.Generator) -> Tensor:
    """Prompt dropout: the templates of one iteration.

    Args:
        templates: how many there are.
        keep: share to keep, 0..1; at least one is kept.
        generator: source of chance, on the CPU; its state belongs into a checkpoint.

    Returns:
        Indices in rising order, int64.

    Raises:
        InputError: ``no_templates``, ``wrong_share``.
    """
    if templates < 1:
        raise InputError("no_templates", "there is no prompt template; give at least one")
    if not 0.0 <= keep <= 1.0:
        raise InputError("wrong_share", f"keep is {keep}; give a share of the templates, 0 to 1")
    kept = max(1, math.ceil(keep * templates))
    return torch.randperm(templates, generator=generator)[:kept].sort().values


def text_anchors(text: Tensor, chosen: Tensor | None = None) -> Tensor:
    """Text anchors e_c: the direction of the mean over the prompts' directions.

    Args:
        text: text embeddings by class and template, [K, P, C].
        chosen: indices of the templates to use; None for all.

    Returns:
        Unit vectors without gradient, [K, C].

    Raises:
        InputError: ``wrong_shape``.
    """
    require_shape("text embeddings", text, None, None, None)
    used = text if chosen is None else text[:, chosen.to(text.device)]
    return target(target(used).mean(1))


def logit_distillation(
    student: Tensor, teacher: Tensor, anchors: Tensor, scale: float, temperature: float
) -> Tensor:
    """L_logit = mean over t of tau^2 KL(p_teacher(tau) || p_t(tau)) (our reading).

    Step by step as in temporal-wise logit distillation, so every shorter run is a model too.

    Args:
        student: embeddings of every step, [T, B, C]; any length.
        teacher: global image features, [B, C]; any length; get no gradient.
        anchors: text anchors, [K, C]; get no gradient.
        scale: g, the teacher's logit scale.
        temperature: tau.

    Returns:
        Mean over steps and batch (nat).

    Raises:
        InputError: ``wrong_shape``.
    """
    require_shape("student embeddings", student, None, None, None)
    require_shape("teacher features", teacher, *student.shape[1:])
    require_shape("text anchors", anchors, None, student.shape[-1])
    words = target(anchors).T * (scale / temperature)
    wanted = functional.log_softmax(target(teacher) @ words, -1)
    given = functional.log_softmax(unit(student) @ words, -1)
    divergence = functional.kl_div(given, wanted.expand_as(given), reduction="sum", log_target=True)
    return temperature**2 * divergence / (student.shape[0] * student.shape[1])


def feature_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """L_feat = mean over t of 1 - cos(f_t, z), plain feature distillation.

    Args:
        student: embeddings of every step, [T, B, C]; any length.
        teacher: global image features, [B, C]; any length; get no gradient.

    Returns:
        Mean over steps and batch, 0..2.

    Raises:
        InputError: ``wrong_shape``.
    """
    require_shape("student embeddings", student, None, None, None)
    require_shape("teacher features", teacher, *student.shape[1:])
    return 1.0 - (unit(student) * target(teacher)).sum(-1).mean()


def step_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the labels, mean over steps and labelled samples.

    Args:
        logits: [T, B, K].
        labels: int64 [B], 0..K-1; negative for a sample without label.

    Returns:
        A scalar (nat); 0 if no sample has a label.

    Raises:
        InputError: ``wrong_shape``, ``wrong_label``.
    """
    require_shape("logits", logits, None, None, None)
    known = labelled(labels, logits.shape[1], logits.shape[2])
    if not bool(known.any()):
        return logits.sum() * 0.0
    wanted = labels[known].expand(len(logits), -1)
    return functional.cross_entropy(logits[:, known].flatten(0, 1), wanted.flatten())


def labelled(labels: Tensor, batch: int, classes: int) -> Tensor:
    """Which samples have a label, bool [B].

    Raises:
        InputError: ``wrong_shape``, ``wrong_label``.
    """
    require_shape("labels", labels, batch)
    if labels.is_floating_point() or bool((labels >= classes).any()):
        raise InputError(
            "wrong_label",
            f"labels of type {labels.dtype} reach {labels.max().item()}; give integers up to "
            f"{classes - 1}, negative ones for samples without label",
        )
    return labels >= 0


class Prototypes(nn.Module):
    """L_proto, with the prototypes q_c as moving averages of the embeddings (our reading).

    ``L_proto = mean_c (1 - cos(q_c, e_c)) + 0.5 mean_{c,c'} (q_c q_c' - e_c e_c')^2`` over the
    classes of the batch. q_c has the moving average's value, and its gradient is that of the
    batch's class mean: through the average itself all but one percent would be lost. The second
    term includes c = c', where it asks that the embeddings of a class point the same way.
    """

    prototypes: Tensor
    seen: Tensor

    def __init__(self, classes: int, channels: int, config: PrototypeConfig | None = None) -> None:
        """Start without prototypes; a class's first batch gives its first one.

        Args:
            classes: K.
            channels: C.
            config: momentum and share of the second term.
        """
        super().__init__()
        self.config = config or PrototypeConfig()
        self.register_buffer("prototypes", torch.zeros(classes, channels))
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))

    def forward(self, embeddings: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
        """The loss; in training mode the prototypes move first.

        Args:
            embeddings: [B, C]; any length.
            labels: int64 [B], 0..K-1; negative for a sample without label, which is left out.
            anchors: text anchors, [K, C]; get no gradient.

        Returns:
            A scalar; 0 if no sample has a label.

        Raises:
            InputError: ``wrong_shape``, ``wrong_label``.
        """
        classes, channels = self.prototypes.shape
        require_shape("embeddings", embeddings, None, channels)
        require_shape("text anchors", anchors, classes, channels)
        known = labelled(labels, len(embeddings), classes)
        if not bool(known.any()):
            return embeddings.sum() * 0.0
        present, where, counts = labels[known].unique(return_inverse=True, return_counts=True)
        directions = unit(embeddings[known])
        sums = directions.new_zeros(len(present), channels).index_add(0, where, directions)
        means = sums / counts[:, None]
        moved = self._moved(present, means.detach())
        if self.training:
            self.prototypes[present] = moved.to(self.prototypes)
            self.seen[present] = True
        q = moved + means - means.detach()
        e = target(anchors)[present].to(q)
        alignment = 1.0 - (unit(q) * e).sum(-1).mean()
        return alignment + self.config.pairs * functional.mse_loss(q @ q.T, e @ e.T)

    def _moved(self, present: Tensor, means: Tensor) -> Tensor:
        old = self.prototypes[present].to(means)
        averaged = old.lerp(means, 1.0 - self.config.momentum)
        return torch.where(self.seen[present, None], averaged, means)
