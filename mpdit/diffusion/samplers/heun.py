"""Heun's method: second-order steps of the probability-flow ODE, of two evaluations each, with noise added if asked."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler

if TYPE_CHECKING:
    from torch import Tensor

MOST_CHURN = math.sqrt(2) - 1  # no step adds more noise than there is


@SAMPLERS.register
@dataclass(frozen=True)
class Heun:
    """Take second-order steps; the last one, to σ = 0, is of first order. Algorithms 1 and 2 of arXiv 2206.00364.

    Attributes:
        churn: S_churn; over all steps, how much σ grows by the noise added before each of them; 0: no noise.
        churn_min, churn_max: S_tmin and S_tmax, the levels between which it is added.
        churn_noise: S_noise, the standard deviation of the noise, which makes up for detail that the network loses.
    """

    name: ClassVar[str] = "heun"
    doc: ClassVar[str] = "second-order steps, with noise if asked, arXiv 2206.00364; NFE = 2·steps − 1"
    churn: Annotated[float, Ge(0)] = 0.0
    churn_min: Annotated[float, Ge(0)] = 0.0
    churn_max: Annotated[float, Ge(0)] = 1000.0
    churn_noise: Annotated[float, Ge(0)] = 1.0

    def draw(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
        """x: (batch, channels, height, width) → images of the same shape."""
        levels = sigmas.double().tolist()
        for i, (start, sigma_next) in enumerate(itertools.pairwise(levels)):
            sigma = start
            if self.churn and self.churn_min <= start <= self.churn_max:
                sigma = start * (1 + min(self.churn / (len(levels) - 1), MOST_CHURN))
                x = x + math.sqrt(sigma**2 - start**2) * self.churn_noise * noise_sampler(i)
            d_cur = (x - denoise(x, sigma, start).denoised) / sigma
            x_next = x + (sigma_next - sigma) * d_cur
            if sigma_next > 0:
                d_cur = (d_cur + (x_next - denoise(x_next, sigma_next, start).denoised) / sigma_next) / 2
                x_next = x + (sigma_next - sigma) * d_cur
            x = x_next
        return x

    def starts_of_evaluations(self, sigmas: list[float]) -> list[float]:
        """The start of every step twice; of the last one, whose end is σ = 0, once."""
        return sigmas[:-1] + sigmas[:-2]
