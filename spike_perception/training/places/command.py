# SPDX-License-Identifier: Apache-2.0
"""Train a spiking student that describes places, from drives in several seasons and photos."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.errors import InputError
from spike_perception.training.config import dump_yaml, load_yaml
from spike_perception.training.places.config import PlacesConfig
from spike_perception.training.run_command import (
    add_configuration,
    add_run_folder,
    carry_out,
    changes,
)

if TYPE_CHECKING:
    from torch import nn

    from spike_perception.deploy.bundle import Bundle
    from spike_perception.students.student import Student
    from spike_perception.training.places.objective import PlaceObjective
    from spike_perception.training.places.sampling import PlaceTargets, Traverse
    from spike_perception.training.teachers.features import TeacherFeatures
    from spike_perception.training.vl2spike.manifold import Basis

PRESETS = Path(__file__).parent / "presets"
ENERGY_IMAGES = 32


@dataclass(frozen=True)
class Data:
    """What to learn from and judge by, as paths; ``PATH[FIRST:END]`` takes a part of a drive.

    Attributes:
        traverses: each the drives of one way, frame k of all showing the same place.
        photos: image sets, every image a place of its own.
        develop: reference and query drives to judge by, never learnt from.
    """

    traverses: tuple[tuple[str, ...], ...] = ()
    photos: tuple[str, ...] = ()
    develop: tuple[tuple[str, str], ...] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_run_folder(parser)
    add_configuration(parser, preset_names(), "cpu")
    parser.add_argument(
        "--traverse",
        action="append",
        nargs="+",
        default=[],
        metavar="DRIVE",
        help="one way driven in several seasons, frame k of every drive at the same place: "
        "folders, FILE.zip/FOLDER, or a part of one as DRIVE[FIRST:END]; may be repeated",
    )
    parser.add_argument(
        "--photos",
        action="append",
        default=[],
        metavar="PATH",
        help="image set, every photo a place of its own; may be repeated",
    )
    parser.add_argument(
        "--develop",
        action="append",
        nargs=2,
        default=[],
        metavar=("REFERENCE", "QUERY"),
        help="drives to judge by, frame k at the same place; may be repeated",
    )


def preset_names() -> tuple[str, ...]:
    """Configurations that come with the command."""
    return tuple(sorted(each.stem for each in PRESETS.glob("*.yaml")))


def run(arguments: argparse.Namespace) -> int:
    """Train, judge, write the run's folder."""
    data = Data(
        tuple(tuple(each) for each in arguments.traverse),
        tuple(arguments.photos),
        tuple((each[0], each[1]) for each in arguments.develop),
    )
    return carry_out(
        arguments,
        resolve(arguments),
        lambda config, out, command: train_places(config, data, out, command),
    )


def resolve(arguments: argparse.Namespace) -> PlacesConfig:
    """The configuration that file and options make together.

    Raises:
        InputError: ``config_missing``, ``bad_config``, ``unknown_setting``, ``invalid_setting``.
    """
    preset = PRESETS / f"{arguments.config}.yaml"
    try:
        loaded = PlacesConfig.of(load_yaml(preset if preset.is_file() else arguments.config))
    except InputError as error:
        raise InputError(error.reason, f"{arguments.config}: {error}") from error
    return loaded.changed(changes(arguments))


def train_places(
    config: PlacesConfig, data: Data, out: Path, command: str
) -> dict[str, Any] | None:
    """Train a place student and write its run folder.

    Args:
        config: the configuration.
        data: what to learn from and judge by.
        out: folder of the run.
        command: what to name as the command that made it.

    Returns:
        The metrics document; None in processes of a distributed run that write nothing.

    Raises:
        InputError: whatever in configuration or data cannot be used.
        Stopped: after a signal.
    """
    import torch

    from spike_perception.training.trainer import fit

    scene = Scene(config, data)
    settings = config.settings
    trained = fit(
        scene.objective(),
        scene.batches,
        settings.trainer.steps,
        out,
        settings.trainer,
        identity=scene.identity(),
        validate=scene.validate if scene.develop else None,
    )
    if not trained.is_first:
        return None
    objective: Any = trained.objective
    with torch.no_grad():
        return scene.finish(
            objective.cpu(), out, command, trained.steps, trained.samples_per_second
        )


