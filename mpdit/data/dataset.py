"""A data set: samples as they are stored, and how a training batch is made of them.

The sets that a recipe can name are in mpdit/data/registry.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mpdit.lazy_modules import lazy_module
from mpdit.randomness import Draws

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

Stored = tuple["Tensor", ...]  # some samples as they are stored: each (count, …)
READ_AT_ONCE = 4096  # samples, where a whole set is read
PROBE_SAMPLES = 256
GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


def as_given(stored: Stored, _draws: Draws | None) -> Tensor:
    """Return stored values that are the training values."""
    return stored[0]


def same(values: Tensor) -> Tensor:
    """Return training values that are pixels in −1 … 1."""
    return values


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with labels: `read` returns them as they are stored, `finish` turns them into training values.

    Attributes:
        name: as in the names of its features and metrics.
        labels: (count,) int64 below `classes`.
        classes: how many there are.
        channels: of a training value.
        resolution: of a training value, in pixels or latent pixels.
        std: of the training values, to four digits so that it is the same number on every machine.
        fingerprint: of what a training uses: part of a trial's identity.
        sample_bytes: what `read` returns of one sample.
        read: (batch,) int64 indices → tensors of `batch` rows, on the CPU or on the device that holds them.
        finish: those, and the step's random values → (batch, channels, resolution, resolution) fp32; with None for
            the random values, the same samples without any (not flipped, latents at their posterior's mean).
        to_pixels: training values → images in −1 … 1, for people and feature extractors.
        real: (batch,) indices → the uint8 images that samples are measured against; None where `plain` returns them.
        class_names: one a class, or none.
        folder: of the features trained for it.
        held_out: the images of the set that no training sees (mpdit/data/holdout.py); None where all are trained on.
    """

    name: str
    labels: Tensor
    classes: int
    channels: int
    resolution: int
    std: float
    fingerprint: str
    sample_bytes: int
    read: Callable[[Tensor], Stored]
    finish: Callable[[Stored, Draws | None], Tensor] = as_given
    to_pixels: Callable[[Tensor], Tensor] = same
    real: Callable[[Tensor], Tensor] | None = None
    class_names: tuple[str, ...] = ()
    folder: Path | None = None
    held_out: Dataset | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_pixels(self) -> bool:
        """Whether training values are pixels in −1 … 1, of 8 bits, and not latents."""
        return self.to_pixels is same

    def batch(self, index: Tensor, draws: Draws) -> Tensor:
        """Return training values of the samples at `index` (batch,): (batch, channels, r, r) fp32, on draws.device.

        They depend on (index, seed, step, position in the global batch) alone.
        """
        return self.finish(tuple(part.to(draws.device, non_blocking=True) for part in self.read(index)), draws)

    def plain(self, index: Tensor) -> Tensor:
        """Return the samples at `index` without random changes: (batch, channels, resolution, resolution) fp32."""
        return self.finish(self.read(index), None)

    def pixels(self, index: Tensor) -> Tensor:
        """Return the real images at `index`, as feature extractors take them: uint8 (batch, 1 or 3, height, width)."""
        return self.real(index) if self.real else to_bytes(self.to_pixels(self.plain(index)))

    @cached_property
    def images(self) -> Tensor:
        """All samples as `plain` returns them, for sets that fit in memory: (count, channels, r, r) fp32."""
        return self.plain(torch.arange(len(self)))

    @cached_property
    def probe(self) -> Tensor:
        """The indices of the samples that magnitudes are measured on: 256, evenly over the classes."""
        return evenly_over_classes(self.labels, PROBE_SAMPLES)

    def to(self, device: torch.device | str) -> Dataset:
        """Copy the set to a device, where batches are then gathered. Needs len × sample_bytes of its memory."""
        parts = [
            tuple(part.to(device) for part in self.read(index)) for index in torch.arange(len(self)).split(READ_AT_ONCE)
        ]
        tensors = tuple(torch.cat(same_part) for same_part in zip(*parts, strict=True))
        return replace(self, read=lambda index: tuple(tensor[index.to(tensor.device)] for tensor in tensors))


def evenly_over_classes(labels: Tensor, samples: int) -> Tensor:
    """Choose samples evenly over the classes: one of each class, then a second one of each, and so on.

    Where the last round has more classes than are wanted, multiples of the golden ratio spread it over all of them.

    Args:
        labels: (count,) the class of each sample.
        samples: how many to choose; all where there are fewer.

    Returns:
        (samples,) indices in ascending order.
    """
    by_class = labels.argsort(stable=True)
    sizes = labels[by_class].unique_consecutive(return_counts=True)[1]
    place_in_class = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    turn = (torch.arange(len(sizes), dtype=torch.float64) * GOLDEN_RATIO % 1).repeat_interleave(sizes)
    return by_class[(place_in_class + turn).argsort(stable=True)[:samples]].sort().values


def held_near(dataset: Dataset, device: torch.device) -> Dataset:
    """Copy the set to a GPU where it takes less than half of the memory that is free there; else return it as it is."""
    if device.type == "cuda" and len(dataset) * dataset.sample_bytes < torch.cuda.mem_get_info(device)[0] / 2:
        return dataset.to(device)
    return dataset


def to_bytes(images: Tensor) -> Tensor:
    """Convert images in −1 … 1 to uint8 0 … 255, rounded and clamped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_bytes(stored: Stored, _draws: Draws | None) -> Tensor:
    """Convert uint8 images to −1 … 1."""
    return stored[0].float().div_(127.5).sub_(1)


def from_bytes_flipped(stored: Stored, draws: Draws | None) -> Tensor:
    """Convert uint8 images to −1 … 1, each mirrored left to right with probability ½."""
    if draws is None:
        return from_bytes(stored, draws)
    flipped = draws.uniform("flip", 1, 1, 1) < 0.5
    return from_bytes((torch.where(flipped, stored[0].flip(-1), stored[0]),), draws)  # bytes are a quarter to move
