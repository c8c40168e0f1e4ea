# SPDX-License-Identifier: Apache-2.0
"""A bundle made ready to run: sensor data in, spike counts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spike_perception.deploy.bundle import Bundle
from spike_perception.deploy.engines import Engine, choose_engine, installed, make_engine
from spike_perception.deploy.grouping import group_clouds
from spike_perception.deploy.network_cache import Graph, default_folder, kept_graph
from spike_perception.deploy.preprocessing import prepare_image, prepare_points
from spike_perception.errors import InputError
from spike_perception.sensing.image import RgbImage

if TYPE_CHECKING:
    from torch import Tensor, nn

Features = NDArray[np.float32]
State = tuple[NDArray[np.float32], ...]

#: Largest batch of one call: bounds the memory that a caller's mistake can take.
MAX_BATCH = 256
#: Most values of one prepared sample, and of a cloud's table of distances (groups x points): what a
#: bundle from outside may make this software allocate.
MAX_VALUES = 1 << 24


class _Network:
    """What both forms of a runtime have in common.

    Attributes:
        bundle: what runs.
        engine: ``openvino``, ``onnxruntime`` or ``torch``.
        precision: ``f32``, ``bf16`` or ``int8``.
        sample_shape: one prepared sample, without the batch.
    """

    _form: str

    def __init__(
        self, bundle: Bundle, engine: str, precision: str, threads: int, cache: Path | None
    ) -> None:
        if not 1 <= threads <= 1024:
            raise InputError("invalid_option", f"threads is {threads}; allowed are 1 to 1024")
        self.bundle = bundle
        self.precision = _precision(bundle, precision)
        self.engine = choose_engine(engine, self.precision)
        self.sample_shape = sample_shape(bundle)
        self._start: State = ()
        self._engine = self._make(threads, cache)

    @property
    def encoder_id(self) -> str:
        """The bundle's hash, which vocabulary packs and place maps name."""
        return self.bundle.encoder_id

    @property
    def feature_dim(self) -> int:
        """C, the length of a feature."""
        return self.bundle.embedding_dim

    def _make(self, threads: int, cache: Path | None) -> Engine:
        graph_precision = "int8" if self.precision == "int8" else "f32"

        def graph() -> Graph:
            return kept_graph(cache, self.encoder_id, graph_precision, self._form, self._export)

        def onnx() -> bytes:
            found = graph()
            self._start = found.state
            return found.onnx

        return make_engine(self.engine, self.precision, threads, onnx, self._module)

    def _student(self) -> Any:
        if not installed("torch"):
            raise InputError(
                "engine_missing",
                "this bundle's network was not exported on this machine yet, and exporting needs "
                "torch: install torch, or copy the cache of a machine that has it "
                f"({default_folder()})",
            )
        from spike_perception.deploy.network import deployed_form, student_of

        return deployed_form(student_of(self.bundle), self.precision)

    def _sample(self) -> Tensor:
        import torch

        return torch.zeros(1, *self.sample_shape)

    def _export(self) -> Graph:
        student = self._student()
        from spike_perception.deploy.network import export

        return export(student, self._sample(), self._form == "step")

    def _module(self) -> nn.Module:
        student = self._student()
        from spike_perception.deploy.network import Step, Whole

        if self._form == "step":
            self._start = tuple(each.numpy() for each in student.initial_state(self._sample()))
        return Step(student) if self._form == "step" else Whole(student)

    def _checked(self, batch: NDArray[Any]) -> Features:
        batch = np.asarray(batch)
        if batch.shape[1:] != self.sample_shape or not 1 <= len(batch) <= MAX_BATCH:
            raise InputError(
                "wrong_input",
                f"a batch has shape [1 to {MAX_BATCH}, {', '.join(map(str, self.sample_shape))}]; "
                f"this one has {list(batch.shape)}",
            )
        if batch.dtype.kind not in "fiu":
            raise InputError("wrong_input", f"a batch holds float32 values, not {batch.dtype}")
        batch = np.ascontiguousarray(batch, np.float32)
        if not np.isfinite(batch).all():
            raise InputError("not_finite", "the batch holds NaN or infinite values")
        return batch

    def prepare_images(self, images: Sequence[RgbImage]) -> Features:
        """Network input [B, 3, H, W] of images.

        Args:
            images: uint8 [H, W, 3] each, RGB, of any size.

        Raises:
            InputError: ``wrong_kind`` for a bundle of points, and as ``prepare_image``.
        """
        if self.bundle.kind not in ("image", "place"):
            raise InputError(
                "wrong_kind", f"this bundle takes {self.bundle.kind}, it was given images"
            )
        if not images:
            raise InputError("wrong_input", "no image was given")
        return np.stack([prepare_image(each, self.bundle.preprocessing) for each in images])

    def prepare_points(self, clouds: Sequence[NDArray[Any]]) -> Features:
        """Network input of clouds of points or windows of events, grouped where it has to be.

        Args:
            clouds: [N, 3 + F] each, N free.

        Raises:
            InputError: ``wrong_kind`` for a bundle of images, and as ``prepare_points``.
        """
        if self.bundle.kind not in ("points", "events"):
            raise InputError(
                "wrong_kind", f"this bundle takes {self.bundle.kind}, it was given points"
            )
        if not clouds:
            raise InputError("wrong_input", "no cloud was given")
        batch = np.stack([prepare_points(each, self.bundle.preprocessing) for each in clouds])
        if self.bundle.student != "pointformer":
            return batch
        config = self.bundle.student_config
        groups, neighbours = config["groups"], config["neighbours"]
        distinct = [min(len(each), batch.shape[1]) for each in clouds]
        return group_clouds(batch, groups, neighbours, distinct)


