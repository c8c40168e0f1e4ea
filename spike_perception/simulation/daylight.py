# SPDX-License-Identifier: Apache-2.0
"""Times of day: sun, sky and how the camera exposes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spike_perception.errors import InputError

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Daylight:
    """One time of day; colours are linear RGB factors 0-1.

    Attributes:
        azimuth: direction in which the sun stands, from world x towards y (rad).
        elevation: height of the sun above the horizon (rad).
        sun: colour and intensity of the sunlight.
        ambient: light that reaches every surface.
        zenith: sky colour overhead.
        horizon: sky colour at the horizon.
        exposure: gain of the camera on the rendered image.
        noise: standard deviation of the camera's noise (grey levels of 255).
        shadows: whether the sun casts shadows.
    """

    azimuth: float
    elevation: float
    sun: Colour
    ambient: Colour
    zenith: Colour
    horizon: Colour
    exposure: float = 1.0
    noise: float = 2.0
    shadows: bool = True

    @property
    def direction(self) -> Colour:
        """Unit vector in which the sunlight travels, in the world frame."""
        level = math.cos(self.elevation)
        return (
            -level * math.cos(self.azimuth),
            -level * math.sin(self.azimuth),
            -math.sin(self.elevation),
        )


DAYLIGHTS = {
    "morning": Daylight(
        azimuth=math.radians(20),
        elevation=math.radians(25),
        sun=(0.75, 0.68, 0.55),
        ambient=(0.36, 0.38, 0.43),
        zenith=(0.35, 0.55, 0.85),
        horizon=(0.85, 0.85, 0.85),
        noise=3.0,
    ),
    "noon": Daylight(
        azimuth=math.radians(-70),
        elevation=math.radians(58),
        sun=(0.65, 0.64, 0.60),
        ambient=(0.42, 0.43, 0.45),
        zenith=(0.25, 0.48, 0.85),
        horizon=(0.75, 0.85, 0.95),
    ),
    "evening": Daylight(
        azimuth=math.radians(165),
        elevation=math.radians(16),
        sun=(0.70, 0.42, 0.20),
        ambient=(0.26, 0.24, 0.31),
        zenith=(0.20, 0.22, 0.42),
        horizon=(0.92, 0.55, 0.32),
        exposure=1.5,
        noise=5.0,
    ),
    "overcast": Daylight(
        azimuth=0.0,
        elevation=math.radians(80),
        sun=(0.12, 0.12, 0.13),
        ambient=(0.55, 0.56, 0.58),
        zenith=(0.62, 0.65, 0.68),
        horizon=(0.78, 0.79, 0.80),
        shadows=False,
    ),
    "night": Daylight(
        azimuth=math.radians(100),
        elevation=math.radians(50),
        sun=(0.06, 0.07, 0.11),
        ambient=(0.07, 0.07, 0.11),
        zenith=(0.01, 0.01, 0.03),
        horizon=(0.05, 0.05, 0.09),
        exposure=1.8,
        noise=9.0,
        shadows=False,
    ),
}


def daylight(name: str) -> Daylight:
    """The time of day of this name.

    Raises:
        InputError: ``unknown_daylight``.
    """
    if name not in DAYLIGHTS:
        raise InputError(
            "unknown_daylight", f"no time of day {name!r}; there are {', '.join(DAYLIGHTS)}"
        )
    return DAYLIGHTS[name]
