# SPDX-License-Identifier: Apache-2.0
"""Settings of the training of a teacher."""

from __future__ import annotations

from dataclasses import dataclass

from spike_perception.config import section, setting


@dataclass(frozen=True)
class TextsConfig:
    """How texts are made of class names and encoded."""

    context: int = setting(64, "most tokens of a text", minimum=4, maximum=512)
    centre: bool = setting(True, "take the class texts' mean from every text")
    templates: str = setting(
        "a photo of a {name}|{name}|a picture of a {name}, a type of object",
        "prompts of class names, separated by |",
    )
    holdout: int = setting(
        1000, "photos with captions that are kept out of training, to measure with", minimum=0
    )


@dataclass(frozen=True)
class ViewsConfig:
    """The images that the locked tower sees: as they are, and with fewer pixels."""

    size: int = setting(160, "height and width of the image tower's input (px)", minimum=32)
    low: int = setting(
        32, "shorter side of the degraded second view (px); 0: no second view", minimum=0
    )
    low_share: float = setting(
        0.5, "share of a batch that is seen degraded", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class AdaptConfig:
    """Low-resolution adaptation of the image tower; it takes a GPU, or patience."""

    enabled: bool = setting(
        False, "fine-tune the tower so that degraded images give clean features"
    )
    smallest: int = setting(32, "fewest pixels of the shorter side (px)", minimum=4)
    largest: int = setting(64, "most pixels of the shorter side (px)", minimum=4)
    clean_share: float = setting(
        0.25, "share of a batch that stays as it is", minimum=0.0, maximum=1.0
    )
    steps: int = setting(3000, "optimiser steps", minimum=1)
    batch: int = setting(64, "images in a step", minimum=1)
    learning_rate: float = setting(2e-4, "peak learning rate of AdamW", minimum=0.0)
    weight_decay: float = setting(1e-2, "weight decay of AdamW", minimum=0.0)
    logits: float = setting(
        1.0, "weight of the classifier's distribution beside the features", minimum=0.0
    )
    temperature: float = setting(2.0, "temperature of that distribution", minimum=0.01)
    save_every: int = setting(200, "steps after which work is safe on the disk", minimum=1)


@dataclass(frozen=True)
class CaptionsConfig:
    """Symmetric InfoNCE between photos and their captions (LiT, arXiv 2111.07991, eq. 1)."""

    weight: float = setting(1.0, "weight of the captions", minimum=0.0)
    batch: int = setting(512, "captions, of as many photos, in a step", minimum=2)
    low_share: float = setting(
        0.0, "share of these photos that is seen degraded", minimum=0.0, maximum=1.0
    )


@dataclass(frozen=True)
class DiffusionConfig:
    """ConSE vectors diffused among images that are alike to the tower."""

    enabled: bool = setting(True, "diffuse the ConSE vectors")
    components: int = setting(96, "principal components that likeness is measured in", minimum=1)
    neighbours: int = setting(30, "nearest images of each image", minimum=1, maximum=1024)
    keep: float = setting(0.5, "share of an image's own vector", minimum=0.0, maximum=1.0)
    rounds: int = setting(12, "rounds", minimum=0, maximum=1000)


@dataclass(frozen=True)
class ConseConfig:
    """Cosine to the mean of class texts, weighted by the classifier (ConSE, arXiv 1312.5650)."""

    weight: float = setting(1.0, "weight of ConSE", minimum=0.0)
    temperature: float = setting(2.0, "temperature of the classifier's probabilities", minimum=0.01)
    top: int = setting(0, "likeliest classes that count; 0: all", minimum=0)


@dataclass(frozen=True)
class ClassesConfig:
    """Kullback-Leibler divergence from the classifier's distribution over its class texts."""

    weight: float = setting(0.0, "weight of the classifier's distribution", minimum=0.0)
    temperature: float = setting(2.0, "temperature of the classifier's probabilities", minimum=0.01)


@dataclass(frozen=True)
class LabelsConfig:
    """Use of labelled sets whose class names are given."""

    anchors: bool = setting(
        True, "images of named classes keep their class's text while ConSE vectors diffuse"
    )
    weight: float = setting(0.0, "weight of the labelled sets' cross-entropy", minimum=0.0)


@dataclass(frozen=True)
class GeometryConfig:
    """Projected words keep the angles that they had in the text tower."""

    weight: float = setting(10.0, "weight of the words' geometry", minimum=0.0)


@dataclass(frozen=True)
class ProjectConfig:
    """The projections, the only part that is trained."""

    image: str = setting("linear", "projection of images", choices=("linear", "mlp"))
    text: str = setting("linear", "projection of texts", choices=("none", "linear", "mlp"))
    channels: int = setting(384, "C, dimensions of the embeddings", minimum=2, maximum=65536)
    ridge: float = setting(
        1000.0,
        "a linear image projection starts from ridge regression of this strength; 0: at random",
        minimum=0.0,
    )
    steps: int = setting(1500, "optimiser steps", minimum=1)
    batch: int = setting(512, "images in a step, beside those with captions", minimum=1)
    learning_rate: float = setting(5e-4, "peak learning rate of AdamW", minimum=0.0)
    weight_decay: float = setting(0.1, "weight decay of AdamW", minimum=0.0)
    warmup: float = setting(
        0.05, "share of the steps in which the rate rises", minimum=0.0, maximum=1.0
    )
    dropout: float = setting(
        0.5, "share of the image features that a step does not see", minimum=0.0, maximum=0.95
    )
    logit_scale: float = setting(
        1 / 0.07, "logit scale before training", minimum=1e-3, maximum=100.0
    )


@dataclass(frozen=True)
class LitConfig:
    """A whole training; every loss has its weight, 0 leaves it out."""

    texts: TextsConfig = section(TextsConfig)
    views: ViewsConfig = section(ViewsConfig)
    adapt: AdaptConfig = section(AdaptConfig)
    project: ProjectConfig = section(ProjectConfig)
    captions: CaptionsConfig = section(CaptionsConfig)
    diffusion: DiffusionConfig = section(DiffusionConfig)
    conse: ConseConfig = section(ConseConfig)
    classes: ClassesConfig = section(ClassesConfig)
    labels: LabelsConfig = section(LabelsConfig)
    geometry: GeometryConfig = section(GeometryConfig)
