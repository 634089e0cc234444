"""Objectives: how an image is noised, what the network is asked, and how its answer becomes an image.

`edm`: arXiv 2206.00364 (preconditioning, Table 1) with the log-normal noise levels of arXiv 2312.02696.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpdit.transformer import Architecture, Transformer, build_transformer


@dataclass(frozen=True)
class Edm:
    """ln σ ~ N(p_mean, p_std²); the loss is λ(σ)·‖D(x + σn; σ) − x‖² with λ = (σ² + σ_d²)/(σ·σ_d)²."""

    sigma_data: float  # standard deviation of the data's pixels
    p_mean: float = -0.4
    p_std: float = 1.0

    def noise_levels(self, normal: Tensor) -> Tensor:
        """Standard normal values (batch,) → σ (batch,)."""
        return torch.exp(self.p_mean + self.p_std * normal)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """λ(σ): (batch,) → (batch,). Makes every level's loss 1 for a network that answers 0."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


class Denoiser(nn.Module):
    """D(x; σ): noisy images to expected clean images, around a network of unit-magnitude inputs and targets.

    x: (batch, channels, resolution, resolution), sigma: (batch,), labels: (batch,) int64 → x's shape.
    D = c_skip·x + c_out·F(c_in·x; ln(σ)/4). Eq. 7 of arXiv 2206.00364.
    """

    def __init__(self, network: Transformer, objective: Edm) -> None:
        super().__init__()
        self.network = network
        self.objective = objective

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        s, d = sigma.reshape(-1, 1, 1, 1), self.objective.sigma_data
        total = s**2 + d**2
        answer = self.network(x * torch.rsqrt(total), sigma.log() / 4, labels).float()
        return x * (d**2 / total) + answer * (s * d * torch.rsqrt(total))

    @property
    def no_class(self) -> int:
        """The label that means "no class", used for guidance and for label dropout."""
        return self.network.architecture.classes


def build_denoiser(architecture: Architecture, objective: Edm, seed: int) -> Denoiser:
    """A denoiser with weights drawn from the seed alone, on the CPU."""
    return Denoiser(build_transformer(architecture, seed), objective)


def denoising_loss(denoiser: nn.Module, objective: Edm, images: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
    """The mean weighted squared error over a batch: () fp32.

    noise: (batch, 1 + channels·resolution²) standard normal; the first column chooses the level. Eq. 8 of 2206.00364.
    """
    sigma = objective.noise_levels(noise[:, 0])
    noisy = images + sigma.reshape(-1, 1, 1, 1) * noise[:, 1:].reshape(images.shape)
    error = (denoiser(noisy, sigma, labels) - images).square().mean(dim=(1, 2, 3))
    return (objective.loss_weight(sigma) * error).mean()
