# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every room's tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


# Length, width and height of made-up objects [m].
SOLIDS = (
    (4.2, 1.8, 1.5),
    (0.6, 0.6, 1.75),
    (2.2, 0.5, 1.5),
    (9.0, 2.5, 3.2),
    (2.0, 1.9, 0.9),
)
# Where they stand, x and y [m]: a random network knows them again only there.
PLACES = ((8.0, 0.0), (5.0, 5.0), (-6.0, 3.0), (12.0, -9.0), (-8.0, -8.0))


def solid(number: int, points: int = 4000) -> np.ndarray:
    """Points [P, 3] on the sides of an upright box, the middle of its bottom at the origin."""
    rng = np.random.default_rng(number)
    length, width, height = SOLIDS[number]
    around = rng.uniform(-0.5, 0.5, points)
    side = np.where(rng.random(points) < 0.5, -0.5, 0.5)
    flat = np.where(
        (rng.random(points) < 0.5)[:, None],
        np.stack([around, side], axis=1),
        np.stack([side, around], axis=1),
    )
    x, y = (flat * (length, width)).T
    return np.stack([x, y, rng.uniform(0, height, points)], axis=1).astype(np.float32)


def scan(*numbers: int) -> np.ndarray:
    """A made-up LiDAR scan [N, 3] (m): flat ground 1.7 m below the sensor, and solids on it."""
    grid = np.arange(-20, 20, 0.4, dtype=np.float32)
    ground = np.stack([*np.meshgrid(grid, grid), np.full((len(grid),) * 2, -1.7)], axis=-1)
    placed = [solid(number) + np.array([*PLACES[number], -1.4]) for number in numbers]
    return np.concatenate([ground.reshape(-1, 3), *placed]).astype(np.float32)


class LidarFiles(NamedTuple):
    """A tiny bundle for points with random weights, and words for what it makes of some solids."""

    bundle: Path
    # Knows the solids 0 to 3 as these words, and every other object as unknown.
    pack: Path
    words: tuple[str, ...]
    # The same words.
    bank: Path


