"""The digits: 1,797 real handwritten ones of 8×8 grey pixels (UCI), bundled with scikit-learn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mpdit.data.dataset import Dataset
from mpdit.data.registry import DATASETS, DatasetKind
from mpdit.errors import input_error
from mpdit.lazy_modules import lazy_module

if TYPE_CHECKING:
    import numpy as np
    import torch
else:
    np = lazy_module("numpy")
    torch = lazy_module("torch")

FILE = "digits.csv.gz"


@DATASETS.register
@dataclass(frozen=True)
class Digits(DatasetKind):
    """The digits, which have no settings of their own."""

    name: ClassVar[str] = "digits"
    doc: ClassVar[str] = "1,797 handwritten digits, 8×8 grey"

    def files(self) -> list[Path]:
        """The file of scikit-learn's that holds them."""
        return [_bundled_with_scikit_learn(FILE)]

    def load(self) -> Dataset:
        """Load all of them, in 10 classes."""
        return load_digits()


def load_digits() -> Dataset:
    """Load all of them, in 10 classes."""
    table = np.loadtxt(_bundled_with_scikit_learn(FILE), delimiter=",")  # 64 pixels and the class a row
    images = torch.from_numpy((table[:, :64] / 8 - 1).astype(np.float32)).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(table[:, 64].astype(np.int64))
    return Dataset(
        name="digits",
        labels=labels,
        classes=10,
        channels=1,
        resolution=8,
        std=round(float(images.double().std(unbiased=False)), 4),
        fingerprint="sha256:" + hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest(),
        sample_bytes=4 * 64,
        read=lambda index: (images[index],),
        class_names=tuple(str(digit) for digit in range(10)),
    )


def _bundled_with_scikit_learn(name: str) -> Path:
    """Find a file of scikit-learn's data without importing it, which would take seconds."""
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise input_error("the digits come with scikit-learn, which is not installed", hint="pip install scikit-learn")
    return Path(package.submodule_search_locations[0], "datasets", "data", name)
