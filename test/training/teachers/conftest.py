# SPDX-License-Identifier: Apache-2.0
"""Towers with random weights, small enough to be made in every test."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from spike_perception.errors import InputError
from spike_perception.training.teachers.operators import import_open_clip, import_timm

NOUNS = ("photo", "picture", "type", "object", "dog", "cat", "car", "tree")
WORDS = ["a", "of", "the", "red", "blue", "green", "round", ",", ".", *NOUNS]


@pytest.fixture(scope="session")
def open_clip():
    try:
        return import_open_clip()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def text_tower(open_clip, tmp_path_factory):
    """Hugging Face folder of a random BERT of 32 channels."""
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("text")
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate(marks + WORDS)}
    for letter in "abcdefghijklmnopqrstuvwxyz0123456789":
        vocabulary.setdefault(letter, len(vocabulary))
        vocabulary.setdefault(f"##{letter}", len(vocabulary))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = BertModel(config, add_pooling_layer=False)
    for each in model.parameters():  # BERT's own start is so small that all texts look alike
        torch.nn.init.normal_(each, std=0.3)
    config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors")
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": mark, "special": True, "single_word": False,
             "lstrip": False, "rstrip": False, "normalized": False}
            for index, mark in enumerate(marks)
        ],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "lowercase": True,
                       "handle_chinese_chars": True, "strip_accents": None},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                mark: {"id": mark, "ids": [vocabulary[mark]], "tokens": [mark]}
                for mark in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocabulary},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(document))
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), marks, strict=True))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"tokenizer_class": "BertTokenizer"} | {f"{k}_token": v for k, v in names.items()}
        )
    )
    return folder


@pytest.fixture(scope="session")
def image_weights(open_clip, tmp_path_factory):
    """Weights of timm's smallest EfficientNet."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = import_timm().create_model("test_efficientnet")
    file = tmp_path_factory.mktemp("image") / "weights.safetensors"
    save_file(network.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Folder of 24 unlabelled pictures with captions.csv beside it, and a labelled one."""
    root = tmp_path_factory.mktemp("photos")
    (root / "images").mkdir()
    random = np.random.default_rng(0)
    colours = {"red": (0, 0, 220), "green": (0, 200, 0), "blue": (220, 0, 0)}
    lines = ["image,caption"]
    for index in range(24):
        name, colour = list(colours.items())[index % 3]
        image = np.clip(np.array(colour) + random.integers(-40, 40, (48, 64, 3)), 0, 255)
        cv2.imwrite(str(root / "images" / f"p{index}.png"), image.astype(np.uint8))
        lines += [
            f'p{index}.jpg,"a {name} object, photo {index % 4}"',
            f"p{index}.jpg,the {name} car",
        ]
    (root / "captions.csv").write_text("\n".join(lines))
    for name, colour in colours.items():
        (root / "labelled" / name).mkdir(parents=True)
        for index in range(4):
            image = np.clip(np.array(colour) + random.integers(-40, 40, (32, 32, 3)), 0, 255)
            cv2.imwrite(str(root / "labelled" / name / f"{index}.png"), image.astype(np.uint8))
    return root
