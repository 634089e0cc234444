"""Fréchet distance between images, in the features of a named network.

d² = ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2(Σ_aΣ_b)^½); Eq. 6 of arXiv 1706.08500. Statistics are plain float64 sums,
so parts computed anywhere can be added up.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.errors import nearest, refusal
from mpdit.randomness import generator

WEIGHTS = Path(__file__).parent / "weights"
CHUNKS = 10  # groups of samples for the jackknife


class DigitsFeatures(nn.Module):
    """A small classifier of 8×8 grey digits: uint8 (batch, 1, 8, 8) → features (batch, 64).

    Trained by `python -m pipelines.extractor`; its held-out accuracy lies beside its weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1)
        self.second = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.third = nn.Conv2d(32, 64, 3, padding=1)
        self.classify = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.first(images.float() / 127.5 - 1))
        x = F.relu(self.second(x))
        return F.relu(self.third(x)).mean(dim=(2, 3))


@dataclass(frozen=True)
class Extractor:
    """A network of features and the hash of its weights, by which two distances are known to be comparable."""

    name: str
    network: nn.Module
    weights: str  # "sha256:…"

    @torch.inference_mode()
    def features(self, images: Tensor, batch: int = 500) -> Tensor:
        """uint8 (count, channels, height, width) → fp32 (count, dimensions)."""
        return torch.cat([self.network(part) for part in images.split(batch)]).float()


EXTRACTORS: dict[str, type[nn.Module]] = {"digits": DigitsFeatures}


@cache
def load_extractor(name: str, device: str = "cpu") -> Extractor:
    """The named extractor with the weights in the package; refuses weights that are not those recorded."""
    if name not in EXTRACTORS:
        raise refusal(
            f"no feature extractor {name!r}",
            given=name,
            nearest=nearest(name, EXTRACTORS),
            allowed=", ".join(EXTRACTORS),
        )
    path = WEIGHTS / f"{name}.safetensors"
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    recorded = extractor_card(name)["sha256"]
    if found != recorded:
        raise refusal(
            f"{path} is damaged", given=f"sha256 {found}", allowed=f"sha256 {recorded}", mend="reinstall mpdit"
        )
    network = EXTRACTORS[name]()
    network.load_state_dict(load_file(path))
    return Extractor(name, network.eval().requires_grad_(False).to(device), f"sha256:{found}")


def extractor_card(name: str) -> dict[str, Any]:
    """What is recorded about an extractor's weights: sha256, held-out accuracy, how they were made."""
    card: dict[str, Any] = json.loads((WEIGHTS / f"{name}.json").read_text())
    return card


@dataclass(frozen=True)
class Statistics:
    """n, Σx and Σxxᵀ of feature vectors, float64. Parts add up: a + b is the statistics of both."""

    count: int
    total: Tensor  # (dimensions,)
    products: Tensor  # (dimensions, dimensions)

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(self.count + other.count, self.total + other.total, self.products + other.products)

    def __sub__(self, other: "Statistics") -> "Statistics":
        return Statistics(self.count - other.count, self.total - other.total, self.products - other.products)

    @property
    def mean(self) -> Tensor:
        """(dimensions,)"""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """(dimensions, dimensions), with the divisor n − 1."""
        return (self.products - torch.outer(self.total, self.mean)) / (self.count - 1)

    @property
    def fingerprint(self) -> str:
        """A hash of the sums: names the reference that a distance was measured against."""
        digest = hashlib.sha256(str(self.count).encode())
        for part in (self.total, self.products):
            digest.update(part.cpu().numpy().tobytes())
        return f"sha256:{digest.hexdigest()}"


def statistics(features: Tensor) -> Statistics:
    """features: (count, dimensions) → their sums."""
    x = features.double()
    return Statistics(len(x), x.sum(0), x.T @ x)


def frechet_distance(mean_a: Any, cov_a: Any, mean_b: Any, cov_b: Any) -> float:
    """The Fréchet distance of two Gaussians: means (dimensions,), covariances (dimensions, dimensions), float64.

    tr((Σ_aΣ_b)^½) = tr((A·Σ_b·A)^½) with A = Σ_a^½: symmetric eigen-problems only, so rank-deficient covariances
    need no special care and nothing turns complex.
    """
    mean_a, cov_a, mean_b, cov_b = (
        torch.as_tensor(part, dtype=torch.float64) for part in (mean_a, cov_a, mean_b, cov_b)
    )
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = root @ cov_b @ root
    cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def distance(a: Statistics, b: Statistics) -> float:
    """The Fréchet distance between two sets of features."""
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)


def distance_with_error(chunks: list[Statistics], reference: Statistics) -> tuple[float, float]:
    """The distance of all chunks together, and its standard error from leaving one chunk out at a time.

    The error is the jackknife's, over the samples alone: it says nothing of another training seed.
    """
    whole = sum(chunks[1:], chunks[0])
    values = np.array([distance(whole - chunk, reference) for chunk in chunks])
    error = np.sqrt((len(values) - 1) * values.var())
    return distance(whole, reference), float(error)


def noise_floor(features: Tensor, samples: int, splits: int = 20) -> float:
    """What a perfect model would score with `samples` samples: real against real, extrapolated in 1/n.

    features: (count, dimensions) of the whole reference. Two disjoint random parts of n real images differ by
    a·(1/n + 1/n) in expectation; a is averaged over splits of several sizes and read at 1/samples + 1/count.
    """
    count = len(features)
    random = generator(0, 0, "noise floor")
    slopes = []
    for size in (count // 4, count // 3, count // 2):
        for _ in range(splits):
            order = torch.randperm(count, generator=random)
            a, b = features[order[:size]], features[order[size : 2 * size]]
            slopes.append(distance(statistics(a), statistics(b)) * size / 2)
    return float(np.mean(slopes)) * (1 / samples + 1 / count)


def metric_name(extractor: str, samples: int) -> str:
    """`fd_digits_2k`: every distance says its features and its count."""
    count = f"{samples // 1000}k" if samples % 1000 == 0 else str(samples)
    return f"fd_{extractor}_{count}"


def register_with_torch_fidelity(name: str) -> str:
    """Make an extractor usable as torch_fidelity's `feature_extractor=`; returns the name it has there."""
    from torch_fidelity import FeatureExtractorBase, register_feature_extractor
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    registered = f"mpdit-{name}"

    class Registered(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name_there: str, features_list: list[str], **_options: object) -> None:
            super().__init__(name_there, features_list)
            self.extractor = load_extractor(name).network

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            raise NotImplementedError

        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (self.extractor(images),)

    if registered not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(registered, Registered)
    return registered