class Scene:
    """Everything a training works on, opened from its configuration."""

    def __init__(self, config: PlacesConfig, data: Data) -> None:
        """Read the data; compute or read the teacher's features if they are wanted."""
        import torch

        from spike_perception.students.registry import create_student
        from spike_perception.students.spikformer import Spikformer
        from spike_perception.training.places.sampling import (
            PlaceBatches,
            load_photos,
            load_traverse,
        )

        s = config.settings
        self.config = config
        if not data.traverses and not data.photos:
            raise InputError(
                "data_missing", "nothing to learn from: give --traverse DRIVES or --photos PATH"
            )
        if not s.trainer.steps:
            raise InputError("invalid_setting", "trainer.steps is 0; places train by steps")
        torch.manual_seed(s.trainer.seed)
        student = create_student(s.student.name, config.overrides)
        if not isinstance(student, Spikformer):
            raise InputError(
                "wrong_kind", f"{s.student.name} has no regions to count in; choose a spikformer"
            )
        self.student = student
        self.size = student.config.height, student.config.width
        self.preprocessing: dict[str, Any] = {
            "input_size": list(self.size),
            "channel_order": "gray",
            "mean": [0.0],
            "std": [1.0],
            "resize": "stretch",
            "interpolation": "area",
            "patch_norm": [s.input.patch_small, s.input.patch_middle, s.input.patch_large],
            "patch_norm_floor": s.input.floor,
        }
        if s.student.precision != "f32":
            self.preprocessing["precision"] = s.student.precision
        self.traverses = [load_traverse(each, self.size) for each in data.traverses]
        self.photos = [load_photos(each, self.size) for each in data.photos]
        self.develop: list[tuple[str, Traverse]] = []
        for reference, query in data.develop:
            name = plain = _name(query)
            taken = [each for each, _ in self.develop]
            for number in range(2, len(taken) + 2):
                name = f"{plain}#{number}" if name in taken else name
            self.develop.append((name, load_traverse([reference, query], self.size)))
        self._check_held_out()
        self.teacher: dict[str, str] | None = None
        self.basis: Basis | None = None
        self.teacher_features = 0
        targets = self._taught() if s.loss.distillation > 0.0 else None
        self.batches = PlaceBatches(self.traverses, self.photos, s, self.preprocessing, targets)
        self.skipped = {
            str(each.images.path): dict(each.skipped) for each in self.photos if each.skipped
        }
        for path, names in self.skipped.items():
            shown = ", ".join(list(names)[:8]) + (" ..." if len(names) > 8 else "")
            print(
                f"{path}: {len(names)} images cannot be decoded and are left out: {shown}",
                file=sys.stderr,
            )

    def _check_held_out(self) -> None:
        """Refuse development drives of which a frame is learnt from."""
        sets = [each for traverse in self.traverses for each in traverse.sets]
        sets += [each.images for each in self.photos]
        learnt = {each.path.resolve(): set[str]() for each in sets}
        for each in sets:
            learnt[each.path.resolve()].update(each.names)
        for _, drives in self.develop:
            for each in drives.sets:
                shared = learnt.get(each.path.resolve(), set()).intersection(each.names)
                if shared:
                    raise InputError(
                        "develop_is_learnt",
                        f"{each.path}: {len(shared)} frames of --develop are learnt from too, such "
                        f"as {min(shared)}; give parts that do not overlap, as DRIVE[FIRST:END]",
                    )

    def _taught(self) -> PlaceTargets:
        """The teacher's features of all data, in one basis of its tokens."""
        from spike_perception.training.places.sampling import PlaceTargets
        from spike_perception.training.teachers.features import cached_features
        from spike_perception.training.teachers.teacher import load_teacher

        chosen = self.config.settings.teacher
        if not chosen.name:
            raise InputError(
                "unknown_teacher",
                "loss.distillation needs a teacher: give --teacher, or set it to 0",
            )
        checkpoint = Path(chosen.checkpoint) if chosen.checkpoint else None
        teacher = load_teacher(chosen.name, checkpoint)
        self.teacher = {"name": teacher.name, "sha256": teacher.id}
        sets = [each.images for each in self.photos]
        sets += [each for traverse in self.traverses for each in traverse.sets]
        found: list[TeacherFeatures] = []
        for images in sets:
            features = cached_features(
                teacher, images, Path(chosen.cache), chosen.token_dimensions, basis=self.basis
            )
            self.basis = features.basis
            found.append(features)
        self.teacher_features = found[0].features.shape[1]
        photos = list(zip(found, (each.indices for each in self.photos), strict=False))
        rest = iter(found[len(photos) :])
        return PlaceTargets([[next(rest) for _ in each.sets] for each in self.traverses], photos)

    def objective(self) -> nn.Module:
        """The module to train, with the weights to start from."""
        import torch

        from spike_perception.training.places.objective import PlaceObjective

        s = self.config.settings
        torch.manual_seed(s.trainer.seed)
        found = PlaceObjective(
            self.student,
            s.dimension,
            s.loss,
            self.basis,
            self.teacher_features,
            self.student.grid,
        )
        if s.student.initial:
            _start_from(Path(s.student.initial), self.student)
        return found

    def identity(self) -> dict[str, Any]:
        """All that decides the weights besides the trainer's own settings."""
        document = self.config.document()
        document.pop("trainer")
        document.pop("name")
        for name in ("cache", "name"):
            document["teacher"].pop(name)
        ids = [*(each.id for each in self.traverses), *(each.images.id for each in self.photos)]
        return {**document, "teacher_id": (self.teacher or {}).get("sha256"), "data_ids": ids}

    def validate(self, objective: nn.Module) -> dict[str, float]:
        """Recall on the development drives, both forms."""
        from spike_perception.training.places.development import both_forms

        found: dict[str, float] = {}
        for name, drives in self.develop:
            judged = both_forms(self._describer(objective), *drives.frames)
            found |= {f"{name}.{key}": value for key, value in judged.items()}
        return found

    def _describer(self, objective: Any) -> Any:
        import torch

        from spike_perception.training.places.sampling import prepared

        device = next(objective.parameters()).device

        def describe(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
            parts = []
            with torch.no_grad():
                for start in range(0, len(frames), 128):
                    x = prepared(frames[start : start + 128], self.preprocessing).to(device)
                    parts.append(objective.projection(objective.student(x)).float().cpu().numpy())
            return np.concatenate(parts)

        return describe

    def finish(
        self, objective: PlaceObjective, out: Path, command: str, steps: int, speed: float
    ) -> dict[str, Any]:
        """Judge, and write bundle, configuration, metrics and card."""
        import torch

        from spike_perception.spiking.energy import energy_report
        from spike_perception.spiking.folding import fold_batch_norm
        from spike_perception.training import run_folder
        from spike_perception.training.places.card import card
        from spike_perception.training.places.sampling import prepared

        if self._half:  # before it is judged, so that the figures are those of the file
            for weight in objective.student.parameters():
                weight.copy_(weight.half().float())
        measured = self._judged(objective)
        sample = [each.frames.reshape(-1, *self.size)[:ENERGY_IMAGES] for each in self.traverses]
        if not sample:
            drawn = self.batches(0, 0, 1)["views"][:ENERGY_IMAGES]
        else:
            drawn = prepared(sample[0], self.preprocessing)
        energy = energy_report(fold_batch_norm(objective.student), drawn.contiguous(), 0)
        measured["energy_mj_estimated"] = energy.student_mj
        measured["energy_ratio_to_ann_twin_estimated"] = energy.ratio_to_ann_twin
        measured["mean_firing_rate"] = energy.mean_firing_rate
        metrics = [
            {"name": name, "value": value, "command": command[:2000]}
            for name, value in measured.items()
        ]
        bundle = self._bundle(objective, command, metrics)
        bundle.save(out / run_folder.BUNDLE)
        text = dump_yaml(self.config.document())
        document = {
            "run": self.config.settings.name,
            "encoder_id": bundle.encoder_id,
            "teacher": self.teacher,
            "data": self.described(),
            "skipped": self.skipped,
            "steps": steps,
            "places_per_second": speed,
            "threads": torch.get_num_threads(),
            "metrics": measured,
            "command": command,
        }
        run_folder.write_text(out / run_folder.CONFIG, text)
        run_folder.write_text(
            out / run_folder.METRICS, json.dumps(document, indent=2, allow_nan=False) + "\n"
        )
        run_folder.write_text(out / run_folder.CARD, card(bundle, document, energy, text))
        return document

    def _judged(self, objective: PlaceObjective) -> dict[str, float]:
        """Recall of what will run on robots, at both precisions."""
        import copy

        from spike_perception.deploy.network import deployed_form

        found: dict[str, float] = {}
        for precision in ("f32", "int8") if self.develop else ():
            form = copy.deepcopy(objective)
            form.student = deployed_form(objective.student, precision)
            for key, value in self.validate(form).items():
                drive, _, figure = key.partition(".")
                found[f"{drive}.{precision}.{figure}"] = value
        return found

    @property
    def _half(self) -> bool:
        return self.config.settings.student.storage == "float16"

    def described(self) -> list[str]:
        """The data in words."""
        found = [
            f"{' / '.join(_set_name(each.path) for each in traverse.sets)}, "
            f"{traverse.frames.shape[1]} places, {traverse.id[:16]}"
            for traverse in self.traverses
        ]
        return found + [
            f"{_set_name(each.images.path)}, {len(each.pixels)} photos, {each.images.id[:16]}"
            for each in self.photos
        ]

    def _bundle(
        self, objective: PlaceObjective, command: str, metrics: list[dict[str, Any]]
    ) -> Bundle:
        from spike_perception.deploy.bundle import Bundle
        from spike_perception.places.descriptors.spiking import OFFSET, PROJECTION
        from spike_perception.students.registry import student_config_to_json
        from spike_perception.training.card import version

        student: Student = objective.student
        c = student.config
        written = student_config_to_json(student)
        # Statistics of batch normalisation stay: variances can leave the range of float16.
        halved = {name for name, _ in student.named_parameters()} if self._half else set()
        tensors = {
            name: (each.half() if name in halved else each).detach().numpy()
            for name, each in student.state_dict().items()
        }
        projection, offset = objective.projection.folded()
        tensors |= {PROJECTION: projection.numpy(), OFFSET: offset.numpy()}
        return Bundle(
            "place",
            written["student"],
            written["config"],
            self.preprocessing,
            c.steps,
            c.levels if c.neuron == "ilif" else 1,
            student.feature_dim,
            {name: np.ascontiguousarray(each) for name, each in tensors.items()},
            {
                "command": command[:2000],
                "data": self.described()[:64],
                "seeds": [self.config.settings.trainer.seed],
                "version": version(),
                "teacher": self.teacher,
            },
            metrics[:256],
        )


def _set_name(path: Path) -> str:
    """A data set's name without the folders that it happens to lie in."""
    parts = path.parts
    inside = [k for k, part in enumerate(parts) if part.endswith(".zip")]
    return "/".join(parts[inside[0] :] if inside else parts[-2:])


def _name(drive: str) -> str:
    """What to call a development drive in metrics."""
    plain = drive.partition("[")[0]
    return _set_name(Path(plain)).replace(".zip", "").replace(".", "_")


def _start_from(path: Path, student: Student) -> None:
    """Take over the student's weights of a bundle or run folder.

    Raises:
        InputError: ``weights_do_not_fit``, and the reasons of the file.
    """
    import torch

    from spike_perception.deploy.bundle import Bundle
    from spike_perception.training.run_folder import RunFolder

    bundle = RunFolder(path).bundle() if path.is_dir() else Bundle.load(path)
    weights = {name: torch.from_numpy(each.copy()) for name, each in bundle.student_tensors.items()}
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            "weights_do_not_fit",
            f"{path} holds weights of another student: {str(error).splitlines()[-1].strip()}",
        ) from error
