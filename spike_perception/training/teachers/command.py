# SPDX-License-Identifier: Apache-2.0
"""Train a teacher that open_clip loads, from pretrained towers, captions and unlabelled images."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from spike_perception.cli import add_json, emit
from spike_perception.config import flatten, from_flat, settings
from spike_perception.errors import InputError

PRESETS = Path(__file__).parent / "presets"
MAX_YAML_BYTES = 1 << 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="PATH",
        help="image set: folder, FILE.zip or FILE.zip/FOLDER; may be given again. Folder names "
        "count as labels only with --class-words",
    )
    parser.add_argument(
        "--captions", metavar="PATH", help="captions.csv (image,caption), or a zip file with it"
    )
    parser.add_argument(
        "--words",
        default="default",
        metavar="FILE",
        help="nouns whose geometry is kept: a file or one of the package's lists; default: the "
        "word bank's",
    )
    parser.add_argument(
        "--class-words",
        metavar="PATH",
        help="words of class folders (FOLDER, tab, names), or a zip file with classes.tsv; sets of "
        "these classes are labelled sets",
    )
    parser.add_argument(
        "--tower",
        default="lite2",
        help="image tower: lite0, lite1, lite2, or ARCHITECTURE=FILE with one of timm's names",
    )
    parser.add_argument(
        "--text",
        default="all_minilm_l6_v2",
        metavar="FOLDER|PACKAGE",
        help="text tower: Hugging Face folder, or installed package that holds one",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the teacher")
    parser.add_argument(
        "--cache", type=Path, help="folder of the towers' features (default: OUT/cache)"
    )
    presets = ", ".join(sorted(each.stem for each in PRESETS.glob("*.yaml")))
    parser.add_argument(
        "--config", default="cpu", metavar="FILE", help=f"settings: a YAML file, or {presets}"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="change one setting, such as project.steps=500; may be given again",
    )
    parser.add_argument(
        "--evaluate",
        action="append",
        default=[],
        metavar="PATH",
        help="labelled set to measure zero-shot accuracy on, its folder names being the words (or "
        "those of --class-words); may be given again. Without --data, the teacher in OUT is "
        "measured",
    )
    parser.add_argument("--limit", type=int, help="take at most so many images of each set")
    parser.add_argument("--seed", type=int, default=0, help="seed of draws and projections")
    parser.add_argument("--device", default="cpu", help="torch device, such as cuda")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train the teacher, write it, and measure it."""
    from spike_perception.training.data.tables import read_class_words
    from spike_perception.training.teachers.encoder import EncoderConfig
    from spike_perception.training.teachers.folder import read_card

    config = read_settings(arguments.config, arguments.set)
    encoder = EncoderConfig(device=arguments.device)
    class_words = read_class_words(arguments.class_words) if arguments.class_words else {}
    if not arguments.data and not arguments.captions:
        if not arguments.evaluate:
            raise InputError("images_missing", "give --data to train on, or --evaluate")
        card = read_card(arguments.out)
    else:
        card = _train(arguments, config, encoder, class_words)
    result: dict[str, Any] = {"teacher": str(arguments.out), **card}
    if arguments.evaluate:
        result["zero_shot"] = _evaluate(arguments, config, encoder, class_words)
    emit(arguments, result, _text(result))
    return 0


def read_settings(source: str, changes: list[str]) -> Any:
    """The recipe from a preset or YAML file, then from ``SETTING=VALUE``.

    Raises:
        InputError: ``no_config``, ``bad_config``, ``unknown_setting``, ``invalid_setting``.
    """
    import yaml

    from spike_perception.training.teachers.lit_config import LitConfig

    file = PRESETS / f"{source}.yaml"
    file = file if file.is_file() else Path(source)
    if not file.is_file():
        names = ", ".join(sorted(each.stem for each in PRESETS.glob("*.yaml")))
        raise InputError("no_config", f"{source} is neither a file nor a preset; these are {names}")
    if file.stat().st_size > MAX_YAML_BYTES:
        raise InputError("bad_config", f"{file} exceeds {MAX_YAML_BYTES} bytes")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("bad_config", f"{file} is no YAML: {error}") from error
    if not isinstance(found, dict):
        raise InputError("bad_config", f"{file} holds no mapping of settings")
    values = flatten(found)
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise InputError("invalid_setting", f"--set {change!r}; expected SETTING=VALUE")
        kinds = {each.path: each.type for each in settings(LitConfig)}
        # A str stays as it is written; "none" and "1e-3" mean different things to YAML.
        values[path] = text if kinds.get(path) is str else _number(text)
    return from_flat(LitConfig, values)


