# SPDX-License-Identifier: Apache-2.0
"""Sentences that a class name is put into before the text tower reads it.

Features of the filled sentences are averaged class by class (``zero_shot.folding.fold``).
"""

from __future__ import annotations

from spike_perception.errors import InputError

GENERAL = (
    "a {name}",
    "a photo of a {name}",
    "a picture showing a {name}",
    "a close-up of a {name}",
    "there is a {name} in the picture",
    "a photo of one {name} among other things",
    "several of the kind {name}",
    "part of a {name}",
    "a {name} seen from afar",
    "a dark photo of a {name}",
    "a bright photo of a {name}",
)
LOW_RESOLUTION = (
    *GENERAL[:4],
    "a small picture of a {name}",
    "a blurry photo of a {name}",
    "a low-resolution image of a {name}",
    "a coarse, pixelated picture of a {name}",
    "a thumbnail of a {name}",
    "a {name}, out of focus",
    "a tiny {name}",
)
INDOOR = (
    *GENERAL[:4],
    "a {name} in the room",
    "a {name} indoors",
    "a {name} in a house",
    "a {name} in an office",
    "a {name} in a warehouse",
    "what a robot's camera sees: a {name}",
    "a blurry photo of a {name}",
    "a {name} under artificial light",
)
DRIVING = (
    *GENERAL[:4],
    "a {name} on the road",
    "a {name} beside the road",
    "a {name} in traffic",
    "a {name} seen through a windscreen",
    "a distant {name} in a street scene",
    "a {name} at night",
    "a {name} in the rain",
    "a blurry photo of a {name}",
)
SHAPES = (
    *GENERAL[:4],
    "a 3D model of a {name}",
    "a point cloud of a {name}",
    "the shape of a {name}",
    "a grey rendering of a {name}",
    "a depth image of a {name}",
    "a {name} seen from the side",
    "a laser scan of a {name}",
)
TEMPLATES: dict[str, tuple[str, ...]] = {
    "plain": GENERAL[:2],
    "general": GENERAL,
    "low_resolution": LOW_RESOLUTION,
    "indoor": INDOOR,
    "driving": DRIVING,
    "shapes": SHAPES,
}
#: Which templates a list of the package takes if none are named; else ``general``.
FOR_LIST = {"indoor": "indoor", "driving": "driving"}


def load_templates(name: str) -> tuple[str, ...]:
    """Templates by name.

    Raises:
        InputError: ``unknown_templates``.
    """
    if name not in TEMPLATES:
        raise InputError(
            "unknown_templates",
            f"there are no templates {name!r}; choose one of {', '.join(TEMPLATES)}",
        )
    return TEMPLATES[name]
