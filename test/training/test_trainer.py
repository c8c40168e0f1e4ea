# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from spike_perception.config import replace
from spike_perception.errors import InputError
from spike_perception.training import trainer
from spike_perception.training.config import ScheduleConfig, TrainerConfig
from spike_perception.training.trainer import fit, learning_rate, make_optimiser, read_checkpoint

pytest.importorskip("lightning_fabric")
SCRIPT = Path(__file__).with_name("run_tiny.py")
CONFIG = replace(TrainerConfig(), {"accelerator": "cpu", "threads": 1, "batch": 4, "log_every": 1})


def start(folder, *, precision="32-true", average=0.0, kill_at=-1, number=0, launcher=()):
    command = [*launcher, str(SCRIPT), str(folder), precision, str(average), str(kill_at)]
    done = subprocess.run(
        [sys.executable, *command, str(int(number))],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    return done.returncode, done.stderr


def weights(folder):
    return torch.load(folder / "weights.pt", weights_only=True)


def same(one, other):
    assert set(one) == set(other)
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("precision", "average"),
    [("32-true", 0.9), pytest.param("bf16-mixed", 0.0, marks=pytest.mark.slow)],
)
def test_killed_and_resumed_is_bit_identical_to_uninterrupted(tmp_path, precision, average):
    kind = {"precision": precision, "average": average}
    assert start(tmp_path / "whole", **kind)[0] == 0
    # Killed while step 6 is prepared: steps 4 and 5 came after the last checkpoint.
    code, _ = start(tmp_path / "killed", kill_at=5, number=signal.SIGKILL, **kind)
    assert code == -signal.SIGKILL
    assert read_checkpoint(tmp_path / "killed" / trainer.CHECKPOINT)["step"] == 3
    assert not (tmp_path / "killed" / "weights.pt").exists()
    assert start(tmp_path / "killed", **kind)[0] == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_a_signal_writes_the_checkpoint_of_the_step_just_done(tmp_path):
    code, text = start(tmp_path / "run", kill_at=4, number=signal.SIGTERM)
    assert code == 1 and "stopped by SIGTERM after step 5" in text
    assert read_checkpoint(tmp_path / "run" / trainer.CHECKPOINT)["step"] == 5


@pytest.mark.slow
def test_two_processes_train_one_model_and_resume_alike(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    assert start(tmp_path / "whole", launcher=launcher)[0] == 0
    code, _ = start(tmp_path / "killed", kill_at=5, number=signal.SIGKILL, launcher=launcher)
    assert code != 0
    assert start(tmp_path / "killed", launcher=launcher)[0] == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


class Line(nn.Module):
    """Fits a line; its second parameter has one axis."""

    def __init__(self, broken=False):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.broken = broken
        nn.init.zeros_(self.layer.weight)

    def forward(self, batch, progress, seed, detail):
        loss = (self.layer(batch["x"]) - batch["y"]).square().mean()
        return loss * (float("nan") if self.broken else 1.0), {"loss/squares": loss.detach()}


def line(step, rank, world):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x.sum(1, keepdim=True) + 1.0}


def test_it_learns_validates_and_logs(tmp_path):
    config = replace(CONFIG, {"optimiser.learning_rate": 0.1, "validate_every": 50})
    seen = []

    def validate(module):
        assert not module.training and not torch.is_grad_enabled()
        seen.append(float(module.layer.bias))
        return {"bias": seen[-1]}

    done = fit(Line(), line, 120, tmp_path, config, validate=validate)
    assert done.metrics["bias"] == pytest.approx(1.0, abs=0.05) and len(seen) == 3
    assert done.samples_per_second > 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(tmp_path / trainer.LOGS)).Reload()
    names = {"loss/total", "loss/squares", "train/learning_rate", "train/gradient_norm"}
    assert names | {"validation/bias"} == set(log.Tags()["scalars"])
    assert len(log.Scalars("loss/total")) == 120
    assert [each.step for each in log.Scalars("validation/bias")] == [50, 100, 120]
    # What is finished is not trained again, but validated.
    again = fit(Line(), line, 120, tmp_path, config, validate=validate)
    assert same(again.objective.state_dict(), done.objective.state_dict()) and len(seen) == 4


