# SPDX-License-Identifier: Apache-2.0
"""From image sets, captions and two pretrained towers to a teacher that open_clip loads."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spike_perception import __version__
from spike_perception.config import to_flat
from spike_perception.errors import InputError
from spike_perception.identity import sha256_bytes, sha256_json
from spike_perception.training.data.images import ImageSet
from spike_perception.training.data.pixels import degraded
from spike_perception.training.teachers import folder as teacher_folder
from spike_perception.training.teachers.adapt import adapted_tower
from spike_perception.training.teachers.diffusion import conse, diffused, neighbours, unit
from spike_perception.training.teachers.encoder import (
    EncoderConfig,
    Float,
    ImageEncoder,
    Preprocessing,
)
from spike_perception.training.teachers.lit import (
    Fitted,
    LitArrays,
    text_to_image_recall,
    train_projections,
)
from spike_perception.training.teachers.lit_config import LitConfig
from spike_perception.training.teachers.operators import import_open_clip
from spike_perception.training.teachers.store import Rows, stored
from spike_perception.training.teachers.teacher import Teacher
from spike_perception.training.teachers.towers import (
    MEAN,
    STD,
    ImageTower,
    PooledFeatures,
    TextTower,
)
from spike_perception.training.words import prompts


@dataclass(frozen=True, eq=False)
class Sources:
    """What a teacher is trained on.

    Attributes:
        images: image sets; their labels count only if ``class_words`` names their classes.
        captions: by the stem of the photo, which must be in one of the sets.
        words: nouns whose geometry the text projection keeps.
        class_words: class folder to words, such as Tiny-ImageNet's list; a set all of whose
            classes it names is a labelled set.
    """

    images: tuple[ImageSet, ...]
    captions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    class_words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Arrays for training and for measuring.

    Attributes:
        arrays: of the training images.
        held_views: features of the photos kept out, [H, F] a view.
        held_captions: text features of their captions, [M, E].
        held_owners: photo of each, int64 [M].
        skipped: images that could not be decoded, path to reason.
    """

    arrays: LitArrays
    held_views: tuple[NDArray[np.float16], ...]
    held_captions: Float
    held_owners: NDArray[np.int64]
    skipped: dict[str, str]


def templates(config: LitConfig) -> tuple[str, ...]:
    """Prompts of class names.

    Raises:
        InputError: ``invalid_setting`` for one without ``{name}``.
    """
    found = tuple(config.texts.templates.split("|"))
    for each in found:
        if each.count("{") != 1 or "{name}" not in each or each.count("}") != 1:
            raise InputError(
                "invalid_setting",
                f"texts.templates holds {each!r}; every prompt has {{name}} once, and | between",
            )
    return found


