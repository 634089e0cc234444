"""The statistics of the real images, which distances are measured against: computed once and cached.

A cached file is named by a hash of all that it depends on, and holds these facts and a checksum of its sums. One that
is of other data or damaged is not used, and is computed again.
"""

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mpdit.data.dataset import Dataset
from mpdit.errors import input_error
from mpdit.randomness import generator
from mpdit.scoring.extractor import Extractor
from mpdit.scoring.extractors.registry import load_extractor
from mpdit.scoring.frechet import Statistics, floor_slope, folds_of, noise_floor
from mpdit.scoring.reference_file import file_hash, read_reference
from pipelines.known_facts import cache_folder

VERSION = 2  # raised when the same data and extractor come to give other statistics, or more of them
READ_AT_ONCE = 2000  # images
FLOOR_IMAGES = 20_000  # at most, from which the noise floor is extrapolated

Measured = tuple[Statistics, float, Tensor]  # the sums, the slope of the noise floor, the classes' means

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """The statistics that samples are measured against, and the slope of what a perfect model would score.

    count: of the real images; None where a file of others does not tell it. class_means: the mean features of each
    class of the data set, (classes, dimensions); of a class without images, of all images.
    """

    extractor: Extractor
    statistics: Statistics
    slope: float
    count: int | None
    class_means: Tensor

    def floor(self, samples: int) -> float:
        """The distance that a perfect model would score with that many samples."""
        return noise_floor(self.slope, samples, self.statistics.count if self.count is None else self.count)


def extractor_for(dataset: Dataset, name: str, device: str = "cpu") -> Extractor:
    """Load the extractor of that name; `auto` is the classifier of the data itself.

    Raises InputError when its weights are missing or it cannot take the data's images.
    """
    name = dataset.name if name == "auto" else name
    extractor = load_extractor(name, dataset.folder, device)
    extractor.check(dataset.pixels(torch.zeros(1, dtype=torch.int64)))
    return extractor


@cache
def reference(dataset: Dataset, extractor: Extractor) -> Reference:
    """Return the statistics of the whole data set: from the cache, or computed and written there."""
    facts = _facts(dataset, extractor)
    path = cache_folder() / "references" / f"{_key(facts)}.safetensors"
    cached = _read(path, facts)
    if cached is None:
        cached = _compute(dataset, extractor)
        if meanwhile := _read(path, facts):  # of another process, whose threads may have rounded otherwise
            cached = meanwhile
        else:
            _write(path, facts, *cached)
    sums, slope, means = cached
    return Reference(extractor, _moved(sums, extractor), slope, sums.count, means)


@cache
def chosen_reference(dataset: Dataset, extractor: Extractor, file: str | None) -> Reference:
    """Return what samples are measured against: a file as `evaluation.reference` names it, or else the data set.

    Raises InputError for a file that cannot be used, or is no longer the one that was named.
    """
    own = reference(dataset, extractor)
    if file is None:
        return own
    path, _, wanted = file.rpartition("@sha256:")
    found = file_hash(Path(path))
    if found != wanted:
        given, allowed = f"sha256 {found}", f"sha256 {wanted}"
        raise input_error(
            f"the reference {path} has changed", given=given, allowed=allowed, hint="a sweep of a new name"
        )
    image = tuple(dataset.pixels(torch.zeros(1, dtype=torch.int64)).shape[1:])
    sums, count = read_reference(Path(path), extractor, image)
    return Reference(extractor, _moved(sums, extractor), own.slope, count, own.class_means)


def _moved(sums: Statistics, extractor: Extractor) -> Statistics:
    device = next(extractor.network.parameters()).device
    return Statistics(sums.count, sums.total.to(device), sums.products.to(device))


def real_index(dataset: Dataset, limit: int) -> Tensor:
    """All real images, or `limit` drawn at random when there are more: (count,) int64, ascending."""
    return torch.randperm(len(dataset), generator=generator(0, 0, "reference subset"))[:limit].sort().values


def real_features(dataset: Dataset, extractor: Extractor, limit: int) -> Tensor:
    """The features of the images of `real_index`: (count, dimensions) fp32."""
    index = real_index(dataset, limit)
    return torch.cat([extractor.features(dataset.pixels(part)) for part in index.split(READ_AT_ONCE)])


def _facts(dataset: Dataset, extractor: Extractor) -> dict[str, Any]:
    shape = tuple(dataset.pixels(torch.zeros(1, dtype=torch.int64)).shape[1:])
    return {
        "version": VERSION,
        "data": dataset.fingerprint,
        "images": [len(dataset), *shape],
        "extractor": extractor.name,
        "weights": extractor.weights,
    }


def _key(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _compute(dataset: Dataset, extractor: Extractor) -> Measured:
    index = torch.arange(len(dataset))
    if len(index) < 8:
        raise input_error(
            f"{dataset.name!r} is too small to measure anything against", given=len(index), allowed="8 images"
        )
    parts, by_class = [], torch.zeros(1)
    for chosen in index.split(READ_AT_ONCE):
        features = extractor.features(dataset.pixels(chosen))
        folds = folds_of(features)
        parts.append(sum(folds[1:], folds[0]))
        if len(parts) == 1:
            by_class = torch.zeros(max(1, dataset.classes), features.shape[1], dtype=torch.float64)
        by_class.index_add_(0, _labels(dataset)[chosen], features.double().cpu())
    sums = sum(parts[1:], parts[0])
    sizes = _labels(dataset).bincount(minlength=len(by_class))[:, None]
    means = torch.where(sizes > 0, by_class / sizes.clamp_min(1), sums.mean.cpu())
    return sums, floor_slope(real_features(dataset, extractor, FLOOR_IMAGES)), means


def _labels(dataset: Dataset) -> Tensor:
    """The class of each image; without classes all are of one: (count,), on the CPU."""
    return dataset.labels.cpu() if dataset.classes else torch.zeros(len(dataset), dtype=torch.int64)


def _write(path: Path, facts: dict[str, Any], sums: Statistics, slope: float, means: Tensor) -> None:
    """Write a file of the cache, completely or not at all; a cache that cannot be written only costs time."""
    header = {"facts": json.dumps(facts), "count": str(sums.count), "slope": repr(slope), "sums": sums.fingerprint}
    header["class_means"] = _hash(means)
    tensors = {"total": sums.total.cpu(), "products": sums.products.cpu(), "class_means": means}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata=header)
        partial.replace(path)
    except (OSError, SafetensorError) as problem:
        partial.unlink(missing_ok=True)
        log.warning("the reference statistics could not be kept in %s: %s", path.parent, problem)


def _hash(values: Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


def _read(path: Path, facts: dict[str, Any]) -> Measured | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            sums = Statistics(int(header["count"]), file.get_tensor("total"), file.get_tensor("products"))
            means = file.get_tensor("class_means")
        found = (json.loads(header["facts"]), header["sums"], header["class_means"])
        if found != (facts, sums.fingerprint, _hash(means)):
            raise ValueError("its content is not what its name says")
        return sums, float(header["slope"]), means
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as problem:
        log.warning("%s is not used (%s); it is computed again", path, problem)
        return None