class Runtime(_Network):
    """All T steps of a student; one call is one answer and leaves nothing behind.

    Calls from several threads are safe and wait for one another.
    """

    _form = "whole"

    def infer(self, batch: NDArray[Any]) -> Features:
        """Spike counts of the last layer, summed over the T steps.

        Args:
            batch: prepared input, float32 [B, ...], the same in every step.

        Returns:
            float32 [B, C], integers.

        Raises:
            InputError: ``wrong_input`` or ``not_finite``.
        """
        return self._engine.run([self._checked(batch)])[0]

    def warm_up(self, batch: int = 2) -> None:
        """Make ready for batches other than one too, which takes some tenths of a second.

        Without it the first such batch waits for that.
        """
        self.infer(np.zeros((batch, *self.sample_shape), np.float32))


class StreamingRuntime(_Network):
    """One time step at a time, for students with T > 1: the state is the caller's.

    Over T steps the counts add up to what :class:`Runtime` returns.
    """

    _form = "step"

    def initial_state(self, batch: int = 1) -> State:
        """Membrane potentials at rest, one array [B, ...] per neuron layer that has a memory."""
        return tuple(np.repeat(each, batch, axis=0) for each in self._start)

    def step(self, x: NDArray[Any], state: State) -> tuple[Features, State]:
        """One step.

        Args:
            x: prepared input of this step, float32 [B, ...].
            state: what the step before returned, or :meth:`initial_state`.

        Returns:
            Spike counts of this step, float32 [B, C], and the state for the next.

        Raises:
            InputError: ``wrong_input``, ``not_finite`` or ``wrong_state``.
        """
        x = self._checked(x)
        wanted = [(len(x), *each.shape[1:]) for each in self._start]
        if [each.shape for each in state] != wanted:
            raise InputError(
                "wrong_state",
                f"the state has shapes {[list(each.shape) for each in state]}, expected are "
                f"{[list(each) for each in wanted]}; pass what the step before returned",
            )
        counts, *after = self._engine.run([x, *state])
        return counts, tuple(after)


def load_runtime(
    bundle: Bundle | Path | str,
    engine: str = "auto",
    precision: str = "auto",
    threads: int = 2,
    cache: Path | str | None = "auto",
) -> Runtime:
    """Make a bundle ready to run.

    Args:
        bundle: a bundle or its file.
        engine: ``openvino``, ``onnxruntime``, ``torch``; ``auto`` takes the first one installed.
        precision: ``f32``, ``bf16`` or ``int8`` (see ``network``); ``auto`` takes the value that
            the bundle's preprocessing gives under ``precision``, and ``f32`` if there is none: the
            only form that is the trained network to the last spike. Since preprocessing is
            part of the encoder's hash, features of two precisions cannot be mixed up that way.
        threads: threads of one inference (torch keeps its own setting).
        cache: folder for exported graphs, ``auto`` for the user's, None for none.

    Raises:
        InputError: what ``Bundle.load``, ``choose_engine`` and ``student_of`` raise.
    """
    return Runtime(*_arguments(bundle, engine, precision, threads, cache))


def load_stream(
    bundle: Bundle | Path | str,
    engine: str = "auto",
    precision: str = "auto",
    threads: int = 2,
    cache: Path | str | None = "auto",
) -> StreamingRuntime:
    """Make a bundle ready to run step by step; arguments as for :func:`load_runtime`."""
    return StreamingRuntime(*_arguments(bundle, engine, precision, threads, cache))


def _arguments(
    bundle: Bundle | Path | str, engine: str, precision: str, threads: int, cache: Path | str | None
) -> tuple[Bundle, str, str, int, Path | None]:
    if not isinstance(bundle, Bundle):
        bundle = Bundle.load(Path(bundle))
    folder = default_folder() if cache == "auto" else None if cache is None else Path(cache)
    return bundle, engine, precision, threads, folder


def _precision(bundle: Bundle, precision: str) -> str:
    if precision != "auto":
        return precision
    return str(bundle.preprocessing.get("precision", "f32"))


def sample_shape(bundle: Bundle) -> tuple[int, ...]:
    """Shape of one prepared sample of a bundle.

    Raises:
        InputError: ``bad_metadata`` if preprocessing and student contradict each other, or if the
            sample would be larger than ``MAX_VALUES``.
    """
    given = bundle.preprocessing
    if bundle.kind in ("image", "place"):
        shape: tuple[int, ...] = (3, *map(int, given["input_size"]))
        largest = math.prod(shape)
    else:
        width, points = len(given["channels"]), int(given["points"])
        features = _setting(bundle, "point_features")
        if 3 + features != width:
            raise InputError(
                "bad_metadata",
                f"the bundle's points have {width} channels, its student takes {3 + features}",
            )
        shape, largest = (points, width), points * width
        if bundle.student == "pointformer":
            groups = _setting(bundle, "groups")
            shape = (groups, _setting(bundle, "neighbours"), width + 3)
            largest = max(math.prod(shape), groups * points)
    if largest > MAX_VALUES:
        raise InputError(
            "bad_metadata",
            f"the bundle asks for samples of shape {list(shape)} with {largest:,} values; at most "
            f"{MAX_VALUES:,} are allowed",
        )
    return shape


def _setting(bundle: Bundle, name: str) -> int:
    value = bundle.student_config.get(name)
    if type(value) is not int or value < 0:
        raise InputError(
            "bad_metadata",
            f"student {bundle.student!r} states {name} as {value!r}; it is a whole number",
        )
    return value
