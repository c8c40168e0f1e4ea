# SPDX-License-Identifier: Apache-2.0
"""Directions of vectors, and the check of shapes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from spike_perception.errors import InputError


def unit(vectors: Tensor, floor: float = 1e-2) -> Tensor:
    """Vectors along the last axis scaled to length 1.

    Vectors shorter than ``floor`` are divided by ``floor``: silent neurons give zeros, and dividing
    by almost nothing would hand them a gradient that drowns all others.

    Args:
        vectors: [..., C].
        floor: smallest divisor.

    Returns:
        Same shape.
    """
    return functional.normalize(vectors, dim=-1, eps=floor)


def target(vectors: Tensor) -> Tensor:
    """Unit vectors of a teacher: no gradient, and no floor, since its scale is its own."""
    return functional.normalize(vectors.detach(), dim=-1)


def require_shape(name: str, tensor: Tensor, *shape: int | None) -> None:
    """Refuse a tensor of another shape.

    Args:
        name: what to call it in the message.
        tensor: the tensor.
        shape: expected sizes; None for any size above zero.

    Raises:
        InputError: ``wrong_shape``.
    """
    given = tuple(tensor.shape)
    fits = len(given) == len(shape) and all(
        size > 0 if wanted is None else size == wanted
        for size, wanted in zip(given, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if each is None else str(each) for each in shape)
        raise InputError("wrong_shape", f"{name} has shape {list(given)}, expected [{wanted}]")