def _number(text: str) -> object:
    words: dict[str, object] = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _train(
    arguments: argparse.Namespace, config: Any, encoder: Any, class_words: dict[str, Any]
) -> dict[str, Any]:
    from spike_perception.training.data.images import open_images
    from spike_perception.training.data.tables import read_captions
    from spike_perception.training.teachers.recipe import Sources, train_teacher
    from spike_perception.training.teachers.towers import TextTower, load_image_tower, text_folder
    from spike_perception.training.words import load_words
    from spike_perception.zero_shot.names import unqualified

    captions = read_captions(arguments.captions) if arguments.captions else {}
    images = [open_images(path, limit=arguments.limit) for path in arguments.data]
    stems = {stem for each in images for stem in each.stems()}
    if captions and not stems & set(captions):
        # Captions without their photos are of no use; their own file mostly holds both.
        place = Path(arguments.captions)
        place = place.parent if place.suffix.lower() == ".csv" else place
        try:
            images.append(open_images(place, limit=arguments.limit))
        except InputError as error:
            raise InputError(
                "images_missing",
                f"no image of --data has a caption in {arguments.captions}; name the photos' "
                f"folder with --data ({error})",
            ) from error
    words = load_words("bank" if arguments.words == "default" else arguments.words)
    nouns = tuple(dict.fromkeys(unqualified(each) for each in words.names))
    cache = arguments.cache or arguments.out / "cache"
    text = TextTower(text_folder(arguments.text, cache), config.texts.context, encoder)
    tower = load_image_tower(arguments.tower)
    source = Path(arguments.text).name if Path(arguments.text).is_dir() else arguments.text
    return train_teacher(
        tower,
        text,
        Sources(tuple(images), captions, nouns, class_words),
        arguments.out,
        cache,
        config,
        name=_plain(f"{arguments.tower.partition('=')[0]}-{source}"),
        seed=arguments.seed,
        encoder=encoder,
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def _evaluate(
    arguments: argparse.Namespace, config: Any, encoder: Any, class_words: dict[str, Any]
) -> dict[str, Any]:
    from spike_perception.training.data.images import open_images
    from spike_perception.training.teachers.recipe import templates, zero_shot
    from spike_perception.training.teachers.teacher import load_teacher

    teacher = load_teacher(str(arguments.out), config=encoder)
    found: dict[str, Any] = {"teacher_id": teacher.id}
    for path in arguments.evaluate:
        images = open_images(path, limit=arguments.limit)
        names = [
            class_words[each][0] if each in class_words else each.replace("_", " ")
            for each in images.classes
        ]
        found[path] = zero_shot(teacher, images, names, templates(config))
    return found


def _plain(name: str) -> str:
    return "".join(each if each.isalnum() or each in "._-" else "-" for each in name)


def _text(result: dict[str, Any]) -> str:
    lines = [f"teacher {result['teacher']}"]
    if "images" in result:
        lines.append(
            f"trained on {result['images']} images, {result['captions']} captions, "
            f"{result['labelled_images']} labelled images; {result['skipped']} images skipped"
        )
        lines += [f"  skipped {name}: {why}" for name, why in result["skipped_images"].items()]
        lines.append(
            "losses " + ", ".join(f"{name} {value:.4f}" for name, value in result["losses"].items())
        )
    for name, found in result.get("measured", {}).items():
        shares = ", ".join(f"R@{k.split('_')[-1]} {v:.3f}" for k, v in found.items() if "at" in k)
        lines.append(f"{name.replace('_', ' ')}, {found['images']:.0f} photos: {shares}")
    for name, found in result.get("zero_shot", {}).items():
        if isinstance(found, dict):
            lines.append(
                f"zero-shot {name}: top-1 {found['top_1']:.3f}, top-5 {found['top_5']:.3f} "
                f"({found['images']:.0f} images)"
            )
    return "\n".join(lines)
