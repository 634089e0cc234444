"""What distances are measured against: the real images' statistics, computed once and kept under a content hash.

A kept file is found by that hash alone and carries all that went into it and a checksum of its sums: one that is stale,
of other data, or damaged is not the file that is asked for, and is computed again.
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

from mpdit.data.dataset import Dataset
from mpdit.errors import input_error
from mpdit.randomness import generator
from mpdit.scoring.extractor import Extractor
from mpdit.scoring.extractors.registry import load_extractor
from mpdit.scoring.frechet import Statistics, floor_slope, folds_of, noise_floor

VERSION = 1  # raised when the same data and extractor come to give other statistics
READ_AT_ONCE = 2000  # images
FLOOR_IMAGES = 20_000  # at most, from which the noise floor is extrapolated

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reference:
    """The real data's statistics in an extractor's features, and what a perfect model would score."""

    extractor: Extractor
    statistics: Statistics
    slope: float

    def floor(self, samples: int) -> float:
        """The noise floor at that many samples."""
        return noise_floor(self.slope, samples, self.statistics.count)


def cache_folder() -> Path:
    """Where what can be computed again is kept: MPDIT_CACHE, or mpdit in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("MPDIT_CACHE") or base / "mpdit")


def extractor_for(dataset: Dataset, asked: str, device: str = "cpu") -> Extractor:
    """The extractor that an evaluation asks for; `auto` is the classifier of the data itself.

    Raises InputError, before anything is trained, when its weights are missing or it cannot see the data's images.
    """
    name = dataset.name if asked == "auto" else asked
    extractor = load_extractor(name, dataset.folder, device)
    extractor.check(dataset.pixels(torch.zeros(1, dtype=torch.int64)))
    return extractor


@cache
def reference(dataset: Dataset, extractor: Extractor) -> Reference:
    """The whole data set's statistics: from this process, from the cache, or computed and kept."""
    facts = _facts(dataset, extractor)
    path = cache_folder() / "references" / f"{_key(facts)}.safetensors"
    found = _read(path, facts)
    if found is None:
        found = _compute(dataset, extractor)
        _keep(path, facts, *found)
    kept, slope = found
    device = next(extractor.network.parameters()).device
    sums = Statistics(kept.count, kept.total.to(device), kept.products.to(device))
    return Reference(extractor, sums, slope)


def real_features(dataset: Dataset, extractor: Extractor, limit: int) -> torch.Tensor:
    """The features of at most `limit` real images, drawn at random when there are more: (count, dimensions) fp32."""
    index = torch.randperm(len(dataset), generator=generator(0, 0, "reference subset"))[:limit].sort().values
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


def _compute(dataset: Dataset, extractor: Extractor) -> tuple[Statistics, float]:
    index = torch.arange(len(dataset))
    if len(index) < 8:
        raise input_error(
            f"{dataset.name!r} is too small to measure anything against", given=len(index), allowed="8 images"
        )
    parts = []
    for chosen in index.split(READ_AT_ONCE):
        folds = folds_of(extractor.features(dataset.pixels(chosen)))
        parts.append(sum(folds[1:], folds[0]))
    return sum(parts[1:], parts[0]), floor_slope(real_features(dataset, extractor, FLOOR_IMAGES))


def _keep(path: Path, facts: dict[str, Any], sums: Statistics, slope: float) -> None:
    """Write the cache's file whole or not at all; a cache that cannot be written costs time, nothing else."""
    header = {"facts": json.dumps(facts), "count": str(sums.count), "slope": repr(slope), "sums": sums.fingerprint}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"total": sums.total.cpu(), "products": sums.products.cpu()}, partial, metadata=header)
        partial.replace(path)
    except (OSError, SafetensorError) as problem:
        partial.unlink(missing_ok=True)
        log.warning("the reference statistics could not be kept in %s: %s", path.parent, problem)


def _read(path: Path, facts: dict[str, Any]) -> tuple[Statistics, float] | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            sums = Statistics(int(header["count"]), file.get_tensor("total"), file.get_tensor("products"))
        if json.loads(header["facts"]) != facts or header["sums"] != sums.fingerprint:
            raise ValueError("its content is not what its name says")
        return sums, float(header["slope"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as problem:
        log.warning("%s is not used (%s); it is computed again", path, problem)
        return None
