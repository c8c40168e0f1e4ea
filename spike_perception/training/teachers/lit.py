# SPDX-License-Identifier: Apache-2.0
"""Projections between a locked image tower and a locked text tower (LiT, arXiv 2111.07991).

Everything here works on arrays that the towers gave before: no pixel and no text is touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from spike_perception.errors import InputError
from spike_perception.training.teachers.lit_config import LitConfig
from spike_perception.training.vl2spike.manifold import MAX_LOGIT_SCALE

Float = NDArray[np.float32]
Half = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class LitArrays:
    """What the towers say about the training data.

    Attributes:
        views: pooled features of the images, [N, F] each; the first of the images as they are, the
            others of degraded ones.
        targets: what the images show, in the text tower's space: unit vectors [N, E] for each view.
        logits: of the image tower's classifier for the images as they are, [N, K].
        class_texts: its class names by prompt, [K, P, E].
        caption_rows: image of each caption, int64 [M]; M may be 0.
        captions: their text features, [M, E].
        words: text features of words whose geometry is kept, [W, E]; W may be 0.
        labels: row of ``label_texts`` of each image, int64 [N]; -1 without.
        label_texts: [L, P, E]; L may be 0.
    """

    views: tuple[Half, ...]
    targets: tuple[Half, ...]
    logits: Half
    class_texts: Float
    caption_rows: NDArray[np.int64]
    captions: Float
    words: Float
    labels: NDArray[np.int64]
    label_texts: Float

    def __post_init__(self) -> None:
        count = len(self.logits)
        width = self.class_texts.shape[-1]
        fits = (
            bool(self.views)
            and all(each.shape == self.views[0].shape for each in self.views)
            and [each.shape for each in self.targets] == [(count, width)] * len(self.views)
            and len(self.views[0]) == count == len(self.labels)
            and self.logits.shape[1] == len(self.class_texts)
            and self.captions.shape == (len(self.caption_rows), width)
            and self.words.shape[1:] == (width,)
            and (len(self.label_texts) == 0 or self.label_texts.shape[-1] == width)
        )
        if not fits:
            raise InputError(
                "wrong_shape",
                f"features {[each.shape for each in self.views]}, logits {self.logits.shape}, "
                f"class texts {self.class_texts.shape}, captions {self.captions.shape} of "
                f"{len(self.caption_rows)} images and words {self.words.shape} do not fit together",
            )


class Heads(nn.Module):
    """The projections and the logit scale.

    Attributes:
        image: standardised features [B, F] to embeddings [B, C].
        text: text features [B, E] to embeddings [B, C].
    """

    def __init__(self, image: nn.Module, text: nn.Module, logit_scale: float) -> None:
        super().__init__()
        self.image = image
        self.text = text
        self.log_scale = nn.Parameter(torch.tensor(math.log(logit_scale)))

    @property
    def scale(self) -> Tensor:
        """Logit scale, at most 100 as in CLIP."""
        return self.log_scale.exp().clamp_max(MAX_LOGIT_SCALE)

    def images(self, features: Tensor) -> Tensor:
        """Unit embeddings [B, C]."""
        return functional.normalize(self.image(features), dim=-1)

    def texts(self, features: Tensor) -> Tensor:
        """Unit embeddings [..., C]."""
        return functional.normalize(self.text(features), dim=-1)

    def prompted(self, features: Tensor) -> Tensor:
        """Unit embeddings [K, C] of texts by prompt [K, P, E]: direction of the prompts' mean."""
        return functional.normalize(self.texts(features).mean(1), dim=-1)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows drawn for one step, as tensors."""

    images: Tensor
    targets: Tensor
    logits: Tensor
    labels: Tensor
    captioned: Tensor
    captions: Tensor
    words: Tensor


@dataclass(frozen=True, eq=False)
class LitTensors:
    """Texts that every step needs whole."""

    class_texts: Tensor
    label_texts: Tensor


def captions_loss(heads: Heads, batch: Batch, arrays: LitTensors, config: LitConfig) -> Tensor:
    """Symmetric InfoNCE of photos and captions; 0 with fewer than two."""
    del arrays, config
    if len(batch.captions) < 2:
        return heads.log_scale.new_zeros(())
    # Not the manifold's InfoNCE: there the teacher gets no gradient, here both sides do.
    logits = heads.scale * heads.images(batch.captioned) @ heads.texts(batch.captions).T
    own = torch.arange(len(logits), device=logits.device)
    return 0.5 * (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))


def conse_loss(heads: Heads, batch: Batch, arrays: LitTensors, config: LitConfig) -> Tensor:
    """1 - cosine to the target under the text projection; the target gets no gradient."""
    del arrays, config
    with torch.no_grad():
        target = heads.texts(batch.targets)
    return 1.0 - (heads.images(batch.images) * target).sum(-1).mean()


def classes_loss(heads: Heads, batch: Batch, arrays: LitTensors, config: LitConfig) -> Tensor:
    """Divergence of the zero-shot distribution over the class names from the classifier's."""
    directions = heads.prompted(arrays.class_texts)
    wanted = (batch.logits.float() / config.classes.temperature).softmax(-1)
    found = heads.scale * heads.images(batch.images) @ directions.T
    return functional.kl_div(found.log_softmax(-1), wanted, reduction="batchmean")