def test_a_checkpoint_of_other_settings_is_refused_and_the_difference_named(tmp_path):
    fit(Line(), line, 2, tmp_path, CONFIG, identity={"data": ["a"]})
    other = replace(CONFIG, {"optimiser.learning_rate": 0.5})
    for config, steps, data, named in (
        (other, 2, "a", "trainer.optimiser.learning_rate was 0.001, now is 0.5"),
        (CONFIG, 3, "a", "steps was 2, now is 3"),
        (CONFIG, 2, "b", "data was"),
    ):
        with pytest.raises(InputError, match=named) as caught:
            fit(Line(), line, steps, tmp_path, config, identity={"data": [data]})
        assert caught.value.reason == "other_run"
    fit(Line(), line, 2, tmp_path, replace(CONFIG, {"log_every": 7}), identity={"data": ["a"]})


def test_damaged_checkpoints_and_pickles_are_refused(tmp_path):
    file = tmp_path / trainer.CHECKPOINT
    for content in (b"", b"not a checkpoint"):
        file.write_bytes(content)
        with pytest.raises(InputError) as caught:
            fit(Line(), line, 2, tmp_path, CONFIG)
        assert caught.value.reason == "bad_checkpoint"
    torch.save({"version": 1, "code": Path("x")}, file)
    with pytest.raises(InputError) as caught:
        read_checkpoint(file)
    assert caught.value.reason == "bad_checkpoint"


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    with pytest.raises(InputError, match="lower") as caught:
        fit(Line(broken=True), line, 3, tmp_path, CONFIG)
    assert caught.value.reason == "diverged"


def test_learning_rates():
    cosine = ScheduleConfig(kind="cosine", warm_up=0.1, final=0.01)
    assert learning_rate(0.0, 2.0, cosine) == pytest.approx(0.02)
    assert learning_rate(0.1, 2.0, cosine) == pytest.approx(2.0)
    assert learning_rate(0.55, 2.0, cosine) == pytest.approx(1.01)
    assert learning_rate(1.0, 2.0, cosine) == pytest.approx(0.02)
    constant = ScheduleConfig(kind="constant", warm_up=0.0)
    assert {learning_rate(p, 1.0, constant) for p in (0.0, 0.5, 1.0)} == {1.0}
    cycle = ScheduleConfig(kind="one_cycle", warm_up=0.5)
    assert learning_rate(0.25, 1.0, cycle) == pytest.approx(0.505)
    rates = [learning_rate(p / 100, 1.0, cycle) for p in range(101)]
    assert rates[:51] == sorted(rates[:51]) and rates[50:] == sorted(rates[50:], reverse=True)


def test_one_axis_parameters_do_not_decay():
    groups = make_optimiser(Line(), CONFIG.optimiser).param_groups
    assert [(g["weight_decay"], [p.ndim for p in g["params"]]) for g in groups] == [
        (0.05, [2]),
        (0.0, [1]),
    ]


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="multiple of the 3 processes"):
        fit(Line(), line, 2, tmp_path, CONFIG)


class Half(nn.Module):
    """Gradients that float16 cannot hold at the scale that training starts with."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, batch, progress, seed, detail):
        return (self.layer(batch["x"]).float() - batch["y"]).square().mean(), {}


def test_a_resumed_run_in_float16_keeps_the_scale_of_its_loss(tmp_path, monkeypatch):
    import lightning_fabric
    from lightning_fabric.plugins.precision import MixedPrecision

    original = lightning_fabric.Fabric

    def on_cpu(**settings):  # where Fabric itself would take bfloat16
        del settings["precision"]
        return original(**settings, plugins=[MixedPrecision("16-mixed", "cpu")])

    monkeypatch.setattr(lightning_fabric, "Fabric", on_cpu)
    config = replace(CONFIG, {"precision": "16-mixed", "checkpoint_every": 1})
    stop = trainer.InputError("enough", "")

    def killed(step, rank, world):
        if step == 4:
            raise stop
        return line(step, rank, world)

    with pytest.raises(InputError):
        fit(Half(), killed, 8, tmp_path / "killed", config)
    state = read_checkpoint(tmp_path / "killed" / trainer.CHECKPOINT)
    assert state["precision"]["scale"] < 2.0**16  # the first steps overflowed
    resumed = fit(Half(), line, 8, tmp_path / "killed", config).objective
    whole = fit(Half(), line, 8, tmp_path / "whole", config).objective
    assert same(whole.state_dict(), resumed.state_dict())
    saved = [read_checkpoint(tmp_path / each / trainer.CHECKPOINT) for each in ("whole", "killed")]
    assert saved[0]["precision"] == saved[1]["precision"]
