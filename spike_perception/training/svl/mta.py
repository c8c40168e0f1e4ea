# SPDX-License-Identifier: Apache-2.0
"""Multi-scale triple alignment: points against words and pictures (SVL eq. 6 to 9).

Where paper and released code differ, or are silent, this is what was settled:

* The third term (eq. 8) is on, as in the paper; the released configurations turn it off
  (``mse: 0``). ``mse_reduction`` chooses between the squared distance of a sample, averaged over
  the batch (``sample``: so that its weight does not depend on the batch, as for the other terms),
  eq. 8's sum over the batch (``sum``) and the code's mean over elements (``element``).
  Distances are taken between unit vectors (our reading).
* The code trains two maps from the teacher's space to the student's width; here one map leads from
  the student's counts to the teacher's space (``own_image_projection``: a second one for the image
  terms). By ``<P x, y> = <x, P^T y>`` it folds into the vocabulary all the same. Where words are
  embedded by another model than pictures (``teacher.texts``), there is always a second one.
* The feature is a firing rate: the last layer is spiking, its counts are divided by T x D. (The
  code's is a mean of membrane currents.) Attention is associative, see
  ``students.pointformer``.
* With few names several samples of a batch share one. All samples of a class are then positives,
  each with an equal share of the target; with one sample a class this is eq. 6 as printed.
* Only samples with a name take part in the text term.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spike_perception.config import setting
from spike_perception.errors import InputError

MAX_SCALE = 100.0


@dataclass(frozen=True)
class MTAConfig:
    """Weights of the terms; 0 turns one off."""

    text: float = setting(1.0, "weight of the contrast with words (eq. 6)", minimum=0.0)
    image: float = setting(1.0, "weight of the contrast with pictures (eq. 7)", minimum=0.0)
    mse: float = setting(1.0, "weight of the squared distance to pictures (eq. 8)", minimum=0.0)
    mse_reduction: str = setting(
        "sample",
        "squared distances: mean over samples, eq. 8's sum, or the released code's element mean",
        choices=("sample", "sum", "element"),
    )
    own_image_projection: bool = setting(False, "a second projection for the image terms")
    scale: float = setting(
        14.28, "logit scale at the start; it is learnt", minimum=1e-3, maximum=MAX_SCALE
    )

    @property
    def uses_images(self) -> bool:
        """True if any term needs the teacher's image features."""
        return self.image > 0.0 or self.mse > 0.0


def info_nce(x: Tensor, y: Tensor, scale: Tensor, same: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE (SVL eq. 6 and 7), the mean over both directions.

    Args:
        x: unit vectors [B, C].
        y: unit vectors [B, C]; row i belongs to row i of ``x``.
        scale: factor of the cosines.
        same: bool [B, B], symmetric, True where a row of ``x`` also belongs to that row of ``y``;
            None for the diagonal alone.
    """
    logits = scale * x @ y.T
    if same is None:
        share = torch.eye(len(x), dtype=logits.dtype, device=x.device)
    else:
        share = same.to(logits.dtype)
        share = share / share.sum(1, keepdim=True)
    both = functional.log_softmax(logits, 1) + functional.log_softmax(logits.T, 1)
    return -(share * both).sum() / (2 * len(x))


def squared_distance(x: Tensor, y: Tensor, reduction: str = "sample") -> Tensor:
    """Squared distance of rows [B, C] (SVL eq. 8); see :class:`MTAConfig` for ``reduction``."""
    squares = (x - y).square()
    if reduction == "element":
        return squares.mean()
    return squares.sum() if reduction == "sum" else squares.sum(1).mean()


class MTALoss(nn.Module):
    """All terms with their parameters.

    Attributes:
        projection: P, from firing rates to the teacher's space.
        log_scale: p; the logit scale is exp(p), at most 100.
    """

    def __init__(
        self, counts: int, width: int, config: MTAConfig, picture_width: int | None = None
    ) -> None:
        """Make the parameters.

        Args:
            counts: C, channels of the student's feature.
            width: channels of the space of words.
            config: weights.
            picture_width: channels of the space of pictures where that is another; the image terms
                then have a projection of their own.

        Raises:
            InputError: ``invalid_setting`` if every term is off.
        """
        super().__init__()
        if not config.text and not config.uses_images:
            raise InputError("invalid_setting", "loss.text, loss.image and loss.mse are all 0")
        self.config = config
        self.projection = nn.Linear(counts, width, bias=False)
        own = config.own_image_projection or (picture_width is not None and config.uses_images)
        self.image_projection = (
            nn.Linear(counts, picture_width or width, bias=False) if own else None
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))

    def forward(
        self, rates: Tensor, texts: Tensor, labels: Tensor, images: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms.

        Args:
            rates: firing rates F / (T D), [B, C].
            texts: unit embedding of each sample's name in a prompt [B, C_T]; anything without one.
            labels: class of each sample [B]; -1 without a name.
            images: the teacher's unit feature of a picture of each sample [B, C_T], or of another
                width where pictures have one; None if no term needs it. No gradient flows into
                ``texts`` and ``images``.
        """
        c = self.config
        rates, texts, labels = _gathered(rates), _gathered(texts.detach()), _gathered(labels)
        scale = self.log_scale.exp().clamp_max(MAX_SCALE)
        x = functional.normalize(self.projection(rates), dim=1)
        terms: dict[str, Tensor] = {}
        named = labels >= 0
        if c.text > 0.0 and bool(named.any()):
            own = labels[named]
            terms["text"] = info_nce(x[named], texts[named], scale, own[:, None] == own[None])
        if c.uses_images:
            if images is None:
                raise InputError("wrong_input", "the image terms need the teacher's features")
            b = _gathered(images.detach())
            if self.image_projection is not None:
                x = functional.normalize(self.image_projection(rates), dim=1)
            if c.image > 0.0:
                terms["image"] = info_nce(x, b, scale)
            if c.mse > 0.0:
                terms["mse"] = squared_distance(x, b, c.mse_reduction)
        total = sum((getattr(c, name) * term for name, term in terms.items()), x.sum() * 0.0)
        return total, {**terms, "scale": scale}


def _gathered(x: Tensor) -> Tensor:
    """Rows of all processes, with gradients, where the training is distributed."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    if not x.is_floating_point():
        parts = [torch.empty_like(x) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x)
        return torch.cat(parts)
    gather: Any = torch.distributed.nn.functional.all_gather  # type: ignore[attr-defined]
    return torch.cat(gather(x))