def labels_loss(heads: Heads, batch: Batch, arrays: LitTensors, config: LitConfig) -> Tensor:
    """Cross-entropy of the labelled images of the batch; 0 if there is none."""
    del config
    known = batch.labels >= 0
    if not len(arrays.label_texts) or not bool(known.any()):
        return heads.log_scale.new_zeros(())
    found = heads.scale * heads.images(batch.images[known]) @ heads.prompted(arrays.label_texts).T
    return functional.cross_entropy(found, batch.labels[known])


def geometry_loss(heads: Heads, batch: Batch, arrays: LitTensors, config: LitConfig) -> Tensor:
    """Mean squared difference of the words' cosines before and after the projection."""
    del arrays, config
    if len(batch.words) < 2:
        return heads.log_scale.new_zeros(())
    before = functional.normalize(batch.words, dim=-1)
    after = heads.texts(batch.words)
    return functional.mse_loss(after @ after.T, before @ before.T)


#: Every loss by the name of its section in the configuration.
LOSSES: dict[str, Callable[[Heads, Batch, LitTensors, LitConfig], Tensor]] = {
    "captions": captions_loss,
    "conse": conse_loss,
    "classes": classes_loss,
    "labels": labels_loss,
    "geometry": geometry_loss,
}


@dataclass(frozen=True)
class Fitted:
    """Result of a training.

    Attributes:
        logit_scale: learnt.
        losses: mean of each loss before its weight over the last tenth of the steps.
    """

    logit_scale: float
    losses: dict[str, float]


