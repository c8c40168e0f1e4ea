# SPDX-License-Identifier: Apache-2.0
"""The training loop: resumable at any step, on one process or several, logged to TensorBoard.

What a step computes depends on the state (weights, moments, averages) and on the step's number
alone: order, augmentation and prompt dropout are functions of seed and step (see ``chance``), and
so is the learning rate. A checkpoint therefore holds the state and the number, and a run that was
killed and resumed ends in the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from spike_perception.config import to_flat
from spike_perception.errors import InputError
from spike_perception.identity import canonical_json
from spike_perception.training.chance import key
from spike_perception.training.config import (
    WITHOUT_EFFECT,
    OptimiserConfig,
    ScheduleConfig,
    TrainerConfig,
)
from spike_perception.training.stopped import Stopped

CHECKPOINT = "checkpoint.pt"
LOGS = "log"
_VERSION = 1
Batch = dict[str, Tensor]
Validate = Callable[[nn.Module], Mapping[str, float]]


class Batches(Protocol):
    """The data: a pure function of the step."""

    def __call__(self, step: int, rank: int, world: int) -> Batch:
        """This process's part of a step's batch, tensors by name."""


class Objective(Protocol):
    """What is trained: a module that holds student and losses, all of it checkpointed."""

    def __call__(
        self, batch: Batch, progress: float, seed: int, detail: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What to minimise, and scalars for the log by name.

        Args:
            batch: tensors by name.
            progress: share of the training that is done, 0..1.
            seed: of whatever chance this step needs.
            detail: True if scalars that cost time are wanted too.
        """


@dataclass(frozen=True)
class Trained:
    """Result of a training.

    Attributes:
        objective: the trained module, in evaluation mode; the averaged one if weights are averaged.
        steps: steps in all.
        seconds: time that this process trained, without validation.
        samples_per_second: of this process's share of the steps, over all processes.
        metrics: of the last validation.
        is_first: True in the one process that writes results.
    """

    objective: nn.Module
    steps: int
    seconds: float
    samples_per_second: float
    metrics: dict[str, float]
    is_first: bool


def learning_rate(progress: float, peak: float, schedule: ScheduleConfig) -> float:
    """Learning rate at a share of the training, 0..1."""
    rise = schedule.warm_up
    if progress < rise:
        part = progress / rise
        if schedule.kind == "one_cycle":
            part = 0.5 - 0.5 * math.cos(math.pi * part)
        # From a hundredth, so that the first step already moves.
        return peak * (0.01 + 0.99 * part)
    if schedule.kind == "constant":
        return peak
    fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - rise) / (1.0 - rise)))
    return peak * (schedule.final + (1.0 - schedule.final) * fall)


def make_optimiser(module: nn.Module, config: OptimiserConfig, *, fused: bool = True) -> Optimizer:
    """AdamW; parameters with one axis or none do not decay."""
    trained = [each for each in module.parameters() if each.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=fused,
    )


def fit(
    objective: nn.Module,
    batches: Batches,
    steps: int,
    folder: Path,
    config: TrainerConfig,
    *,
    identity: Mapping[str, Any] | None = None,
    validate: Validate | None = None,
) -> Trained:
    """Train, or go on with what the folder's checkpoint holds.

    Under torchrun every process calls this with the same arguments; the first one writes.

    Args:
        objective: see :class:`Objective`; called in training mode.
        batches: the data.
        steps: steps in all.
        folder: for ``checkpoint.pt`` and TensorBoard's ``log``; made if missing.
        config: settings of the loop.
        identity: JSON of all that decides the result besides ``config`` and ``steps`` (data,
            losses, student); a checkpoint of another identity is refused.
        validate: metrics of the objective in evaluation mode, called in the first process.

    Raises:
        InputError: ``invalid_setting`` for a batch that the processes cannot share,
            ``other_run`` for a checkpoint of other settings, ``bad_checkpoint``, ``diverged`` once
            the loss is not finite.
        Stopped: after SIGTERM or SIGINT, once the checkpoint is written.
    """
    from lightning_fabric import Fabric

    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if config.batch % world:
        raise InputError(
            "invalid_setting",
            f"trainer.batch {config.batch} is no multiple of the {world} processes",
        )
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        num_nodes=max(1, world // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))),
        strategy="auto" if world == 1 else "ddp",
        precision=cast(Any, config.precision),
    )
    if world > 1:
        fabric.launch()
    if fabric.device.type == "cuda":
        # What is not deterministic there is only warned of: a resumed run may then differ.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    loop = _Loop(fabric, objective, batches, steps, folder, config, identity or {}, validate)
    return loop.run()


