"""Data sets as plain tensors with a fingerprint of their content."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mpdit.errors import nearest, refusal


@dataclass(frozen=True)
class Dataset:
    """images: (count, channels, resolution, resolution) fp32 in −1 … 1; labels: (count,) int64 below `classes`."""

    name: str
    images: Tensor
    labels: Tensor
    classes: int
    fingerprint: str  # hash of images and labels: what a trial's identity depends on
    folder: Path | None = None  # where the prepared set lies, and the classifier that scores it

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, index: Tensor) -> Tensor:
        """The real images at `index`, as feature extractors see them: uint8 (batch, 1 or 3, height, width)."""
        return to_bytes(self.images[index])

    def to_pixels(self, values: Tensor) -> Tensor:
        """Training values → images in −1 … 1."""
        return values

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def resolution(self) -> int:
        return self.images.shape[-1]

    @property
    def std(self) -> float:
        """Standard deviation of the pixels, to four digits so that it is the same number everywhere."""
        return round(float(self.images.double().std(unbiased=False)), 4)


def to_bytes(images: Tensor) -> Tensor:
    """Images in −1 … 1 → uint8 0 … 255, rounded and clamped, as they are seen by people and by feature extractors."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _dataset(name: str, images: Tensor, labels: Tensor, classes: int) -> Dataset:
    digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    return Dataset(name, images, labels, classes, f"sha256:{digest}")


def load_digits() -> Dataset:
    """1,797 real handwritten digits of 8×8 grey pixels in 10 classes (UCI), bundled with scikit-learn."""
    from sklearn import datasets

    pixels, labels = datasets.load_digits(return_X_y=True)
    images = torch.from_numpy((pixels / 8 - 1).astype(np.float32)).reshape(-1, 1, 8, 8)
    return _dataset("digits", images, torch.from_numpy(labels.astype(np.int64)), classes=10)


DATASETS: dict[str, Callable[[], Dataset]] = {"digits": load_digits}


@cache
def load_dataset(name: str) -> Dataset:
    """The data set of that name, read once a process. Raises BadInput for an unknown name."""
    if name not in DATASETS:
        raise refusal(f"no data set {name!r}", given=name, nearest=nearest(name, DATASETS), allowed=", ".join(DATASETS))
    return DATASETS[name]()
