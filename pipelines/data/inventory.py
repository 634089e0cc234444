"""What is in a data set: figures and a contact sheet."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpdit.data.dataset import READ_AT_ONCE, Dataset
from mpdit.data.prepared_images import MANIFEST
from mpdit.data.registry import load_dataset
from mpdit.randomness import generator
from pipelines.data.named_set import named_set
from pipelines.scoring.pictures import write_grid

MEASURED = 10_000  # samples at most, where no figures are recorded
COLUMNS, ROWS = 10, 8  # of the contact sheet: classes, samples of each


def open_set(name: str, resolution: int | None = None) -> Dataset:
    """The data set of a name, or of a prepared set's folder. Raises InputError where there is none."""
    chosen = named_set(name)
    settings: dict[str, Any] = {"flips": False} if chosen.takes_flips else {}
    if resolution is not None:
        settings["resolution"] = resolution
    return load_dataset(**chosen.fields, **settings)


def inventory(dataset: Dataset) -> dict[str, Any]:
    """Figures of a set, as `mpdit data info --json` shows them."""
    some = torch.randperm(len(dataset), generator=generator(0, 0, "inventory"))[:MEASURED].sort().values
    mean, std = _moments(dataset, some)
    names = dataset.class_names or tuple(str(number) for number in range(dataset.classes))
    counts = dataset.labels.bincount(minlength=dataset.classes).tolist()
    return {
        "name": dataset.name,
        "count": len(dataset),
        "shape": [dataset.channels, dataset.resolution, dataset.resolution],
        "images": list(dataset.pixels(torch.arange(1)).shape[1:]),
        "bytes": len(dataset) * dataset.sample_bytes,
        "mean": [round(value, 4) for value in mean.tolist()],
        "std": [round(value, 4) for value in std.tolist()],
        "overall_std": dataset.std,
        "fingerprint": dataset.fingerprint,
        "counts": dict(zip(names, counts, strict=True)),
        **_recorded(dataset),
    }


def _moments(dataset: Dataset, index: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of the samples without randomness: two of (channels,) float64."""
    total, squares = (torch.zeros(dataset.channels, dtype=torch.float64) for _ in range(2))
    for part in index.split(READ_AT_ONCE):
        values = dataset.plain(part).double()
        total += values.sum((0, 2, 3))
        squares += values.square().sum((0, 2, 3))
    places = len(index) * dataset.resolution**2
    mean = total / places
    return mean, (squares / places - mean**2).clamp_min(0).sqrt()


def _recorded(dataset: Dataset) -> dict[str, Any]:
    """What a prepared set's own record adds; of latents, the figures before they are normalised."""
    if dataset.folder is None:
        return {}
    record = json.loads((dataset.folder.parent / MANIFEST).read_text(encoding="utf-8"))
    facts = {key: record[key] for key in ("source", "vae", "notes") if record.get(key)}
    if record.get("skipped"):
        facts["skipped"] = len(record["skipped"])
    return facts | {"mean": record["mean"], "std": record["std"]}


def contact_sheet(dataset: Dataset, path: Path) -> None:
    """A PNG of real images, a column for each of the first classes."""
    shown = [label for label in range(min(COLUMNS, dataset.classes)) if (dataset.labels == label).any()]
    full = [(dataset.labels == label).nonzero()[:ROWS, 0] for label in shown]
    rows = min(len(column) for column in full)
    index = torch.stack([column[:rows] for column in full], dim=1).flatten()
    names = dataset.class_names
    write_grid(path, dataset.pixels(index), len(full), [names[label] for label in shown] if names else ())
