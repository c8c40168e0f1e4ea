# SPDX-License-Identifier: Apache-2.0
"""Every setting of place recognition, with its default, meaning and range."""

from __future__ import annotations

from dataclasses import dataclass

from spike_perception.config import section, setting


@dataclass(frozen=True)
class MapConfig:
    """The place map and what is done with it."""

    path: str = setting("", "file of the place map (SQLite)", fixed=True)
    mode: str = setting(
        "both",
        "mapping: store keyframes, search nothing; localisation: search, the file is opened read "
        "only; both: search, and store what was not recognised",
        choices=("mapping", "localisation", "both"),
    )
    max_places: int = setting(
        1_000_000, "most places the map may hold", minimum=1, maximum=100_000_000
    )
    when_full: str = setting(
        "refuse",
        "what a full map does with a new place: refuse it, or drop the place stored first",
        choices=("refuse", "drop_oldest"),
    )
    thumbnail_width: int = setting(
        160, "width of the thumbnail kept with a place (pixels); 0: none", minimum=0, maximum=640
    )


@dataclass(frozen=True)
class DescriptorConfig:
    """Which descriptor."""

    name: str = setting(
        "spiking",
        "image descriptor: spiking, spiking_bits, patch_norm, patch_norm_bits, or spiking:BUNDLE",
        fixed=True,
    )


@dataclass(frozen=True)
class SequenceConfig:
    """Online sequence matching."""

    length: int = setting(
        10, "keyframes matched together (1: single images)", minimum=1, maximum=200, fixed=True
    )
    min_velocity: float = setting(
        0.8, "slowest progress through the map (places per keyframe)", minimum=0.0, maximum=10.0
    )
    max_velocity: float = setting(
        1.2, "fastest progress through the map (places per keyframe)", minimum=0.1, maximum=10.0
    )
    velocity_steps: int = setting(
        5, "velocities tried between slowest and fastest", minimum=1, maximum=50
    )
    reverse: bool = setting(False, "also match places passed in the opposite order")


@dataclass(frozen=True)
class DecisionConfig:
    """When a candidate is accepted."""

    threshold: float = setting(
        0.0,
        "score that a match needs (background spreads, see the docs); 0: calibrated from the map",
        minimum=0.0,
        maximum=1000.0,
    )
    margin: float = setting(
        0.0,
        "lead over the best different place that a match needs (background spreads)",
        minimum=0.0,
        maximum=1000.0,
    )
    support: float = setting(
        0.5,
        "score that the newest image alone must have at the match (background spreads), so that a "
        "sequence does not go on matching where known surroundings end",
        minimum=-1000.0,
        maximum=1000.0,
    )
    confirmations: int = setting(
        1, "keyframes in a row that must pass and agree", minimum=1, maximum=100
    )
    exclusion_s: float = setting(
        30.0,
        "places stored during the last so many seconds are not searched (s)",
        minimum=0.0,
        maximum=86_400.0,
    )
    candidates: int = setting(5, "candidates reported", minimum=1, maximum=100)
    neighbourhood: int = setting(
        10,
        "places before and after the best that count as the same place for the margin (places)",
        minimum=0,
        maximum=10_000,
    )
    same_place_m: float = setting(
        5.0,
        "places with poses no farther apart count as the same place for the margin (m)",
        minimum=0.0,
        maximum=10_000.0,
    )


@dataclass(frozen=True)
class KeyframeConfig:
    """Which images become part of a sequence, and may become places."""

    distance_m: float = setting(
        0.5, "with poses: a keyframe after so much travel (m)", minimum=0.0, maximum=1000.0
    )
    angle_rad: float = setting(
        0.35, "with poses: or after so much turning (rad)", minimum=0.0, maximum=6.3
    )
    interval_s: float = setting(
        0.5, "without poses: a keyframe after so much time (s)", minimum=0.0, maximum=3600.0
    )


@dataclass(frozen=True)
class RecognitionConfig:
    """All settings of place recognition."""

    map: MapConfig = section(MapConfig)
    descriptor: DescriptorConfig = section(DescriptorConfig)
    sequence: SequenceConfig = section(SequenceConfig)
    decision: DecisionConfig = section(DecisionConfig)
    keyframe: KeyframeConfig = section(KeyframeConfig)
