"""The denoiser D(x; σ): a network and an objective, which together estimate the clean image."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mpdit.diffusion.objectives.registry import Objective
from mpdit.model.architecture import Architecture
from mpdit.model.layers import FourierFeatures
from mpdit.model.transformer import Transformer, build_transformer

LOGVAR_CHANNELS = 128


class Estimate(NamedTuple):
    """What a denoiser estimates from noisy images."""

    denoised: Tensor  # D(x; σ), the expected clean images: (batch, channels, resolution, resolution) fp32
    variance: Tensor | None  # the same shape, about −1 … 1: where the step back's ln variance lies between its bounds
    logvar: Tensor | None  # (batch,) the learned u(σ): the log of each noise level's expected loss


class Denoiser(nn.Module):
    """D(x; σ): noisy images to expected clean images, around a network of unit-magnitude inputs and targets.

    x: (batch, channels, resolution, resolution), sigma: (batch,) or (1,) for all, labels: (batch,) int64 → x's shape.
    D = c_skip·x + c_out·F(c_in·x; ln(σ)/4) with c_in = 1/√(σ² + σ_d²). Eq. 7 of arXiv 2206.00364.
    """

    def __init__(self, network: Transformer, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self.logvar: nn.Sequential | None = None
        if objective.uncertainty:
            self.logvar = nn.Sequential(FourierFeatures(LOGVAR_CHANNELS), nn.Linear(LOGVAR_CHANNELS, 1))
            for parameter in self.logvar.parameters():
                nn.init.zeros_(parameter)

    def estimate(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Estimate:
        """Return all that the network estimates; `forward` returns the denoised images alone."""
        s, c_noise = sigma.reshape(-1, 1, 1, 1), sigma.log() / 4
        c_in = torch.rsqrt(s**2 + self.objective.sigma_data**2)
        model_output = self.network(x * c_in, c_noise, labels).float()
        variance = None
        if self.objective.learned_variance:
            model_output, variance = model_output.chunk(2, dim=1)
        c_skip, c_out = self.objective.coefficients(s)
        logvar = self.logvar(c_noise).squeeze(1) if self.logvar is not None else None
        return Estimate(c_skip * x + c_out * model_output, variance, logvar)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        return self.estimate(x, sigma, labels).denoised

    @property
    def no_class(self) -> int:
        """The label that means "no class", for guidance and for label dropout."""
        return self.network.architecture.classes


def build_denoiser(architecture: Architecture, objective: Objective, seed: int) -> Denoiser:
    """Build a denoiser with weights drawn from the seed alone, on the CPU."""
    return Denoiser(build_transformer(architecture, seed), objective)
