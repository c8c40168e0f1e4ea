# SPDX-License-Identifier: Apache-2.0
"""Measure how a bundle names images of known classes, from words."""

from __future__ import annotations

import argparse

from spike_perception.bags.labelled_images import LabelledImages
from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.runtime import Features, Runtime, load_runtime
from spike_perception.evaluation import naming_command
from spike_perception.evaluation.naming_task import Encoder, NamingConfig, Task
from spike_perception.sensing.image import RgbImage


class ImageEncoder(Encoder[RgbImage]):
    """A bundle that takes images."""

    runtime: Runtime

    def __init__(self, bundle: Bundle, config: NamingConfig) -> None:
        self.runtime = load_runtime(bundle, config.engine, config.precision, config.threads)

    def features(self, sample: RgbImage) -> Features:
        """Spike counts ``[C]`` of an image."""
        counts: Features = self.runtime.infer(self.runtime.prepare_images([sample]))[0]
        return counts

    def network_input(self, sample: RgbImage) -> Features:
        """The prepared image ``[3, H, W]``."""
        prepared: Features = self.runtime.prepare_images([sample])[0]
        return prepared

    def warm_up(self) -> None:
        """Run an empty image."""
        self.runtime.warm_up(1)


class ImageTask(Task[LabelledImages, RgbImage, NamingConfig]):
    """Images in one folder a class."""

    noun = "image"
    plural = "images"
    title = "Image classification"
    kinds = ("image", "place")
    data_help = "images with one folder a class: a folder, FILE.zip or FILE.zip/FOLDER"
    bank = "word_bank"
    config_type = NamingConfig

    def open(self, path: str, config: NamingConfig) -> LabelledImages:
        """The images, at most as many as the settings allow."""
        return LabelledImages(path, config.limit or None)

    def open_examples(self, path: str, _config: NamingConfig) -> LabelledImages:
        """All images."""
        return LabelledImages(path)

    def read(self, data: LabelledImages, index: int) -> RgbImage:
        """Decode an image."""
        return data.image(index)

    def picture(self, data: LabelledImages, index: int) -> RgbImage:
        """The image."""
        return data.image(index)

    def encoder(self, bundle: Bundle, config: NamingConfig) -> ImageEncoder:
        """The bundle made ready for images."""
        return ImageEncoder(bundle, config)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    naming_command.configure(ImageTask(), parser)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    return naming_command.run(ImageTask(), args)