def class_names() -> tuple[str, ...]:
    """ImageNet's class names as open_clip ships them, in the order of timm's classifiers."""
    import_open_clip()
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def train_teacher(
    tower: ImageTower,
    text: TextTower,
    sources: Sources,
    out: Path,
    cache: Path,
    config: LitConfig,
    *,
    name: str,
    seed: int = 0,
    encoder: EncoderConfig | None = None,
    names: Sequence[str] | None = None,
    command: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Train a teacher and write it to a folder.

    Args:
        tower: image tower with its classifier.
        text: text tower; its texts are centred in place.
        sources: training data.
        out: folder of the teacher.
        cache: folder of the towers' features, used again by later runs.
        config: the recipe.
        name: open_clip's name for the teacher.
        seed: of draws, projections and dropout.
        encoder: how the towers are run.
        names: classes of the tower's classifier; None for ImageNet's.
        command: command line, for the card.
        progress: show progress bars on a terminal.

    Returns:
        the card: what it was made from and what was measured.

    Raises:
        InputError: from the parts.
    """
    encoder = encoder or EncoderConfig()
    preprocessing = Preprocessing((config.views.size,) * 2, MEAN, STD)
    if config.adapt.enabled:
        train_sets = tuple(_kept(each, sources, config) for each in sources.images)
        tower = adapted_tower(
            tower,
            train_sets,
            preprocessing,
            config.adapt,
            cache,
            seed=seed,
            device=encoder.device,
            progress=progress,
        )
    names = tuple(names or class_names())
    prepared = prepare(
        tower, text, sources, preprocessing, cache, config, names, encoder, progress=progress
    )
    torch.manual_seed(seed)
    model, model_config = build(tower, text, config)
    fitted = train_projections(
        model.visual.head,
        model.text.proj,
        prepared.arrays,
        config,
        seed=seed,
        device=encoder.device,
        progress=progress,
    )
    with torch.no_grad():
        model.logit_scale.copy_(torch.tensor(fitted.logit_scale).log())
    card = _card(name, tower, text, sources, prepared, fitted, model, config, seed, command)
    teacher_folder.save(
        out,
        name,
        model_config,
        {
            "size": config.views.size,
            "mean": list(MEAN),
            "std": list(STD),
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
        model.state_dict(),
        text.folder,
        card,
    )
    return card


def prepare(
    tower: ImageTower,
    text: TextTower,
    sources: Sources,
    preprocessing: Preprocessing,
    cache: Path,
    config: LitConfig,
    names: Sequence[str],
    encoder: EncoderConfig,
    *,
    progress: bool = True,
) -> Prepared:
    """Run both towers over all data, or take their answers from ``cache``.

    Raises:
        InputError: ``no_classes`` if the classifier has not these classes, ``images_missing``.
    """
    if not sources.images:
        raise InputError("images_missing", "no image set was given to train on")
    sentences = templates(config)
    encode = ImageEncoder(PooledFeatures(tower.network), preprocessing, encoder)
    sizes = (0, config.views.low) if config.views.low else (0,)
    rows: list[tuple[list[NDArray[np.float16]], NDArray[np.float16]]] = []
    labels: list[NDArray[np.int64]] = []
    owners: list[int] = []
    texts: list[str] = []
    held_rows: list[list[NDArray[np.float16]]] = []
    held_texts: list[str] = []
    held_owners: list[int] = []
    words, label_names = dict(sources.class_words), dict[str, int]()
    skipped: dict[str, str] = {}
    held = _held_out(sources, config.texts.holdout)
    train_count = held_count = 0
    for images in sources.images:
        found = [_tower_rows(encode, tower, images, cache, size, progress) for size in sizes]
        if found[0].arrays["logits"].shape[1] != len(names):
            raise InputError(
                "no_classes",
                f"the tower's classifier has {found[0].arrays['logits'].shape[1]} classes, "
                f"{len(names)} names are known",
            )
        skipped.update({f"{images.path}/{n}": reason for n, reason in found[0].skipped.items()})
        stems = images.stems()
        keep = np.array([i for i in found[0].indices if stems[i] not in held], np.int64)
        out = np.array([i for i in found[0].indices if stems[i] in held], np.int64)
        rows.append(([f.arrays["pooled"][keep] for f in found], found[0].arrays["logits"][keep]))
        held_rows.append([f.arrays["pooled"][out] for f in found])
        for position, index in enumerate(keep):
            mine = sources.captions.get(stems[index], ())
            texts += mine
            owners += [train_count + position] * len(mine)
        for position, index in enumerate(out):
            held_texts += sources.captions[stems[index]]
            held_owners += [held_count + position] * len(sources.captions[stems[index]])
        labels.append(_labels(images, keep, words, label_names))
        train_count += len(keep)
        held_count += len(out)
    # Encoded in one go, so that centring comes from the class texts alone.
    classes = [text for each in names for text in prompts(each, sentences)]
    labelled = [text for each in label_names for text in prompts(words[each][0], sentences)]
    nouns = prompts(sources.words, sentences[:1])
    parts = (classes, texts, held_texts, labelled, nouns)
    encoded = _text_rows(text, [each for part in parts for each in part], cache)
    if config.texts.centre:
        mean = encoded[: len(classes)].mean(0)
        text.centre(mean)
        encoded = encoded - mean
    ends = np.cumsum([len(part) for part in parts])[:-1]
    class_rows, caption_rows, held_captions, label_rows, word_rows = np.split(encoded, ends)
    class_texts = class_rows.reshape(len(names), len(sentences), -1)
    label_texts = label_rows.reshape(len(label_names), len(sentences), encoded.shape[1])
    pooled = tuple(np.concatenate([each[0][v] for each in rows]) for v in range(len(sizes)))
    logits = np.concatenate([each[1] for each in rows])
    labelled_as = np.concatenate(labels)
    arrays = LitArrays(
        pooled,
        image_targets(pooled, logits, class_texts, labelled_as, label_texts, config),
        logits,
        class_texts,
        np.array(owners, np.int64),
        caption_rows,
        word_rows,
        labelled_as,
        label_texts,
    )
    return Prepared(
        arrays,
        tuple(np.concatenate([each[v] for each in held_rows]) for v in range(len(sizes))),
        held_captions,
        np.array(held_owners, np.int64),
        skipped,
    )


def image_targets(
    views: tuple[NDArray[np.float16], ...],
    logits: NDArray[np.float16],
    class_texts: Float,
    labels: NDArray[np.int64],
    label_texts: Float,
    config: LitConfig,
) -> tuple[NDArray[np.float16], ...]:
    """What every view of every image shows: unit vectors [N, E] in the text tower's space.

    ConSE from the images as they are, for all their views; then diffused, all views being nodes of
    one graph. Images of named classes start from their class's text and keep it.

    Args:
        views: features [N, F] each.
        logits: of the images as they are, [N, K].
        class_texts: [K, P, E].
        labels: row of ``label_texts``, int64 [N]; -1 without.
        label_texts: [L, P, E].
        config: the recipe.
    """
    directions = unit(unit(class_texts).mean(1))
    start = conse(logits, directions, config.conse.temperature, config.conse.top)
    known = labels >= 0
    if known.any() and config.labels.anchors:
        start[known] = unit(unit(label_texts).mean(1))[labels[known]]
    else:
        known = np.zeros_like(known)
    if not config.diffusion.enabled or not config.diffusion.rounds:
        return (start.astype(np.float16),) * len(views)
    # An image of few pixels is the same in all views: one node, or it would be its own neighbour.
    own = [np.ones(len(start), np.bool_)]
    own += [(each != views[0]).any(1) for each in views[1:]]
    nodes = np.concatenate([view[mine] for view, mine in zip(views, own, strict=True)])
    begin = np.concatenate([start[mine] for mine in own])
    fixed = np.concatenate([known[mine] for mine in own])
    found = diffused(begin, neighbours(nodes, config.diffusion), config.diffusion, fixed)
    parts = np.split(found.astype(np.float16), np.cumsum([mine.sum() for mine in own])[:-1])
    targets = [parts[0]]
    for part, mine in zip(parts[1:], own[1:], strict=True):
        targets.append(parts[0].copy())
        targets[-1][mine] = part
    return tuple(targets)


def build(tower: ImageTower, text: TextTower, config: LitConfig) -> tuple[Any, dict[str, Any]]:
    """open_clip's model of both towers with fresh projections, and its configuration.

    A square linear projection of texts begins as the identity: the text tower's geometry is what
    training starts from.
    """
    import_open_clip()
    from open_clip.model import CustomTextCLIP

    project = config.project
    if project.text == "none" and project.channels != text.channels:
        raise InputError(
            "invalid_setting",
            f"project.text is none, so project.channels must be the text tower's {text.channels}",
        )
    model_config: dict[str, Any] = {
        "embed_dim": project.channels,
        "vision_cfg": {
            "timm_model_name": tower.architecture,
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": project.image,
            "timm_proj_bias": True,
            "image_size": config.views.size,
        },
        "text_cfg": {
            "hf_model_name": str(text.folder),
            "hf_tokenizer_name": str(text.folder),
            "hf_model_pretrained": False,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": None if project.text == "none" else project.text,
            "context_length": config.texts.context,
        },
    }
    model: Any = CustomTextCLIP(**model_config)
    trunk = model.visual.trunk.state_dict()
    given = tower.network.state_dict()
    model.visual.trunk.load_state_dict({key: given[key] for key in trunk})
    model.text.transformer.load_state_dict(text.network.transformer.state_dict())
    if project.text == "linear" and project.channels == text.channels:
        torch.nn.init.eye_(model.text.proj.weight)
    model.requires_grad_(False).eval()
    model.visual.head.requires_grad_(True)
    model.text.proj.requires_grad_(True)
    return model, model_config


def zero_shot(
    teacher: Teacher, images: ImageSet, names: Sequence[str], sentences: Sequence[str]
) -> dict[str, float]:
    """Accuracy of a teacher on a labelled set, names of the classes being all it is told.

    Returns:
        ``top_1``, ``top_5``, ``images``, ``skipped``.

    Raises:
        InputError: ``no_labels`` if the set has none.
    """
    if not images.classes or len(names) != len(images.classes):
        raise InputError(
            "no_labels", f"{images.path} has {len(images.classes)} classes, {len(names)} names"
        )
    texts = teacher.encode_text([text for each in names for text in prompts(each, sentences)])
    rows = texts.reshape(len(names), len(sentences), -1).mean(1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ranks: list[NDArray[np.int64]] = []
    for start in range(0, len(images), 256):
        batch, labels = [], []
        for index in range(start, min(start + 256, len(images))):
            try:
                batch.append(images.image(index))
            except InputError:
                continue
            labels.append(images.labels[index])
        if batch:
            scores = teacher.encode_images(batch).features @ rows.T
            own = scores[np.arange(len(labels)), labels]
            ranks.append((scores >= own[:, None]).sum(1) - 1)
    if not ranks:
        raise InputError("images_missing", f"no image of {images.path} can be decoded")
    rank = np.concatenate(ranks)
    return {
        "top_1": float((rank < 1).mean()),
        "top_5": float((rank < 5).mean()),
        "images": float(len(rank)),
        "skipped": float(len(images.skipped)),
    }


def _tower_rows(
    encode: ImageEncoder,
    tower: ImageTower,
    images: ImageSet,
    cache: Path,
    low: int,
    progress: bool,
) -> Any:
    """Pooled features and logits of one set, seen at full size or at ``low`` pixels."""

    def compute(batch: list[NDArray[np.uint8]]) -> Rows:
        seen = [degraded(image, low) for image in batch] if low else batch
        pooled, logits = encode(seen)
        return {"pooled": pooled, "logits": logits}

    precision = encode.config.precision if encode.engine == "openvino" else "f32"
    key = sha256_json(
        [
            tower.id,
            images.id,
            list(encode.preprocessing.size),
            list(MEAN),
            list(STD),
            low,
            precision,
        ]
    )
    label = images.path.name + (f" at {low} px" if low else "")
    return stored(cache / f"tower-{key[:32]}", images, compute, label=label, progress=progress)


def _text_rows(text: TextTower, texts: list[str], cache: Path) -> Float:
    """The text tower's answers, from disk if these very texts were asked for before."""
    key = sha256_json([text.id, sha256_bytes("\0".join(texts).encode())])
    file = cache / f"texts-{key[:32]}.npy"
    if file.is_file():
        try:
            found = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError("bad_cache", f"{file} cannot be read ({error}); delete it") from error
        if found.dtype == np.float32 and found.shape == (len(texts), text.channels):
            return np.asarray(found, np.float32)
        raise InputError("bad_cache", f"{file} is not float32 [{len(texts)}, {text.channels}]")
    rows = text.encode(texts)
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.stem}.{secrets.token_hex(4)}.npy")
    np.save(partial, rows)
    partial.replace(file)
    return rows


