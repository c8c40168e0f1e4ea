# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every room's tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real data sets, where there is one."""
    folder = Path(os.environ.get("SPIKE_PERCEPTION_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}: set SPIKE_PERCEPTION_DATA")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return REPOSITORY


def blocks(number: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """An image that looks like no other number's: blocks of random brightness."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 255, (12, 16, 1), dtype=np.uint8).repeat(3, axis=2)
    height, width = size
    return small.repeat(height // 12, axis=0).repeat(width // 16, axis=1)


class CameraFiles(NamedTuple):
    """A tiny camera bundle with random weights, and words for what it makes of some images."""

    bundle: Path
    # Knows the images 0 to 5 as these words, and every other as unknown.
    pack: Path
    words: tuple[str, ...]
    # The same images by other words, another order, and no rule for unknown.
    other_pack: Path
    other_words: tuple[str, ...]
    # Both kinds of words.
    bank: Path
    # A pack of another encoder.
    foreign_pack: Path


@pytest.fixture(scope="session")
def camera_files(tmp_path_factory: pytest.TempPathFactory) -> CameraFiles:
    """Bundle, vocabularies and word bank of one made-up camera encoder."""
    cv2 = pytest.importorskip("cv2")
    torch = pytest.importorskip("torch")
    from spike_perception.deploy.bundle import Bundle
    from spike_perception.deploy.runtime import load_runtime
    from spike_perception.students.registry import create_student, student_config_to_json
    from spike_perception.zero_shot.bank import WordBank
    from spike_perception.zero_shot.folding import FoldedText, unit
    from spike_perception.zero_shot.pack import VocabularyPack
    from spike_perception.zero_shot.rejection import Rejection

    folder = tmp_path_factory.mktemp("camera")
    torch.manual_seed(0)
    size = 32
    student = create_student(
        "spikformer-s",
        {
            "height": size, "width": size, "first_stride": 2, "stem_channels": 12,
            "middle_channels": 16, "channels": 48, "heads": 3, "blocks": 1, "features": 64,
        },
    )  # fmt: skip
    for module in student.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None  # a plain average, so that one batch is enough
    small = [cv2.resize(blocks(n, (120, 120 * 4 // 3)), (size, size)) for n in range(100, 132)]
    batch = torch.from_numpy(np.stack(small).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        student.train()((batch - 0.5) / 0.25)
    written, config = student_config_to_json(student.eval()), student.config
    bundle = Bundle(
        kind="image",
        student=written["student"],
        student_config=written["config"],
        preprocessing={
            "input_size": [size, size],
            "channel_order": "rgb",
            "mean": [0.5],
            "std": [0.25],
            "resize": "shorter_side_crop",
            "interpolation": "area",
        },
        timesteps=config.steps,
        levels=config.levels,
        embedding_dim=student.feature_dim,
        tensors={name: each.numpy() for name, each in student.state_dict().items()},
        provenance={
            "command": "none: random weights",
            "data": [],
            "seeds": [0],
            "version": "0",
            "teacher": None,
        },
    )
    runtime = load_runtime(bundle, threads=1, cache=None)
    words = ("chair", "table", "person", "mug", "dog", "traffic light")
    other = ("sofa", "lamp", "plant", "bottle", "cat", "bus")
    counts = runtime.infer(runtime.prepare_images([blocks(n) for n in range(len(words))]))
    mean = counts.mean(axis=0)
    rows = unit(counts - mean).astype(np.float32)
    rule = Rejection("max_logit", 0.9, 50.0, 5000.0)
    encoder = bundle.encoder_id
    files = CameraFiles(
        folder / "tiny.safetensors",
        folder / "words.safetensors",
        words,
        folder / "others.safetensors",
        other,
        folder / "bank.safetensors",
        folder / "foreign.safetensors",
    )
    bundle.save(files.bundle)
    fields = {"feature_mean": mean, "temperature": 0.1}
    VocabularyPack.build(words, rows, encoder, rejection=rule, **fields).save(files.pack)
    VocabularyPack.build(other[::-1], rows[::-1], encoder, **fields).save(files.other_pack)
    VocabularyPack.build(words, rows, "f" * 64, **fields).save(files.foreign_pack)
    both = np.concatenate([rows, rows])
    folded = FoldedText(both, -both @ mean, mean)
    aliases = {"sofa": ["couch"], "mug": ["cup"], "lamp": ["light"], "traffic light": ["light"]}
    WordBank.of((*words, *other), folded, encoder, aliases, temperature=0.1, rejection=rule).save(
        files.bank
    )
    return files
