"""Fréchet distance between images, in the features of a named network, and its standard error.

d² = ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_aΣ_b)^½); Eq. 6 of arXiv 1706.08500. Statistics are plain float64 sums,
so parts computed anywhere (processes, GPUs, earlier starts) can be added up.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from typing import TYPE_CHECKING, Any

from mpdit.lazy_modules import lazy_module
from mpdit.randomness import generator

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
else:
    np = lazy_module("numpy")
    torch = lazy_module("torch")

FOLDS = 10  # disjoint groups of samples, the same for every cell
CONFIDENCE = 0.95
NORMAL_CRITICAL = 1.959963984540054  # of a normal value at that confidence
EXPANSION_FROM = 500  # degrees of freedom, where the expansion's error is that of rounding
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


def left_out_distances(folds: Sequence[Statistics], reference: Statistics) -> tuple[float, list[float]]:
    """Return the distance of all folds together, and the distances without each one of them.

    From the latter follows the standard error, and from their differences the error of a difference of two cells.
    """
    total = sum(folds[1:], folds[0])
    return distance(total, reference), [distance(total - fold, reference) for fold in folds]


def jackknife_error(left_out: Sequence[float]) -> float:
    """Return the standard error of the delete-a-fold jackknife over k folds, √((k − 1)·variance).

    It is the error over the samples alone, not over training seeds.

    Args:
        left_out: a value without each fold; for a difference of two cells on the same noise, the differences.
    """
    count = len(left_out)
    mean = _sum(left_out) / count
    variance = _sum([(value - mean) * (value - mean) for value in left_out]) / count
    return math.sqrt((count - 1) * variance)


def _sum(values: Sequence[float]) -> float:
    """Add some numbers (128 at most) in NumPy's order, so that errors stay those that older releases wrote."""
    even = len(values) - len(values) % 8
    rows = [list(values[at : at + 8]) for at in range(0, even, 8)]
    total = 0.0
    if rows:
        a, b, c, d, e, f, g, h = (reduce(operator.add, column) for column in zip(*rows, strict=True))
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    return reduce(operator.add, values[even:], total)


@cache
def t_critical(freedom: float) -> float:
    """Return the critical value of Student's t at 95 % confidence, for that many degrees of freedom.

    A value may be off by so many standard errors. Folds have FOLDS − 1 = 9 degrees of freedom: 2.26 errors, not 1.96.
    """
    t = _expansion(freedom)
    if freedom >= EXPANSION_FROM:
        return t
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    for _ in range(20):  # Newton's method; two to four steps
        density = scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2)
        step = (_two_sided(t, freedom) - (1 - CONFIDENCE)) / (2 * density)
        t += step
        if abs(step) < 1e-14 * t:
            break
    return t


def _expansion(freedom: float) -> float:
    """Return the critical value by Fisher's expansion about the normal one, Eq. 26.7.5 of Abramowitz and Stegun."""
    z = NORMAL_CRITICAL
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def _two_sided(t: float, freedom: float) -> float:
    """Return the probability that |Student's t| exceeds t: I_x(ν/2, ½) at x = ν/(ν + t²), DLMF 8.17.22."""
    a, b, x = freedom / 2, 0.5, freedom / (freedom + t * t)
    beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - beta)
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / (1 + term * d), 1 + term / c
            value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return value


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

    `fid_10k` and `fid_50k` are Inception's with its published weights and exactly as many samples, and nothing else.
    """
    count = f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)
    return f"fid_{count}" if extractor == "inception" and samples in (10_000, 50_000) else f"fd_{extractor}_{count}"
