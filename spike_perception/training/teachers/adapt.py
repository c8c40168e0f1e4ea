# SPDX-License-Identifier: Apache-2.0
"""Low-resolution adaptation: the tower learns to see in few pixels what it sees in many."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from spike_perception.errors import InputError
from spike_perception.identity import sha256_json
from spike_perception.training.data.images import ImageSet
from spike_perception.training.data.pixels import degraded, resized
from spike_perception.training.teachers.encoder import Normalised, Preprocessing, torch_device
from spike_perception.training.teachers.lit import rate
from spike_perception.training.teachers.lit_config import AdaptConfig
from spike_perception.training.teachers.towers import (
    DAMAGED,
    ImageTower,
    PooledFeatures,
    read_weights,
)


def adapted_tower(
    tower: ImageTower,
    sets: Sequence[ImageSet],
    preprocessing: Preprocessing,
    config: AdaptConfig,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> ImageTower:
    """A copy of the tower whose features of degraded images match the tower's of clean ones.

    The given tower stays as it is and teaches. Every step draws its images from seed and step
    alone, so a run that was killed goes on where its last save was, with the same result.

    Args:
        tower: the tower to start from.
        sets: images; labels are not used.
        preprocessing: of the tower.
        config: degradation and optimiser.
        folder: holds the result, and the state of an unfinished run.
        seed: of draws.
        device: torch device.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: ``no_device``, ``images_missing``, ``cannot_write``.
    """
    from safetensors.torch import save_file

    from spike_perception.config import to_flat

    key = sha256_json(
        [tower.id, [each.id for each in sets], list(preprocessing.size), to_flat(config), seed]
    )
    result = folder / f"tower-{key[:32]}.safetensors"
    network = copy.deepcopy(tower.network)
    if not result.is_file():
        where = torch_device(device)
        _train(network, tower, sets, preprocessing, config, result, seed, where, progress)
        partial = result.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, partial)
        partial.replace(result)
        _state_file(result).unlink(missing_ok=True)
    network.load_state_dict(read_weights(result))
    network.eval().requires_grad_(False)
    return ImageTower(tower.architecture, network, sha256_json([tower.id, key]))


def _train(
    network: Any,
    tower: ImageTower,
    sets: Sequence[ImageSet],
    preprocessing: Preprocessing,
    config: AdaptConfig,
    result: Path,
    seed: int,
    device: torch.device,
    progress: bool,
) -> None:
    network.requires_grad_(True).train().to(device)
    student = Normalised(PooledFeatures(network), preprocessing).to(device)
    teacher = Normalised(PooledFeatures(copy.deepcopy(tower.network)), preprocessing).eval()
    teacher.to(device)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    first = _restore(_state_file(result), network, optimiser)
    bar = tqdm(
        range(first, config.steps),
        "adapt",
        initial=first,
        total=config.steps,
        unit="step",
        disable=None if progress else True,
    )
    for step in bar:
        generator = np.random.default_rng([seed, step])
        torch.manual_seed(int(generator.integers(1 << 62)))  # dropout within the tower
        clean, low = _pairs(sets, preprocessing.size, config, generator)
        with torch.no_grad():
            wanted, wanted_logits = teacher(torch.from_numpy(clean).to(device))
        found, logits = student(torch.from_numpy(low).to(device))
        loss = feature_loss(found, wanted) + config.logits * distribution_loss(
            logits, wanted_logits, config.temperature
        )
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * rate(step, config.steps, 0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.4f}")
        if (step + 1) % config.save_every == 0 and step + 1 < config.steps:
            _save(_state_file(result), network, optimiser, step + 1)
    network.cpu()


def feature_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - cosine of features [B, F]."""
    return 1.0 - functional.cosine_similarity(found, wanted, dim=-1).mean()


def distribution_loss(found: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Divergence of softmax distributions at a temperature, from logits [B, K]."""
    divergence = functional.kl_div(
        (found / temperature).log_softmax(-1),
        (wanted / temperature).softmax(-1),
        reduction="batchmean",
    )
    return divergence * temperature**2


def _pairs(
    sets: Sequence[ImageSet],
    size: tuple[int, int],
    config: AdaptConfig,
    generator: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images as they are and degraded, both at the tower's size; uint8 [B, h, w, 3] each."""
    counts = np.cumsum([len(each) for each in sets])
    clean: list[NDArray[np.uint8]] = []
    low: list[NDArray[np.uint8]] = []
    failures = 0
    while len(clean) < config.batch:
        row = int(generator.integers(0, counts[-1]))
        index = int(np.searchsorted(counts, row, side="right"))
        try:
            image = sets[index].image(row - int(counts[index] - len(sets[index])))
        except InputError:
            failures += 1
            if failures > 100 + config.batch:
                raise
            continue
        if generator.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
        shorter = int(generator.integers(config.smallest, max(config.smallest, config.largest) + 1))
        keeps = generator.random() < config.clean_share
        clean.append(resized(image, size))
        low.append(clean[-1] if keeps else _enlarged(degraded(image, shorter), size))
    return np.stack(clean), np.stack(low)


def _enlarged(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    square = resized(image, (min(image.shape[:2]),) * 2)
    return np.asarray(cv2.resize(square, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def _state_file(result: Path) -> Path:
    return result.with_suffix(".state")


def _save(file: Path, network: Any, optimiser: torch.optim.Optimizer, step: int) -> None:
    state = {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
    }
    partial = file.with_suffix(".state.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        raise InputError("cannot_write", f"{file} cannot be written: {error}") from error


def _restore(file: Path, network: Any, optimiser: torch.optim.Optimizer) -> int:
    """Step to go on with; 0 if there is no state."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        return 0
    device = next(network.parameters()).device
    try:
        state = torch.load(file, map_location=device, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["step"])
    except (*DAMAGED, LookupError, ValueError, TypeError) as error:
        reason = str(error).split("\n")[0][:200]
        raise InputError(
            "bad_cache", f"{file} cannot be resumed from ({reason}); delete it"
        ) from error
