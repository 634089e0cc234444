"""Fréchet distance between images, in the features of a named network, and its standard error.

d² = ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_aΣ_b)^½); Eq. 6 of arXiv 1706.08500. Statistics are plain float64 sums,
so parts computed anywhere (processes, GPUs, earlier starts) can be added up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mpdit.lazy_modules import lazy_module
from mpdit.randomness import generator
from mpdit.scoring.intervals import FOLDS

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
else:
    np = lazy_module("numpy")
    torch = lazy_module("torch")

FLOOR_SPLITS = 20  # pairs of disjoint parts of each size, for the noise floor in few dimensions
FLOOR_WORK = 2e9  # fewer splits are taken where splits·dimensions³ would be more


@dataclass(frozen=True)
class Statistics:
    """n, Σx and Σxxᵀ of feature vectors, float64. Parts add up: a + b is the statistics of both."""

    count: int
    total: Tensor  # (dimensions,)
    products: Tensor  # (dimensions, dimensions)

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(self.count + other.count, self.total + other.total, self.products + other.products)

    def __sub__(self, other: Statistics) -> Statistics:
        return Statistics(self.count - other.count, self.total - other.total, self.products - other.products)

    @property
    def mean(self) -> Tensor:
        """The mean: (dimensions,)."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """The covariance, with the divisor n − 1: (dimensions, dimensions)."""
        return (self.products - torch.outer(self.total, self.mean)) / (self.count - 1)

    @cached_property
    def root(self) -> Tensor:
        """Σ^½, symmetric; computed once for all the distances that are measured against these statistics."""
        return square_root(self.covariance)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the sums, by which the reference of a distance is known."""
        digest = hashlib.sha256(str(self.count).encode())
        for part in (self.total, self.products):
            digest.update(part.cpu().numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


def statistics(features: Tensor) -> Statistics:
    """Sum features (count, dimensions), on their device."""
    x = features.double()
    return Statistics(len(x), x.sum(0), x.T @ x)


def folds_of(features: Tensor) -> list[Statistics]:
    """Return the statistics of each fold: sample i of n is in fold i·10/n, so cells of n samples have one split."""
    return [statistics(part) for part in features.tensor_split(FOLDS)]


def square_root(covariance: Tensor) -> Tensor:
    """Return the symmetric root of a covariance (dimensions, dimensions), rank-deficient ones too."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def _cross_trace(root: Tensor, covariance: Tensor) -> Tensor:
    """Return tr((root·Σ·root)^½): the matrix is symmetric, so its eigenvalues are real; rounding errors count 0."""
    product = root @ covariance @ root
    values = torch.linalg.eigvalsh((product + product.T) / 2)
    rounding = values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    return torch.where(values > rounding, values, 0).sqrt().sum()


def frechet_distance(mean_a: Any, cov_a: Any, mean_b: Any, cov_b: Any) -> float:
    """Return the Fréchet distance of two Gaussians: means (dimensions,), covariances (dimensions, dimensions), float64.

    tr((Σ_aΣ_b)^½) = tr((A·Σ_b·A)^½) with A = Σ_a^½.
    """
    mean_a, cov_a, mean_b, cov_b = (
        torch.as_tensor(part, dtype=torch.float64) for part in (mean_a, cov_a, mean_b, cov_b)
    )
    cross = _cross_trace(square_root(cov_a), cov_b)
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def distance(fake: Statistics, reference: Statistics) -> float:
    """Return the Fréchet distance between two sets of features; the root of the reference is computed once."""
    covariance = fake.covariance
    cross = _cross_trace(reference.root, covariance)
    traces = covariance.trace() + reference.covariance.trace()
    return float((fake.mean - reference.mean).square().sum() + traces - 2 * cross)


def distance_of_features(a: Tensor, b: Tensor) -> float:
    """Return the Fréchet distance between two sets of features, which may be fewer than their dimensions.

    tr((Σ_aΣ_b)^½) is the sum of the singular values of R_aR_bᵀ, where Σ = RᵀR: no covariance is made, and no root is
    taken of one without full rank. The work is small where there are few features.

    Args:
        a: (count, dimensions), at least two.
        b: (count, dimensions), at least two.
    """
    root_a, root_b = _triangular_root(a), _triangular_root(b)
    cross = torch.linalg.svdvals(root_a @ root_b.T).sum()
    means = (a.double().mean(0) - b.double().mean(0)).square().sum()
    return float(means + root_a.square().sum() + root_b.square().sum() - 2 * cross)


def _triangular_root(features: Tensor) -> Tensor:
    """Return R with RᵀR the covariance of features (count, dimensions): (min(count, dimensions), dimensions)."""
    x = features.double()
    root: Tensor = torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r").R
    return root


def left_out_distances(folds: Sequence[Statistics], reference: Statistics) -> tuple[float, list[float]]:
    """Return the distance of all folds together, and the distances without each one of them.

    From the latter follows the standard error, and from their differences the error of a difference of two cells.
    """
    total = sum(folds[1:], folds[0])
    return distance(total, reference), [distance(total - fold, reference) for fold in folds]


def floor_slope(features: Tensor) -> float:
    """Measure how fast the distance of real images to real images grows as their number falls: a in a·(1/n + 1/m).

    features: (count, dimensions), of real images. The distance of two disjoint random parts of n real images each is
    2a/n in expectation (its bias is about 1/n, arXiv 1911.07023); a is averaged over splits of several sizes.
    """
    count, dimensions = features.shape
    splits = max(1, min(FLOOR_SPLITS, int(FLOOR_WORK / dimensions**3)))
    random = generator(0, 0, "noise floor")
    slopes = []
    for size in (count // 4, count // 3, count // 2):
        for _ in range(splits):
            order = torch.randperm(count, generator=random).to(features.device)
            a, b = features[order[:size]], features[order[size : 2 * size]]
            slopes.append(distance(statistics(a), statistics(b)) * size / 2)
    return float(np.mean(slopes))


def noise_floor(slope: float, samples: int, reference_count: int) -> float:
    """Return the distance of a perfect model with `samples` samples to that many real images."""
    return slope * (1 / samples + 1 / reference_count)


def metric_name(extractor: str, samples: int) -> str:
    """Name a distance after its features and the number of samples, as `fd_digits_2k`.

    `fid_10k` and `fid_50k` are Inception's with its published weights and exactly as many samples, and nothing else;
    `sfid_10k` and `sfid_50k` are those of its spatial features.
    """
    count = f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)
    published = {"inception": "fid", "inception_spatial": "sfid"}
    if extractor in published and samples in (10_000, 50_000):
        return f"{published[extractor]}_{count}"
    return f"fd_{extractor}_{count}"