class _Loop:
    """State of one call of :func:`fit`."""

    def __init__(
        self,
        fabric: Any,
        objective: nn.Module,
        batches: Batches,
        steps: int,
        folder: Path,
        config: TrainerConfig,
        identity: Mapping[str, Any],
        validate: Validate | None,
    ) -> None:
        self.fabric, self.batches, self.steps = fabric, batches, steps
        self.folder, self.config, self.validate = folder, config, validate
        settings = {k: v for k, v in to_flat(config).items() if k not in WITHOUT_EFFECT}
        # Processes draw from seeds of their own, so their number counts as well.
        world = {"processes": fabric.world_size} if fabric.world_size > 1 else {}
        self.identity = json.loads(
            canonical_json({"steps": steps, "trainer": settings, **world, **identity})
        )
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.plain = objective.train().to(fabric.device)
        # Convolutions run faster so, and rows of pixels arrive in this order anyway.
        torch.nn.Module.to(cast(Any, self.plain), memory_format=torch.channels_last)
        self.average: AveragedModel | None = None
        if config.average > 0.0:
            rule = get_ema_multi_avg_fn(config.average)
            self.average = AveragedModel(self.plain, multi_avg_fn=rule, use_buffers=True)
        # A fused step unscales float16's gradients itself, too late to clip them.
        fused = config.precision != "16-mixed"
        optimiser = make_optimiser(self.plain, config.optimiser, fused=fused)
        self.objective, self.optimiser = fabric.setup(self.plain, optimiser)
        if fabric.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / CHECKPOINT
        if self.file.exists():
            self._restore()

    def run(self) -> Trained:
        """All steps that are left."""
        started, first = time.perf_counter(), self.step
        paused = 0.0
        with _signals() as caught, self._writer() as log, self._prefetched() as take:
            bar = tqdm(
                total=self.steps,
                initial=self.step,
                desc="train",
                unit="step",
                disable=None if self.fabric.is_global_zero else True,
            )
            with bar:
                while self.step < self.steps:
                    self._train_step(take(self.step), log, bar)
                    number = self._agreed(caught)
                    due = self.config.checkpoint_every
                    if number or (due and self.step % due == 0) or self.step == self.steps:
                        self._save()
                    if number and self.step < self.steps:
                        raise Stopped(number, self.step)
                    every = self.config.validate_every
                    if every and self.step % every == 0 and self.step < self.steps:
                        paused += self._validate(log)
            seconds = time.perf_counter() - started - paused
            self._validate(log)
        done = (self.step - first) * self.config.batch
        return Trained(
            self._result().eval(),
            self.steps,
            seconds,
            done / seconds if done else 0.0,
            self.metrics,
            bool(self.fabric.is_global_zero),
        )

    def _train_step(self, batch: Batch, log: Any, bar: Any) -> None:
        progress = self.step / self.steps
        rate = learning_rate(progress, self.config.optimiser.learning_rate, self.config.schedule)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.step += 1
        shown = self.step % self.config.log_every == 0 or self.step == self.steps
        seed = key(self.config.seed, self.step, self.fabric.global_rank)
        torch.manual_seed(seed)  # for layers that draw, such as dropout
        total, scalars = self.objective(batch, progress, seed, shown)
        self.optimiser.zero_grad()
        self.fabric.backward(total)
        if self.config.optimiser.clip:
            norm = self.fabric.clip_gradients(
                self.objective,
                self.optimiser,
                max_norm=self.config.optimiser.clip,
                error_if_nonfinite=False,
            )
            scalars = {**scalars, "train/gradient_norm": norm}
        if shown:
            loss = float(total.detach())
            if not math.isfinite(loss):
                raise InputError(
                    "diverged",
                    f"the loss is {loss} at step {self.step}; lower trainer.optimiser."
                    "learning_rate, or use precision 32-true",
                )
            self._log(log, {"loss/total": loss, "train/learning_rate": rate, **scalars})
            bar.set_postfix(loss=f"{loss:.4f}", lr=f"{rate:.2g}", refresh=False)
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.plain)
        bar.update()

    def _result(self) -> nn.Module:
        return self.plain if self.average is None else self.average.module

    def _validate(self, log: Any) -> float:
        """Validate in the first process; returns the seconds it took."""
        started = time.perf_counter()
        if self.validate is not None and self.fabric.is_global_zero:
            module = self._result()
            modes = {each: each.training for each in module.modules()}
            with torch.no_grad():
                self.metrics = {k: float(v) for k, v in self.validate(module.eval()).items()}
            for each, mode in modes.items():
                each.training = mode
            self._log(log, {f"validation/{k}": v for k, v in self.metrics.items()})
        self.fabric.barrier()
        return time.perf_counter() - started

    def _log(self, log: Any, scalars: Mapping[str, Tensor | float]) -> None:
        if log is not None:
            for name, value in scalars.items():
                log.add_scalar(name, float(value), self.step)

    @contextlib.contextmanager
    def _writer(self) -> Iterator[Any]:
        if not self.fabric.is_global_zero:
            yield None
            return
        from torch.utils.tensorboard import SummaryWriter

        # Entries after the checkpoint belong to steps that are computed again.
        log = SummaryWriter(str(self.folder / LOGS), purge_step=self.step + 1)
        try:
            yield log
        finally:
            log.close()

    @contextlib.contextmanager
    def _prefetched(self) -> Iterator[Callable[[int], Batch]]:
        """Batches for this process; made ahead where the device is not the processor itself."""
        rank, world = self.fabric.global_rank, self.fabric.world_size

        def make(step: int) -> Batch:
            return self.batches(step, rank, world)

        def moved(batch: Batch) -> Batch:
            return {k: v.to(self.fabric.device, non_blocking=True) for k, v in batch.items()}

        if self.fabric.device.type == "cpu":
            yield make
            return
        with ThreadPoolExecutor(1) as pool:
            ahead: dict[int, Future[Batch]] = {}

            def take(step: int) -> Batch:
                found = ahead.pop(step, None)
                batch = make(step) if found is None else found.result()
                if step + 1 < self.steps:
                    ahead[step + 1] = pool.submit(make, step + 1)
                return moved(batch)

            yield take

    def _agreed(self, caught: list[int]) -> int:
        """The signal that any process caught, or 0: all must stop after the same step."""
        mine = caught[0] if caught else 0
        if self.fabric.world_size == 1:
            return mine
        return int(self.fabric.all_reduce(torch.tensor(float(mine)), reduce_op="max"))

    def _save(self) -> None:
        """Write the checkpoint whole or not at all."""
        if self.fabric.is_global_zero:
            state = {
                "version": _VERSION,
                "identity": canonical_json(self.identity),
                "step": self.step,
                "objective": self.plain.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                # Of float16: the scale of the loss, which follows what happened before.
                "precision": self.fabric.strategy.precision.state_dict(),
            }
            beside = self.file.with_name(f".{self.file.name}.tmp")
            try:
                with beside.open("wb") as stream:
                    torch.save(state, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                beside.replace(self.file)
            except OSError as error:
                raise InputError(
                    "cannot_write", f"{self.file}: cannot be written: {error.strerror}"
                ) from error
        self.fabric.barrier()

    def _restore(self) -> None:
        state = read_checkpoint(self.file)
        found = json.loads(state["identity"])
        if found != self.identity:
            raise InputError(
                "other_run",
                f"{self.file} is of another run ({_difference(found, self.identity)}); give "
                "another output folder, or begin anew with --fresh",
            )
        self.step = state["step"]
        self.plain.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.fabric.strategy.precision.load_state_dict(state.get("precision", {}))


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A checkpoint's state on the CPU; no code from the file is run.

    Raises:
        InputError: ``bad_checkpoint``.
    """
    import pickle

    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = str(error).split("\n")[0][:200]
        raise InputError("bad_checkpoint", f"{file} cannot be read: {reason}") from error
    if not isinstance(state, dict) or state.get("version") != _VERSION:
        raise InputError("bad_checkpoint", f"{file} is no checkpoint of this release")
    return state


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying; a second one is handled as before."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, before[number])

    number: int
    for number in (signal.SIGTERM, signal.SIGINT):
        # Only the main thread of a process may set handlers.
        with contextlib.suppress(ValueError):
            before[number] = signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _difference(found: Any, wanted: Any, path: str = "") -> str:
    """The first setting in which two identities differ, in words."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted({*found, *wanted}):
            if found.get(name) != wanted.get(name):
                inner = f"{path}.{name}" if path else name
                return _difference(found.get(name), wanted.get(name), inner)
    return f"{path} was {str(found)[:80]}, now is {str(wanted)[:80]}"