@pytest.fixture(scope="session")
def lidar_files(tmp_path_factory: pytest.TempPathFactory) -> LidarFiles:
    """Bundle, vocabulary and word bank of one made-up encoder of points."""
    torch = pytest.importorskip("torch")
    from spike_perception.deploy.bundle import Bundle
    from spike_perception.deploy.runtime import load_runtime
    from spike_perception.sensing.cluster_input import cluster_points
    from spike_perception.sensing.clusters import find_clusters
    from spike_perception.students.registry import create_student, student_config_to_json
    from spike_perception.zero_shot.bank import WordBank
    from spike_perception.zero_shot.folding import FoldedText, unit
    from spike_perception.zero_shot.pack import VocabularyPack
    from spike_perception.zero_shot.rejection import Rejection

    folder = tmp_path_factory.mktemp("lidar")
    torch.manual_seed(0)
    size = {"groups": 16, "neighbours": 8, "patch_channels": 8, "channels": 32, "heads": 2}
    student = create_student("pointformer-s", {**size, "blocks": 1})
    for module in student.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None  # a plain average, so that one batch is enough
    shapes = np.stack([solid(n, 128) / np.abs(solid(n, 128)).max() for n in range(len(SOLIDS))])
    with torch.no_grad():
        student.train()(torch.from_numpy(shapes - shapes.mean(axis=1, keepdims=True)))
    written, config = student_config_to_json(student.eval()), student.config
    bundle = Bundle(
        kind="points",
        student=written["student"],
        student_config=written["config"],
        preprocessing={"points": 128, "channels": ["x", "y", "z"], "normalise": "unit_sphere"},
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
    words = ("car", "pedestrian", "cyclist", "truck")
    clouds = []
    for number in range(len(words)):
        xyz = scan(number)
        (cluster,) = find_clusters(xyz)
        clouds.append(cluster_points(xyz, cluster))
    counts = runtime.infer(runtime.prepare_points(clouds))
    mean = counts.mean(axis=0)
    rows = unit(counts - mean).astype(np.float32)
    rule = Rejection("max_logit", 0.9, 1.0, 100_000.0)
    files = LidarFiles(
        folder / "tiny.safetensors",
        folder / "words.safetensors",
        words,
        folder / "bank.safetensors",
    )
    bundle.save(files.bundle)
    fields = {"feature_mean": mean, "temperature": 0.1}
    encoder = bundle.encoder_id
    VocabularyPack.build(words, rows, encoder, rejection=rule, **fields).save(files.pack)
    folded = FoldedText(rows, -rows @ mean, mean)
    WordBank.of(words, folded, encoder, {"car": ["auto"]}, temperature=0.1, rejection=rule).save(
        files.bank
    )
    return files


@pytest.fixture(scope="session")
def scan_of() -> Callable[..., np.ndarray]:
    """``scan``: a made-up LiDAR scan of some solids."""
    return scan


EVENT_SIZE = 64, 48


def event_burst(number: int, count: int = 600, start_ns: int = 0, span_ns: int = 9_000_000):
    """Events of an ellipse that only this number has, for ``span_ns`` from ``start_ns`` on."""
    from spike_perception.sensing.events import Events

    rng = np.random.default_rng(number)
    centre, reach = rng.uniform(0.3, 0.7, 2), rng.uniform(0.05, 0.28, 2)
    angle = rng.uniform(0, 2 * np.pi, count)
    x, y = (centre[:, None] + reach[:, None] * (np.cos(angle), np.sin(angle))) * np.array(
        EVENT_SIZE
    )[:, None]
    t_ns = start_ns + np.arange(count, dtype=np.int64) * span_ns // count
    return Events(x.astype(np.uint16), y.astype(np.uint16), angle > number % 6, t_ns)


class EventFiles(NamedTuple):
    """A tiny bundle for events with random weights, and words for what it makes of some bursts."""

    bundle: Path
    # Knows T windows each of bursts 0 to 3 as these words.
    pack: Path
    words: tuple[str, ...]
    bank: Path
    size: tuple[int, int] = EVENT_SIZE
    burst: Callable[..., Any] = event_burst


@pytest.fixture(scope="session")
def event_files(tmp_path_factory: pytest.TempPathFactory) -> EventFiles:
    """Bundle, vocabulary and word bank of one made-up encoder of events."""
    torch = pytest.importorskip("torch")
    from spike_perception.deploy.bundle import Bundle
    from spike_perception.deploy.network import student_of
    from spike_perception.sensing.event_views import event_points
    from spike_perception.students.registry import create_student, student_config_to_json
    from spike_perception.zero_shot.bank import WordBank
    from spike_perception.zero_shot.folding import FoldedText, unit
    from spike_perception.zero_shot.pack import VocabularyPack

    folder = tmp_path_factory.mktemp("events")
    torch.manual_seed(0)
    size = {"groups": 16, "neighbours": 8, "patch_channels": 8, "channels": 32, "heads": 2}
    student = create_student(
        "pointformer-s", {**size, "blocks": 1, "point_features": 1, "steps": 6}
    )
    for module in student.modules():
        if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            module.momentum = None  # a plain average, so that one batch is enough
    words = ("one", "two", "three", "four")
    clouds = torch.from_numpy(
        np.stack([event_points(event_burst(n), *EVENT_SIZE, 128) for n in range(len(words))])
    )
    with torch.no_grad():
        student.train()(clouds)
    written, config = student_config_to_json(student.eval()), student.config
    bundle = Bundle(
        kind="events",
        student=written["student"],
        student_config=written["config"],
        preprocessing={"points": 128, "channels": ["x", "y", "z", "p"], "normalise": "none"},
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
    with torch.no_grad():
        counts = student_of(bundle)(clouds).numpy()
    mean = counts.mean(axis=0)
    rows = unit(counts - mean).astype(np.float32)
    names = ("tiny", "words", "bank")
    bundle_file, pack, bank = (folder / f"{name}.safetensors" for name in names)
    bundle.save(bundle_file)
    fields = {"feature_mean": mean, "temperature": 0.1}
    VocabularyPack.build(words, rows, bundle.encoder_id, **fields).save(pack)
    folded = FoldedText(rows, -rows @ mean, mean)
    WordBank.of(words, folded, bundle.encoder_id, {"one": ["single"]}, temperature=0.1).save(bank)
    return EventFiles(bundle_file, pack, words, bank)
