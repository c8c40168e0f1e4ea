# SPDX-License-Identifier: Apache-2.0
"""A frozen vision-language model that says what students are to learn."""

from __future__ import annotations

import difflib
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from spike_perception.errors import InputError
from spike_perception.identity import sha256_file, sha256_json
from spike_perception.training.teachers import folder
from spike_perception.training.teachers.encoder import (
    EncoderConfig,
    ImageEncoder,
    Images,
    Preprocessing,
    encode_texts,
    torch_device,
)
from spike_perception.training.teachers.operators import import_open_clip

CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """What a teacher says about images.

    Attributes:
        features: unit vectors in the space of the text embeddings, float32 [B, C].
        tokens: patch tokens without class token, float32 [B, h, w, C_T].
    """

    features: NDArray[np.float32]
    tokens: NDArray[np.float32]


class Teacher:
    """An open_clip model, frozen.

    Attributes:
        name: open_clip's name of the model, or that of the folder's configuration.
        id: SHA-256 of the architecture, the preprocessing, the tokenizer and the weights.
        channels: C, dimensions of the embeddings.
        logit_scale: factor of the cosine in the logits.
        image_size: height and width that the image tower takes.
        model: open_clip's model.
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str, identity: str, config: EncoderConfig
    ) -> None:
        """Wrap a model of open_clip; see :func:`load_teacher`."""
        self.name = name
        self.id = identity
        self.model = model.eval().requires_grad_(False)
        self.logit_scale = float(self.model.logit_scale.exp())
        self._tokenizer = tokenizer
        self._config = config
        self._device = torch_device(config.device)
        self.model.to(self._device)
        preprocessing = Preprocessing.of(self.model.visual.preprocess_cfg)
        self.image_size = preprocessing.size
        self._encoder = ImageEncoder(_WithTokens(self.model.visual), preprocessing, config)
        self.channels = int(self.encode_text(["a photo"]).shape[1])

    def encode_images(self, images: Images) -> ImageFeatures:
        """Features and tokens of images of any size.

        Args:
            images: uint8 [B, H, W, 3] or a list of [H, W, 3]; RGB.

        Raises:
            InputError: ``wrong_image``.
        """
        features, tokens = self._encoder(images)
        return ImageFeatures(_unit(features), tokens)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit embeddings of texts, float32 [N, C].

        Raises:
            InputError: ``no_text``.
        """
        text = getattr(self.model, "text", None)
        config = getattr(text, "config", None)  # of a Hugging Face tower, which masks padding
        return _unit(
            encode_texts(
                texts,
                self._tokenizer,
                self.model.encode_text,
                pad=getattr(config, "pad_token_id", None),
                batch=self._config.batch,
                device=self._device,
            )
        )


def load_teacher(
    name: str, checkpoint: Path | None = None, config: EncoderConfig | None = None
) -> Teacher:
    """Load a teacher from local files.

    Args:
        name: a model that open_clip knows, or a folder that ``spike-train teacher`` wrote.
        checkpoint: the model's weights (safetensors, or a state dict that torch loads without
            pickled code); not for a folder, which holds its own.
        config: how to run it.

    Raises:
        InputError: ``unknown_teacher``, ``checkpoint_missing``, ``bad_checkpoint``,
            ``bad_teacher``.
    """
    open_clip = import_open_clip()
    changes: dict[str, Any] = {}
    if Path(name).is_dir():
        document = folder.read_config(Path(name))
        identity, file = folder.identity(Path(name)), Path(name) / folder.WEIGHTS
        changes["text_cfg"] = folder.placed(Path(name), document)["text_cfg"]
        shown, model_name = document["name"], f"local-dir:{name}"
        _checked(shown, file)
    else:
        model_name = name.replace("/", "-")
        known = open_clip.list_models()
        if model_name not in known:
            near = difflib.get_close_matches(model_name, known, 3)
            raise InputError(
                "unknown_teacher",
                f"{name!r} is neither a folder nor a model of open_clip"
                + (f"; near are {', '.join(near)}" if near else ""),
            )
        shown, identity, file = model_name, "", _checked(name, checkpoint)
    try:
        model, _, _ = open_clip.create_model_and_transforms(
            model_name, pretrained=None if changes else str(file), weights_only=True, **changes
        )
        tokenizer = open_clip.get_tokenizer(model_name)
    except _LOADING_ERRORS as error:
        first = str(error).strip().split("\n")[0][:300]
        raise InputError(
            "bad_checkpoint",
            f"{file} does not give a {shown}: {type(error).__name__}: {first}; give the "
            "weights of this model as safetensors or as a state dict saved by torch",
        ) from error
    if not identity:
        described = {
            "model": open_clip.get_model_config(model_name),
            "preprocess": _plain(model.visual.preprocess_cfg),
            "weights": sha256_file(file),
        }
        identity = sha256_json(_plain(described))
    return Teacher(model, tokenizer, shown, identity, config or EncoderConfig())


# Everything that open_clip, torch, safetensors and transformers raise for files that do not fit.
_LOADING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


def _checked(name: str, checkpoint: Path | None) -> Path:
    allowed = ", ".join(CHECKPOINT_SUFFIXES)
    if checkpoint is None:
        raise InputError(
            "checkpoint_missing",
            f"teacher {name} needs its weights from a local file ({allowed}); none was given",
        )
    if not checkpoint.is_file():
        raise InputError("checkpoint_missing", f"there is no checkpoint {checkpoint}")
    if checkpoint.suffix not in CHECKPOINT_SUFFIXES:
        raise InputError(
            "bad_checkpoint", f"{checkpoint} is no checkpoint by its suffix; allowed are {allowed}"
        )
    if checkpoint.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(checkpoint, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError("bad_checkpoint", f"{checkpoint} is damaged: {error}") from error
    return checkpoint


class _WithTokens(nn.Module):
    """An image tower of open_clip that also gives its tokens [B, h, w, C_T]."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        trunk = getattr(self.visual, "trunk", None)
        if trunk is None:
            found = self.visual.forward_intermediates(
                images, indices=1, normalize_intermediates=True, output_fmt="NCHW"
            )
            return found["image_features"], found["image_intermediates"][-1].permute(0, 2, 3, 1)
        tokens = trunk.forward_features(images)
        features = self.visual.head(trunk.forward_head(tokens))
        if tokens.ndim == 3:  # a transformer's, class token and registers first
            rows, columns = trunk.patch_embed.grid_size
            tokens = tokens[:, int(getattr(trunk, "num_prefix_tokens", 0)) :]
            tokens = tokens.reshape(-1, rows, columns, tokens.shape[-1])
        elif getattr(trunk, "output_fmt", "NCHW") != "NHWC":
            tokens = tokens.permute(0, 2, 3, 1)
        return features, tokens


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
