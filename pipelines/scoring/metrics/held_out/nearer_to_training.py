"""Whether samples lie nearer to training images than unseen real images do (the test of arXiv 2004.05675)."""

from typing import TYPE_CHECKING

from pipelines.scoring.metrics.registry import METRICS, Features, Metric

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 2**24  # distances held in memory


def nearer_to_training(features: Features) -> dict[str, float]:
    """Compare each sample's distance to its nearest training image with that of each held-out image.

    Returns:
        The share of pairs in which the sample is nearer, ties counted half: Mann and Whitney's statistic. Nothing
        without a holdout.
    """
    if features.held_out is None:
        return {}
    import torch

    fakes = nearest_distances(features.fake, features.real)
    unseen = nearest_distances(features.held_out, features.real).sort().values
    farther = len(unseen) - torch.searchsorted(unseen, fakes, right=True)
    as_far_or_farther = len(unseen) - torch.searchsorted(unseen, fakes)
    return {"nearer_to_training": float((farther + as_far_or_farther).double().mean() / (2 * len(unseen)))}


def nearest_distances(rows: "Tensor", real: "Tensor") -> "Tensor":
    """Return the distance of each row (count, dimensions) to the nearest real one: (count,)."""
    import torch

    return torch.cat([torch.cdist(part, real).amin(1) for part in rows.split(max(1, AT_ONCE // len(real)))])


NEARER_TO_TRAINING = METRICS.register(
    Metric(
        name="nearer_to_training",
        doc="share of samples nearer to a training image than held-out images are; 0.5: as unseen images, 1: copies",
        label="share nearer to training images",
        measure=nearer_to_training,
        needs_holdout=True,
    )
)
