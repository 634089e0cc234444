"""Randomness as a function of (seed, step, purpose), never of history.

A draw covers the whole global batch, so a sample's noise depends on its index in that batch and not on the number of
processes; a resumed run draws exactly what it would have drawn.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mpdit.lazy_modules import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def generator(seed: int, step: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator for one purpose ("noise", "order", …) at one step of one seed."""
    digest = hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def normal(shape: tuple[int, ...], seed: int, step: int, purpose: str, device: torch.device | str = "cpu") -> Tensor:
    """Draw standard normal values of the given shape."""
    return torch.randn(shape, generator=generator(seed, step, purpose, device), device=device)


def uniform(shape: tuple[int, ...], seed: int, step: int, purpose: str, device: torch.device | str = "cpu") -> Tensor:
    """Draw values in [0, 1) of the given shape."""
    return torch.rand(shape, generator=generator(seed, step, purpose, device), device=device)


def sample_order(count: int, seed: int, first: int, size: int) -> Tensor:
    """Return the samples at the positions first … first + size − 1 of the endless training stream: (size,) int64.

    The stream is one random permutation of all `count` samples after another.
    """
    positions = torch.arange(first, first + size)
    index = torch.empty(size, dtype=torch.int64)
    for epoch in torch.div(positions, count, rounding_mode="floor").unique().tolist():
        order = _permutation(count, seed, epoch)
        in_epoch = torch.div(positions, count, rounding_mode="floor") == epoch
        index[in_epoch] = order[positions[in_epoch] % count]
    return index


@lru_cache(maxsize=2)  # a step's batch spans two epochs at most, and a permutation of a million samples takes 10 ms
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, epoch, "order"))


@dataclass(frozen=True)
class Draws:
    """The random values of one process's slice of one step's global batch, a row for each sample of the slice."""

    seed: int
    step: int
    size: int  # samples in the global batch
    batch_slice: slice
    device: torch.device | str = "cpu"

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Draw standard normal values: (samples of the slice, *shape)."""
        return normal((self.size, *shape), self.seed, self.step, purpose, self.device)[self.batch_slice]

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Draw values in [0, 1): (samples of the slice, *shape)."""
        return uniform((self.size, *shape), self.seed, self.step, purpose, self.device)[self.batch_slice]
