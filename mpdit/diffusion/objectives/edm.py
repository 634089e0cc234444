"""EDM: log-normal noise levels, and a preconditioned target of unit magnitude."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt

from mpdit.diffusion.objectives.registry import OBJECTIVES
from mpdit.lazy_modules import lazy_module
from mpdit.registry import not_a_setting
from mpdit.schedules import edm_schedule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

P_MEAN, SIGMA_DATA = -0.4, 0.5  # EDM2's; the first is of noise beside data of the second


@OBJECTIVES.register
@dataclass(frozen=True)
class Edm:
    """ln σ ~ N(p_mean, p_std²); the network predicts a blend of clean image and noise that has unit magnitude.

    `uncertainty` divides each level's loss by a learned e^u and adds u. Eq. 21 of arXiv 2312.02696. `p_mean` None is
    EDM2's −0.4 for pixels; latents here have the standard deviation 1 where EDM2's have 0.5, so it is ln 2 more there.
    """

    name: ClassVar[str] = "edm"
    doc: ClassVar[str] = "arXiv 2206.00364 (Table 1), with the log-normal noise levels of arXiv 2312.02696"
    learned_variance: ClassVar[bool] = False
    sigma_data: float = not_a_setting(0.5)  # standard deviation of the data's values
    pixels: bool = not_a_setting(True)  # or latents
    p_mean: float | None = None  # of ln σ
    p_std: Annotated[float, Gt(0)] = 1.0  # of ln σ
    uncertainty: bool = False

    @property
    def mean(self) -> float:
        """The mean of ln σ: `p_mean`, or the default for this data."""
        if self.p_mean is not None:
            return self.p_mean
        return P_MEAN if self.pixels else round(P_MEAN + math.log(self.sigma_data / SIGMA_DATA), 4)

    def noise_levels(self, normal: Tensor) -> Tensor:
        """Turn standard normal values (batch,) into noise levels σ (batch,)."""
        return torch.exp(self.mean + self.p_std * normal)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (c_skip, c_out) of D = c_skip·x + c_out·F. Table 1 of arXiv 2206.00364."""
        total = sigma**2 + self.sigma_data**2
        return self.sigma_data**2 / total, sigma * self.sigma_data * torch.rsqrt(total)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Return λ(σ) of λ·‖D − clean‖²: (batch,) → (batch,). 1/c_out²: F's error has one weight at all levels."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def noise_schedule(self, steps: int) -> Tensor:
        """Return the levels of a sampler: (steps + 1,)."""
        return edm_schedule(steps)
