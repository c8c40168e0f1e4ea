# SPDX-License-Identifier: Apache-2.0
"""SVS, second half: warm-started temporal consistency of membrane potentials and spike rates.

VL2Spike's abstract names the term and no formula; this is our reading, close to membrane potential
smoothing (Ding et al., arXiv 2502.14218). "Warm-started" can mean two things, and both exist: W1,
the weight's schedule, is :func:`consistency_weight`; W2, a learnable initial potential
V[0] = kappa_c V_th, is ``spiking.neurons.Neuron.kappa``, switched on by the student's setting
``learn_initial``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spike_perception.errors import InputError
from spike_perception.training.vl2spike.config import TemporalConfig
from spike_perception.training.vl2spike.vectors import require_shape

_EPSILON = 1e-5


def consistency_weight(progress: float, config: TemporalConfig) -> float:
    """W1: lam_tc(e) = lam_tc (1 - cos(pi min(1, max(0, e - e_0) / e_w))) / 2 (our reading).

    Dynamics are not constrained before there are features.

    Args:
        progress: e, the share of the training that is done, 0..1.
        config: lam_tc (``weight``), e_0 (``start``), e_w (``width``; 0 makes a step at e_0), and
            ``warm_start``, without which the weight is constant.

    Raises:
        InputError: ``wrong_progress``.
    """
    if not 0.0 <= progress <= 1.0:
        raise InputError(
            "wrong_progress", f"progress is {progress}; give the share of the training, 0 to 1"
        )
    if not config.warm_start:
        return config.weight
    if config.width == 0.0:
        return config.weight if progress >= config.start else 0.0
    risen = min(1.0, max(0.0, progress - config.start) / config.width)
    return config.weight * 0.5 * (1.0 - math.cos(math.pi * risen))


def membrane_consistency(potential: Tensor, axis: int = -1, decay: float = 0.5) -> Tensor:
    """L_mem of one layer: potentials follow the moving average of the steps before (our reading).

    Mean over t = 2..T of ``(N(H_t) - sg N(M_{t-1}))^2`` with ``M_t = decay M_{t-1} + (1 - decay)
    H_t``, ``M_1 = H_1``; N standardises each channel over the batch, sg stops the gradient.

    Args:
        potential: membrane potentials before the spike, [T, B, ...].
        axis: axis of the channels in one step [B, ...], as in ``Neuron.axis``.
        decay: share of the old value in the moving average.

    Returns:
        A scalar; 0 for one time step.

    Raises:
        InputError: ``wrong_shape``.
    """
    _require_steps("membrane potential", potential)
    steps = len(potential)
    if steps == 1:
        return potential.new_zeros(())
    total = potential.new_zeros(())
    average = potential[0].detach()
    for step in potential[1:]:
        total = total + (_standardised(step, axis) - _standardised(average, axis)).square().mean()
        average = decay * average + (1.0 - decay) * step.detach()
    return total / (steps - 1)


def rate_consistency(spikes: Tensor, levels: int = 1, substeps: bool = True) -> Tensor:
    """L_rate of one layer: early running rates foresee the final one (our reading).

    Mean over t < T of ``(rho_t - sg rho_T)^2``, ``rho_t`` the mean of the first t steps' spikes
    divided by the levels D.

    With one step, an integer s is taken as its D binary sub-steps in thermometer order, whose
    running rate is ``min(s, d) / d``. That order puts all spikes first, so the term is zero for
    s = 0 and s = D only and otherwise weighs on s: it makes spikes rarer.

    Args:
        spikes: integers 0..D, [T, B, ...].
        levels: D.
        substeps: with one step, True for the sub-steps, False for zero.

    Returns:
        A scalar; 0 for one step of binary spikes.

    Raises:
        InputError: ``wrong_shape``.
    """
    _require_steps("spikes", spikes)
    steps = len(spikes)
    if steps > 1:
        time = torch.arange(1, steps + 1, device=spikes.device, dtype=spikes.dtype)
        running = (spikes / levels).cumsum(0) / time.reshape(-1, *[1] * (spikes.ndim - 1))
        return (running[:-1] - running[-1].detach()).square().mean()
    if levels == 1 or not substeps:
        return spikes.new_zeros(())
    final = spikes.detach() / levels
    gaps = [(spikes.clamp_max(d) / d - final).square().mean() for d in range(1, levels)]
    return torch.stack(gaps).mean()


def _require_steps(name: str, tensor: Tensor) -> None:
    if tensor.ndim < 3 or tensor.numel() == 0:
        raise InputError(
            "wrong_shape",
            f"{name} has shape {list(tensor.shape)}, expected [T, B, ..., channels], not empty",
        )
    require_shape(name, tensor, *(None,) * tensor.ndim)


def _standardised(step: Tensor, axis: int) -> Tensor:
    others = [each for each in range(step.ndim) if each != axis % step.ndim]
    variance, mean = torch.var_mean(step, others, correction=0, keepdim=True)
    return (step - mean) * torch.rsqrt(variance + _EPSILON)