def train_projections(
    image_head: nn.Module,
    text_head: nn.Module,
    arrays: LitArrays,
    config: LitConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Fitted:
    """Train two projections in place.

    The image projection is trained on standardised features; mean and deviation then go into its
    first linear layer, which must have a bias.

    Args:
        image_head: [B, F] to [B, C], with a first linear layer.
        text_head: [B, E] to [B, C].
        arrays: the training data.
        config: losses and their weights, optimiser.
        seed: of draws and dropout.
        device: where to compute.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: ``no_loss`` if no loss has a weight and data.
    """
    terms = {name: float(getattr(config, name).weight) for name in LOSSES}
    terms = {name: weight for name, weight in terms.items() if weight > 0 and _has(arrays, name)}
    if not set(terms) - {"geometry"}:
        raise InputError(
            "no_loss",
            "no loss trains the image projection; give captions, or a weight to conse, classes or "
            "labels",
        )
    project = config.project
    generator = np.random.default_rng(seed)
    noise = torch.Generator(device).manual_seed(seed)
    mean, deviation = standardisation(arrays.views)
    linear = _only_layer(image_head)
    if linear is not None and project.ridge > 0 and config.conse.weight > 0:
        ridge_start(linear, text_head, arrays, mean, deviation, project.ridge)
    heads = Heads(image_head, text_head, project.logit_scale).to(device).train()
    tensors = LitTensors(
        torch.from_numpy(arrays.class_texts).to(device),
        torch.from_numpy(arrays.label_texts).to(device),
    )
    optimiser = torch.optim.AdamW(
        _groups(heads, project.weight_decay), lr=project.learning_rate, betas=(0.9, 0.98)
    )
    sums = dict.fromkeys(terms, 0.0)
    tail = max(1, project.steps // 10)
    bar = tqdm(range(project.steps), "project", unit="step", disable=None if progress else True)
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = project.learning_rate * rate(step, project.steps, project.warmup)
        batch = draw(arrays, config, generator, mean, deviation, noise, device)
        losses = {name: LOSSES[name](heads, batch, tensors, config) for name in terms}
        total = torch.stack([terms[name] * loss for name, loss in losses.items()]).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
        optimiser.step()
        if step >= project.steps - tail:
            for name, loss in losses.items():
                sums[name] += float(loss.detach()) / tail
        if step % 100 == 0:
            bar.set_postfix({name: f"{float(loss.detach()):.3f}" for name, loss in losses.items()})
    heads.eval().cpu()
    fold_standardisation(image_head, mean, deviation)
    return Fitted(float(heads.scale.detach()), sums)


def ridge_start(
    layer: nn.Linear,
    text_head: nn.Module,
    arrays: LitArrays,
    mean: Float,
    deviation: Float,
    strength: float,
) -> None:
    """Set a linear projection to the ridge regression of the targets, in place.

    ``W = (X^T X + strength I)^-1 X^T Y`` over all views, X standardised features and a one, Y the
    targets under the text projection.
    """
    size = len(mean) + 1
    gram, moment = np.zeros((size, size)), np.zeros((size, layer.out_features))
    for view, target in zip(arrays.views, arrays.targets, strict=True):
        for start in range(0, len(view), 8192):
            part = (view[start : start + 8192].astype(np.float32) - mean) / deviation
            rows = np.concatenate([part, np.ones((len(part), 1), np.float32)], 1)
            with torch.no_grad():
                texts = text_head(torch.from_numpy(target[start : start + 8192].astype(np.float32)))
            gram += rows.T @ rows
            moment += rows.T @ functional.normalize(texts, dim=-1).numpy()
    solution = torch.from_numpy(np.linalg.solve(gram + strength * np.eye(size), moment)).float()
    with torch.no_grad():
        layer.weight.copy_(solution[:-1].T)
        layer.bias.copy_(solution[-1])


def draw(
    arrays: LitArrays,
    config: LitConfig,
    generator: np.random.Generator,
    mean: Float,
    deviation: Float,
    noise: torch.Generator,
    device: torch.device | str,
) -> Batch:
    """Rows of one step: images of all sets alike, and as many different photos with captions."""

    def drawn(share: float, rows: NDArray[np.int64], *kinds: tuple[Half, ...]) -> list[Float]:
        """Rows of some arrays by view, the same view of each row in all of them."""
        chosen = np.zeros(len(rows), np.int64)
        if len(arrays.views) > 1:
            low = generator.random(len(rows)) < share
            chosen = np.where(low, generator.integers(1, len(arrays.views), len(rows)), 0)
        found = [np.empty((len(rows), kind[0].shape[1]), np.float32) for kind in kinds]
        for values, kind in zip(found, kinds, strict=True):
            for index, view in enumerate(kind):
                values[chosen == index] = view[rows[chosen == index]]
        return found

    def standard(values: Float) -> Tensor:
        found = torch.from_numpy((values - mean) / deviation).to(device)
        kept = 1.0 - config.project.dropout
        if kept < 1.0:
            mask = torch.rand(found.shape, generator=noise, device=found.device) < kept
            found = found * mask / kept
        return found

    rows = generator.integers(0, len(arrays.logits), config.project.batch)
    order = generator.permutation(len(arrays.caption_rows))[: 4 * config.captions.batch]
    # One caption a photo: a second one of the same photo would count as a wrong answer.
    _, first = np.unique(arrays.caption_rows[order], return_index=True)
    chosen = order[np.sort(first)][: config.captions.batch]
    words = generator.permutation(len(arrays.words))[: config.project.batch]
    images, targets = drawn(config.views.low_share, rows, arrays.views, arrays.targets)
    owners = arrays.caption_rows[chosen]
    (photos,) = drawn(config.captions.low_share, owners, arrays.views)
    return Batch(
        standard(images),
        torch.from_numpy(targets).to(device),
        torch.from_numpy(np.asarray(arrays.logits[rows], np.float32)).to(device),
        torch.from_numpy(arrays.labels[rows]).to(device),
        standard(photos),
        torch.from_numpy(arrays.captions[chosen]).to(device),
        torch.from_numpy(arrays.words[words]).to(device),
    )


def standardisation(views: tuple[Half, ...], sample: int = 8192) -> tuple[Float, Float]:
    """Mean and standard deviation [F] of features, over images drawn evenly from all views."""
    rows = np.linspace(0, len(views[0]) - 1, min(sample, len(views[0]))).astype(np.int64)
    values = np.concatenate([each[rows] for each in views]).astype(np.float64)
    mean, deviation = values.mean(0), values.std(0)
    floor = max(1e-6, 1e-2 * float(deviation.mean()))  # silent features stay near zero
    return mean.astype(np.float32), np.maximum(deviation, floor).astype(np.float32)


def fold_standardisation(head: nn.Module, mean: Float, deviation: Float) -> None:
    """Make a projection of standardised features one of plain features, in place.

    ``W ((x - mean) / deviation) + b = (W / deviation) x + (b - W mean / deviation)``

    Raises:
        InputError: ``wrong_shape`` if the first layer is not linear with a bias.
    """
    first = next((each for each in head.modules() if isinstance(each, nn.Linear)), None)
    if first is None or first.bias is None or first.in_features != len(mean):
        raise InputError(
            "wrong_shape", f"the projection of {len(mean)} features must begin linear, with a bias"
        )
    with torch.no_grad():
        weight = first.weight.double() / torch.from_numpy(deviation).double()
        first.bias.copy_(first.bias.double() - weight @ torch.from_numpy(mean).double())
        first.weight.copy_(weight)


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate: linear rise, then half a cosine down to zero."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def text_to_image_recall(
    images: Float, texts: Float, owners: NDArray[np.int64], ranks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, float]:
    """Share of texts whose own image is among the k nearest of all images.

    Args:
        images: unit embeddings [N, C].
        texts: unit embeddings [M, C].
        owners: image of each text, int64 [M].
        ranks: the k.

    Returns:
        ``{"recall_at_1": ...}``; ties count against the model.
    """
    scores = texts @ images.T
    own = scores[np.arange(len(texts)), owners]
    better = (scores >= own[:, None]).sum(1) - 1
    return {f"recall_at_{k}": float((better < k).mean()) for k in ranks}


def _only_layer(head: nn.Module) -> nn.Linear | None:
    """The projection's linear layer if it has no other layer with parameters, and a bias."""
    layers = [each for each in head.modules() if list(each.parameters(recurse=False))]
    only = layers[0] if len(layers) == 1 else None
    return only if isinstance(only, nn.Linear) and only.bias is not None else None


def _has(arrays: LitArrays, name: str) -> bool:
    counts = {
        "captions": len(arrays.caption_rows),
        "labels": len(arrays.label_texts) * int((arrays.labels >= 0).any()),
        "geometry": len(arrays.words),
    }
    return counts.get(name, 1) > 0


def _groups(heads: Heads, decay: float) -> list[dict[str, Any]]:
    """No decay of biases and of the logit scale."""
    trained = [each for each in heads.parameters() if each.requires_grad]
    return [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": decay},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]
