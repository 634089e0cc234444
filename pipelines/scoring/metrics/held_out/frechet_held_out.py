"""The Fréchet distance to images that the training never saw, beside that to as many that it saw.

A distance falls as the number of real images grows, so the two are taken of equal numbers: the training images are
divided into parts as large as the holdout, each with the classes' own proportions.
"""

from statistics import mean, stdev
from typing import TYPE_CHECKING

from mpdit.randomness import generator
from mpdit.scoring.frechet import FLOOR_WORK, distance, statistics
from pipelines.scoring.metrics.registry import METRICS, Features, Metric

if TYPE_CHECKING:
    from torch import Tensor

MOST_PARTS = 8  # of the training images


def held_out_distances(features: Features) -> dict[str, float]:
    """Measure both; computed once for the two metrics.

    Returns:
        `frechet_held_out`; `frechet_seen`, the mean over parts of the training images; `frechet_gap`, the first minus
        the second; `frechet_gap_std`, its error, of which images are in which part. Nothing without a holdout.
    """
    if features.held_out is None:
        return {}
    if "held_out" not in features.shared:
        held_out, parts = equal_parts(features)
        fake = statistics(features.fake)
        unseen = distance(fake, statistics(held_out))
        seen = [distance(fake, statistics(part)) for part in parts]
        found = {"frechet_held_out": unseen, "frechet_seen": mean(seen), "frechet_gap": unseen - mean(seen)}
        if len(seen) > 1:
            found["frechet_gap_std"] = stdev(seen) * (1 + 1 / len(seen)) ** 0.5
        features.shared["held_out"] = found
    shared: dict[str, float] = features.shared["held_out"]
    return shared


def equal_parts(features: Features) -> "tuple[Tensor, list[Tensor]]":
    """Return held-out rows, and disjoint parts of the training rows, all of one number of rows."""
    import torch

    real, held_out = features.real, features.held_out
    assert held_out is not None
    size = min(len(held_out), len(real))
    most = max(1, min(MOST_PARTS, int(FLOOR_WORK / real.shape[1] ** 3)))
    count = min(most, len(real) // size)
    order = torch.randperm(len(real), generator=generator(0, 0, "parts of the training images"))
    if features.real_labels is not None:
        order = order[features.real_labels[order].argsort(stable=True)]
    kept = order[torch.arange(count * size) * len(order) // (count * size)]  # evenly over the classes
    return held_out[_evenly(len(held_out), size)], [real[kept[at::count]] for at in range(count)]


def _evenly(count: int, size: int) -> "Tensor":
    import torch

    return torch.arange(size) * count // size


FRECHET_HELD_OUT = METRICS.register(
    Metric(
        name="frechet_held_out",
        doc="Fréchet distance between samples and the images that were held out of training",
        label="Fréchet distance to held-out images",
        measure=held_out_distances,
        needs_holdout=True,
    )
)
