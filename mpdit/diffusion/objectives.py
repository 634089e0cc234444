"""Objectives: how an image is noised, what the network is asked, and how its answer becomes an image.

All speak of one image x = clean + σ·noise and give one thing, an estimate D(x; σ) of the clean image, so that
samplers, guidance and scores need not know them:

- `edm`: arXiv 2206.00364 (Table 1), with the log-normal noise levels of arXiv 2312.02696;
- `ddpm`: arXiv 2006.11239 with the learned variance of arXiv 2102.09672, as DiT uses them;
- `flow`: rectified flow, arXiv 2209.03003.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mpdit.errors import input_error, nearest
from mpdit.model.layers import FourierFeatures
from mpdit.model.transformer import Architecture, Transformer, build_transformer
from mpdit.schedules import DDPM_STEPS, FLOW_EDGE, ddpm_schedule, ddpm_sigmas, edm_schedule, flow_schedule

UNCERTAINTY_CHANNELS = 128


@dataclass(frozen=True)
class Edm:
    """ln σ ~ N(p_mean, p_std²); the network predicts a blend of clean image and noise that has unit magnitude.

    `uncertainty` divides each level's loss by a learned e^u and adds u. Eq. 21 of arXiv 2312.02696.
    """

    name: ClassVar[str] = "edm"
    learned_variance: ClassVar[bool] = False
    sigma_data: float  # standard deviation of the data's pixels
    p_mean: float = -0.4
    p_std: float = 1.0
    uncertainty: bool = False

    def noise_levels(self, normal: Tensor) -> Tensor:
        """Standard normal values (batch,) → σ (batch,)."""
        return torch.exp(self.p_mean + self.p_std * normal)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(c_skip, c_out) of D = c_skip·x + c_out·F. Table 1 of arXiv 2206.00364."""
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data * torch.rsqrt(total)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """λ(σ) of λ·‖D − clean‖²: (batch,) → (batch,). 1/c_out², so F's own error counts alike at every level."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def noise_schedule(self, steps: int) -> Tensor:
        """The levels of a sampler: (steps + 1,)."""
        return edm_schedule(steps)


@dataclass(frozen=True)
class Ddpm:
    """1000 steps with linear betas; the network predicts the noise, and the variance of the step back."""

    name: ClassVar[str] = "ddpm"
    learned_variance: ClassVar[bool] = True
    uncertainty: ClassVar[bool] = False
    sigma_data: float

    def noise_levels(self, normal: Tensor) -> Tensor:
        """Standard normal values (batch,) → σ (batch,), one of the 1000 levels."""
        step = (torch.special.ndtr(normal) * DDPM_STEPS).long().clamp(max=DDPM_STEPS - 1)
        return ddpm_sigmas().to(normal)[step]

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D = x − σ·ε̂. Eq. 9 of arXiv 2006.11239."""
        return torch.ones_like(sigma), -sigma

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """1/σ²: λ·‖D − clean‖² is ‖ε̂ − ε‖². Eq. 14 of arXiv 2006.11239."""
        return sigma**-2

    def noise_schedule(self, steps: int) -> Tensor:
        """The levels of a sampler: (steps + 1,)."""
        return ddpm_schedule(steps)


@dataclass(frozen=True)
class Flow:
    """Rectified flow: t uniform, σ = t/(1 − t); the network predicts the velocity noise − clean, at unit magnitude."""

    name: ClassVar[str] = "flow"
    learned_variance: ClassVar[bool] = False
    uncertainty: ClassVar[bool] = False
    sigma_data: float

    def noise_levels(self, normal: Tensor) -> Tensor:
        """Standard normal values (batch,) → σ (batch,)."""
        t = FLOW_EDGE + (1 - 2 * FLOW_EDGE) * torch.special.ndtr(normal)
        return t / (1 - t)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """D = z − t·v with z = (1 − t)·x and v = √(1 + σ_d²)·F. Eq. 1 of arXiv 2209.03003."""
        return 1 / (1 + sigma), -sigma / (1 + sigma) * math.hypot(1, self.sigma_data)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """1/t²: λ·‖D − clean‖² is the velocity's squared error."""
        return (1 + 1 / sigma) ** 2

    def noise_schedule(self, steps: int) -> Tensor:
        """The levels of a sampler: (steps + 1,)."""
        return flow_schedule(steps)


Objective = Edm | Ddpm | Flow
OBJECTIVES: dict[str, type[Edm] | type[Ddpm] | type[Flow]] = {"edm": Edm, "ddpm": Ddpm, "flow": Flow}


def objective_as_dict(objective: Objective) -> dict[str, Any]:
    """Name and fields as plain values."""
    return {"name": objective.name, **dataclasses.asdict(objective)}


def objective_from(fields: dict[str, Any]) -> Objective:
    """The objective of which `objective_as_dict` gave the fields. Raises InputError for an unknown name."""
    name = fields["name"]
    if name not in OBJECTIVES:
        raise input_error(
            f"no objective {name!r}", given=name, nearest=nearest(name, OBJECTIVES), allowed=list(OBJECTIVES)
        )
    return OBJECTIVES[name](**{key: value for key, value in fields.items() if key != "name"})


class Estimate(NamedTuple):
    """What a denoiser says of noisy images."""

    clean: Tensor  # (batch, channels, resolution, resolution) fp32
    variance: Tensor | None  # the same shape, about −1 … 1: where the step back's ln variance lies between its bounds
    uncertainty: Tensor | None  # (batch,) the level's u


