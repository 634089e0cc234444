"""Data sets: samples as they are stored, and how a training batch is made of them.

Every kind is a `Dataset`: floats in memory (digits), made from their index (shapes), bytes or latents mapped from disk.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mpdit.errors import nearest, refusal
from mpdit.randomness import Draws

Stored = tuple[Tensor, ...]  # what is kept of some samples: each (count, …)
READ_AT_ONCE = 4096  # samples, where a whole set is read


def as_given(stored: Stored, _draws: Draws | None) -> Tensor:
    """Stored values that are the training values."""
    return stored[0]


def same(values: Tensor) -> Tensor:
    """Training values that are pixels in −1 … 1."""
    return values


@dataclass(frozen=True, eq=False)
class Dataset:
    """`read` gives samples as they are stored; `finish` makes of them what a model is trained on.

    read: (batch,) int64 indices → tensors of `batch` rows, on the CPU or wherever they are held.
    finish: those, and the step's randomness → (batch, channels, resolution, resolution) fp32; with None for the
    randomness, the same samples without any (not flipped, latents at their posterior's mean).
    to_pixels: training values → images in −1 … 1, for people and feature extractors.
    real: (batch,) indices → the uint8 images that samples are measured against; None where `plain` shows them.
    """

    name: str
    labels: Tensor  # (count,) int64 below `classes`
    classes: int
    channels: int
    resolution: int
    std: float  # of the training values, to four digits so that it is the same number everywhere
    fingerprint: str  # of what a training sees: what a trial's identity depends on
    sample_bytes: int  # what `read` gives of one sample
    read: Callable[[Tensor], Stored]
    finish: Callable[[Stored, Draws | None], Tensor] = as_given
    to_pixels: Callable[[Tensor], Tensor] = same
    real: Callable[[Tensor], Tensor] | None = None
    class_names: tuple[str, ...] = ()
    folder: Path | None = None  # of the features trained for it

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor, draws: Draws) -> Tensor:
        """Training values of the samples at `index` (share,), on the draws' device: (share, channels, r, r) fp32.

        A function of (index, seed, step, place in the global batch) alone.
        """
        return self.finish(tuple(part.to(draws.device, non_blocking=True) for part in self.read(index)), draws)

    def plain(self, index: Tensor) -> Tensor:
        """The same samples without randomness: (batch, channels, resolution, resolution) fp32."""
        return self.finish(self.read(index), None)

    def pixels(self, index: Tensor) -> Tensor:
        """The real images at `index`, as feature extractors see them: uint8 (batch, 1 or 3, height, width)."""
        return self.real(index) if self.real else to_bytes(self.to_pixels(self.plain(index)))

    @cached_property
    def images(self) -> Tensor:
        """All samples as `plain` gives them, for sets that fit in memory: (count, channels, r, r) fp32."""
        return self.plain(torch.arange(len(self)))

    def to(self, device: torch.device | str) -> "Dataset":
        """The same set, held on a device: batches are gathered there. Needs len × sample_bytes of its memory."""
        parts = [
            tuple(part.to(device) for part in self.read(index)) for index in torch.arange(len(self)).split(READ_AT_ONCE)
        ]
        held = tuple(torch.cat(same_part) for same_part in zip(*parts, strict=True))
        return replace(self, read=lambda index: tuple(part[index.to(part.device)] for part in held))


def held_near(dataset: Dataset, device: torch.device) -> Dataset:
    """The set held on a GPU where it takes less than half of the memory that is free there; else as it is."""
    if device.type == "cuda" and len(dataset) * dataset.sample_bytes < torch.cuda.mem_get_info(device)[0] / 2:
        return dataset.to(device)
    return dataset


def to_bytes(images: Tensor) -> Tensor:
    """Images in −1 … 1 → uint8 0 … 255, rounded and clamped, as they are seen by people and by feature extractors."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_bytes(stored: Stored, _draws: Draws | None) -> Tensor:
    """uint8 images → −1 … 1."""
    return stored[0].float().div_(127.5).sub_(1)


def from_bytes_flipped(stored: Stored, draws: Draws | None) -> Tensor:
    """uint8 images → −1 … 1, each mirrored left to right with probability ½."""
    if draws is None:
        return from_bytes(stored, draws)
    flipped = draws.uniform("flip", 1, 1, 1) < 0.5
    return from_bytes((torch.where(flipped, stored[0].flip(-1), stored[0]),), draws)  # bytes are a quarter to move


def load_digits() -> Dataset:
    """1,797 real handwritten digits of 8×8 grey pixels in 10 classes (UCI), bundled with scikit-learn."""
    table = np.loadtxt(
        _bundled_with_scikit_learn("digits.csv.gz"), delimiter=","
    )  # 64 pixels and the class in each row
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
    """A file of scikit-learn's data; found without importing it, which would take seconds."""
    package = find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise refusal("the digits come with scikit-learn, which is not installed", mend="pip install scikit-learn")
    return Path(package.submodule_search_locations[0], "datasets", "data", name)


def load_shapes(resolution: int = 32, count: int = 50_000) -> Dataset:
    """Coloured geometric shapes in 10 classes, made from their index: see mpdit/shapes.py."""
    from mpdit.shapes import shapes

    return shapes(resolution, count)


def load_folder(path: str, flips: bool = True) -> Dataset:
    """Images that `mpdit data prepare` has made ready: see mpdit/image_folder.py."""
    from mpdit.image_folder import load_image_folder

    return load_image_folder(path, flips)


def load_latents(path: str) -> Dataset:
    """Latents that `mpdit data encode` has made: see mpdit/latents.py."""
    from mpdit.latents import load_latent_set

    return load_latent_set(path)


@dataclass(frozen=True)
class Kind:
    """A data set as a recipe names it: what opens it, the settings that it takes and those that it needs."""

    load: Callable[..., Dataset]
    holds: str
    settings: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


DATASETS = {
    "digits": Kind(load_digits, "1,797 handwritten digits, 8×8 grey"),
    "shapes": Kind(load_shapes, "coloured shapes without end, made from their index", ("resolution", "count")),
    "folder": Kind(load_folder, "your images, after `mpdit data prepare`", ("path", "flips"), needs=("path",)),
    "latents": Kind(load_latents, "their latents, after `mpdit data encode`", ("path",), needs=("path",)),
}


@cache
def load_dataset(name: str, **settings: int | bool | str) -> Dataset:
    """The data set of that name, opened once a process. Raises BadInput where there is none, or for a wrong setting."""
    check_settings(name, settings)
    return DATASETS[name].load(**settings)


def check_settings(name: str, settings: Mapping[str, object]) -> None:
    """Raises BadInput for an unknown data set, a setting that it does not take, or one that it needs and lacks."""
    if name not in DATASETS:
        raise refusal(f"no data set {name!r}", given=name, nearest=nearest(name, DATASETS), allowed=", ".join(DATASETS))
    kind = DATASETS[name]
    for setting, value in settings.items():
        if setting not in kind.settings:
            allowed = ", ".join(kind.settings) or "its name alone"
            raise refusal(f"the data set {name!r} has no {setting}", given=f"{setting}: {value}", allowed=allowed)
    for setting in kind.needs:
        if setting not in settings:
            raise refusal(f"the data set {name!r} needs a {setting}", mend=f"data: {{name: {name}, {setting}: …}}")