def _held_out(sources: Sources, count: int) -> frozenset[str]:
    """Stems of the photos that are kept to measure with: always the same of the same set."""
    present = {stem for images in sources.images for stem in images.stems()}
    stems = [stem for stem in sources.captions if stem in present]
    stems.sort(key=lambda stem: sha256_bytes(stem.encode()))
    return frozenset(stems[: min(count, len(stems) // 2)])


def _kept(images: ImageSet, sources: Sources, config: LitConfig) -> ImageSet:
    held = _held_out(sources, config.texts.holdout)
    stems = images.stems()
    return images.subset(np.array([i for i, s in enumerate(stems) if s not in held], np.int64))


def _labels(
    images: ImageSet,
    keep: NDArray[np.int64],
    words: Mapping[str, tuple[str, ...]],
    rows: dict[str, int],
) -> NDArray[np.int64]:
    """Row of the label texts of each image; -1 throughout for sets whose classes are not named."""
    if not images.classes or not set(images.classes) <= set(words):
        return np.full(len(keep), -1, np.int64)
    of_class = np.array([rows.setdefault(each, len(rows)) for each in images.classes], np.int64)
    return of_class[images.labels[keep]]


def _card(
    name: str,
    tower: ImageTower,
    text: TextTower,
    sources: Sources,
    prepared: Prepared,
    fitted: Fitted,
    model: Any,
    config: LitConfig,
    seed: int,
    command: str,
) -> dict[str, Any]:
    """What the teacher was made from, and the retrieval of photos kept out by their captions."""
    measured: dict[str, Any] = {}
    if len(prepared.held_owners):
        with torch.inference_mode():
            texts = model.text.proj(torch.from_numpy(prepared.held_captions))
            for index, view in enumerate(prepared.held_views):
                images = model.visual.head(torch.from_numpy(view.astype(np.float32)))
                found = text_to_image_recall(
                    torch.nn.functional.normalize(images, dim=-1).numpy(),
                    torch.nn.functional.normalize(texts, dim=-1).numpy(),
                    prepared.held_owners,
                )
                found["images"] = float(len(view))
                measured["text_to_image_low" if index else "text_to_image"] = found
    arrays = prepared.arrays
    return {
        "name": name,
        "version": __version__,
        "command": command,
        "seed": seed,
        "image_tower": {"architecture": tower.architecture, "sha256": tower.id},
        "text_tower": {"source": text.folder.name, "sha256": text.id},
        "data": [
            {
                "path": images.path.name,
                "id": images.id,
                "images": len(images),
                "skipped": dict(sorted(images.skipped.items())[:100]),
            }
            for images in sources.images
        ],
        "images": len(arrays.logits),
        "captions": len(arrays.captions),
        "labelled_images": int((arrays.labels >= 0).sum()),
        "words": len(arrays.words),
        "skipped": len(prepared.skipped),
        "skipped_images": dict(sorted(prepared.skipped.items())[:100]),
        "settings": to_flat(config),
        "losses": fitted.losses,
        "logit_scale": fitted.logit_scale,
        "measured": measured,
    }