class Denoiser(nn.Module):
    """D(x; σ): noisy images to expected clean images, around a network of unit-magnitude inputs and targets.

    x: (batch, channels, resolution, resolution), sigma: (batch,) or (1,) for all, labels: (batch,) int64 → x's shape.
    D = c_skip·x + c_out·F(c_in·x; ln(σ)/4) with c_in = 1/√(σ² + σ_d²). Eq. 7 of arXiv 2206.00364.
    """

    def __init__(self, network: Transformer, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self.uncertainty: nn.Sequential | None = None
        if objective.uncertainty:
            self.uncertainty = nn.Sequential(FourierFeatures(UNCERTAINTY_CHANNELS), nn.Linear(UNCERTAINTY_CHANNELS, 1))
            for parameter in self.uncertainty.parameters():
                nn.init.zeros_(parameter)

    def estimate(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Estimate:
        """All that the network says; `forward` gives the clean images alone."""
        s, level = sigma.reshape(-1, 1, 1, 1), sigma.log() / 4
        inner = torch.rsqrt(s**2 + self.objective.sigma_data**2)
        answer = self.network(x * inner, level, labels).float()
        variance = None
        if self.objective.learned_variance:
            answer, variance = answer.chunk(2, dim=1)
        skip, out = self.objective.coefficients(s)
        uncertainty = self.uncertainty(level).squeeze(1) if self.uncertainty is not None else None
        return Estimate(skip * x + out * answer, variance, uncertainty)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return self.estimate(x, sigma, labels).clean

    @property
    def no_class(self) -> int:
        """The label that means "no class", used for guidance and for label dropout."""
        return self.network.architecture.classes


def build_denoiser(architecture: Architecture, objective: Objective, seed: int) -> Denoiser:
    """A denoiser with weights drawn from the seed alone, on the CPU."""
    return Denoiser(build_transformer(architecture, seed), objective)


class DenoisingLoss(nn.Module):
    """The mean loss of a batch, () fp32: a module, so that compilers and several processes can wrap it.

    images: (batch, channels, resolution, resolution), labels: (batch,) int64, noise: (batch, 1 + channels·resolution²)
    standard normal; its first column chooses the level.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, images: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        objective = self.denoiser.objective
        sigma = objective.noise_levels(noise[:, 0])
        noisy = images + sigma.reshape(-1, 1, 1, 1) * noise[:, 1:].reshape(images.shape)
        said = self.denoiser.estimate(noisy, sigma, labels)
        loss = objective.loss_weight(sigma) * (said.clean - images).square().mean(dim=(1, 2, 3))
        if said.uncertainty is not None:
            loss = loss * torch.exp(-said.uncertainty) + said.uncertainty
        if said.variance is not None:
            loss = loss + variational_bound(images, noisy, said.clean.detach(), said.variance, sigma)
        return loss.mean()


def step_back(sigma: Tensor, then: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """DDPM's step from level σ to a lower one, in x = clean + σ·noise: (share of x, lower and upper variance).

    The mean is clean + share·(x − clean), share = σ'²/σ². The variance lies between that of the exact posterior,
    which knows the clean image, and that of the noising step. Eq. 7 of arXiv 2006.11239, divided by ᾱ'.
    """
    share = (then / sigma) ** 2
    span = sigma**2 - then**2
    return share, share * span, span * (1 + then**2) / (1 + sigma**2)


def learned_log_variance(variance: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """ln of the variance at the place −1 … 1 between the two bounds. Eq. 15 of arXiv 2102.09672."""
    fraction = (variance + 1) / 2
    return fraction * upper.log() + (1 - fraction) * lower.log()


def variational_bound(images: Tensor, noisy: Tensor, clean: Tensor, variance: Tensor, sigma: Tensor) -> Tensor:
    """DDPM's term of the variational bound for one step, in bits per dimension: (batch,).

    KL(q(x'|x, clean image) ‖ p(x'|x)); for the last step the negative log-likelihood of the image's 8-bit values in
    −1 … 1. Only `variance` is to learn from it. Eq. 4 of arXiv 2102.09672.
    """
    table = ddpm_sigmas().to(sigma)
    index = torch.searchsorted(table, sigma - 1e-3 * sigma)
    below = torch.cat([table.new_zeros(1), table])[index].reshape(-1, 1, 1, 1)
    first = index.reshape(-1, 1, 1, 1) == 0
    share, lower, upper = step_back(sigma.reshape(-1, 1, 1, 1), below)
    _, second_lower, _ = step_back(table[1], table[0])  # the last step's own lower bound is 0: the one before stands in
    lower = torch.where(first, second_lower / (1 + table[0] ** 2), lower)
    guess = learned_log_variance(variance, lower, upper)
    gap = (1 - share) * (images - clean)
    divergence = 0.5 * (guess - lower.log() + (lower + gap**2) * torch.exp(-guess) - 1)
    nats = torch.where(first, _discretized_surprise(images, clean, 0.5 * guess), divergence)
    return nats.mean(dim=(1, 2, 3)) / math.log(2)


def _discretized_surprise(images: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """−ln of a Gaussian's mass on the 8-bit bin around each value; the outer bins reach to infinity."""
    inverse = torch.exp(-log_scale)
    above = torch.special.ndtr((images - mean + 1 / 255) * inverse)
    below = torch.special.ndtr((images - mean - 1 / 255) * inverse)
    above = torch.where(images > 0.999, 1.0, above)
    below = torch.where(images < -0.999, 0.0, below)
    return -(above - below).clamp_min(1e-12).log()
