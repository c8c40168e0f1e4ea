# SPDX-License-Identifier: Apache-2.0
"""The draft of a model card: what it is, what it was made of, how it was judged, what it cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spike_perception import __version__
from spike_perception.deploy.bundle import Bundle
from spike_perception.spiking.energy import EnergyReport


def version() -> str:
    """Release of this software, and the commit where it runs from a checkout."""
    package = Path(__file__).resolve().parents[1]
    # Installed, it may lie within a checkout of something else, whose commit says nothing.
    if not _git(package, "ls-files", "__init__.py"):
        return __version__
    commit = _git(package, "rev-parse", "--short=12", "HEAD")
    return f"{__version__}+{commit}" if commit else __version__


def _git(folder: Path, *words: str) -> str:
    """What git says there; empty if it fails or is absent."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def card(bundle: Bundle, document: Mapping[str, Any], energy: EnergyReport, config: str) -> str:
    """Markdown from what a run knows of itself.

    Args:
        bundle: the trained student.
        document: the run's metrics document.
        energy: estimate on training images.
        config: resolved configuration, YAML.
    """
    height, width = bundle.preprocessing["input_size"]
    teacher = document["teacher"]
    return markdown(
        bundle,
        document,
        energy,
        config,
        what=f"""Spiking image encoder: {bundle.student}, {bundle.parameter_count:,} parameters, \
input
{width}x{height} RGB, T = {bundle.timesteps}, D = {bundle.levels}, {bundle.embedding_dim} spike
counts. Distilled from {teacher["name"]} (`{teacher["sha256"][:16]}`); names objects by a vocabulary
that `spike-train fold` makes of words.""",
        identity="encoder",
        reading="""`f32` and `int8` are the two forms in which robots run it, \
`teacher` the teacher on the same images;
`top_1` is that of the folded head, \
`top_1_of_both_towers` that of the plain cosine, for comparison.""",
        limits=(
            "It knows what its teacher knows and its images showed; accuracy elsewhere has to be "
            "measured.",
            f"Images are reduced to {width}x{height} pixels: small objects vanish.",
            "One name for the whole image: it neither counts nor locates.",
        ),
    )


def markdown(
    bundle: Bundle,
    document: Mapping[str, Any],
    energy: EnergyReport,
    config: str,
    *,
    what: str,
    identity: str,
    reading: str,
    limits: Sequence[str],
    sample: str = "image",
) -> str:
    """A card's frame, the same for every kind of model.

    Args:
        bundle: the trained student.
        document: the run's metrics document.
        energy: estimate on training images.
        config: resolved configuration, YAML.
        what: what the model is, a paragraph.
        identity: what its hash is called.
        reading: how to read the figures, a paragraph.
        limits: what it cannot do, a sentence each.
        sample: what one input is called.
    """
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in document["metrics"].items())
    data = "\n".join(f"- {each}" for each in document["data"])
    skipped = sum(len(each) for each in document["skipped"].values())
    seeds = ", ".join(str(each) for each in bundle.provenance["seeds"])
    bounds = "\n".join(f"- {each}" for each in limits)
    return f"""# {document["run"]}

{what}

- {identity}: `{bundle.encoder_id}`
- precision: {bundle.preprocessing.get("precision", "f32")}
- software: {bundle.provenance["version"]}, seed {seeds}, {document["steps"]} steps

## Data

{data}

{sample.capitalize()}s that could not be decoded and were left out: {skipped}.

## Figures

All printed by

```
{document["command"]}
```

| figure | value |
| --- | --- |
{rows}

{reading}

## Energy, estimated and not measured

{energy.student_mj:.4f} mJ {_article(sample)} against {energy.ann_twin_mj:.4f} mJ of the same \
network without
spikes (ratio {energy.ratio_to_ann_twin:.4f}; by the strict count
{energy.strict_ratio_to_ann_twin:.4f}), mean of {energy.samples} training {sample}s, mean firing \
rate
{energy.mean_firing_rate:.4f}. {energy.to_json()["assumption"]}. A CPU or GPU saves nothing of the
kind.

## Limits

{bounds}

## Recipe

```yaml
{config.rstrip()}
```
"""
