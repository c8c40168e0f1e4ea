# SPDX-License-Identifier: Apache-2.0
"""The draft of a place model's card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spike_perception.deploy.bundle import Bundle
from spike_perception.places.descriptors.spiking import OFFSET
from spike_perception.spiking.energy import EnergyReport
from spike_perception.training.card import markdown


def card(bundle: Bundle, document: Mapping[str, Any], energy: EnergyReport, config: str) -> str:
    """Markdown from what a run knows of itself.

    Args:
        bundle: the trained student.
        document: the run's metrics document.
        energy: estimate on training images.
        config: resolved configuration, YAML.
    """
    height, width = bundle.preprocessing["input_size"]
    dimension = len(bundle.tensors[OFFSET])
    teacher = document["teacher"]
    taught = (
        f"distilled from {teacher['name']} (`{teacher['sha256'][:16]}`)"
        if teacher
        else ("trained without a teacher")
    )
    return markdown(
        bundle,
        document,
        energy,
        config,
        what=f"""Spiking descriptor of places: {bundle.student}, \
{bundle.parameter_count:,} parameters with the
projection, input {width}x{height} grey, locally normalised, T = {bundle.timesteps},
D = {bundle.levels}, {bundle.embedding_dim} spike counts, {taught}. A place is {dimension} floats
({4 * dimension} bytes, `spiking`) or {dimension} bits \
({dimension // 8} bytes, `spiking_bits`).""",
        identity="weights",
        reading="""Recall@1 divides by all queries; a place counts as found within one frame. \
`f32` and `int8` are the
two forms in which robots run it.""",
        limits=(
            f"It sees {width}x{height} grey pixels: places that differ in colour or small things "
            "look alike.",
            "A view from the opposite direction is another place.",
            "In the dark of a tunnel there is nothing to recognise.",
        ),
    )
