"""DDPM: the network predicts the noise, and the variance of the step back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.diffusion.objectives.registry import OBJECTIVES
from mpdit.lazy_modules import lazy_module
from mpdit.registry import not_a_setting
from mpdit.schedules import DDPM_STEPS, ddpm_schedule, ddpm_sigmas

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@OBJECTIVES.register
@dataclass(frozen=True)
class Ddpm:
    """1000 steps with linear betas; the network predicts the noise, and the variance of the step back."""

    name: ClassVar[str] = "ddpm"
    doc: ClassVar[str] = "arXiv 2006.11239 with the learned variance of arXiv 2102.09672, as DiT uses them"
    learned_variance: ClassVar[bool] = True
    uncertainty: ClassVar[bool] = False
    sigma_data: float = not_a_setting(0.5)
    pixels: bool = not_a_setting(True)

    def noise_levels(self, normal: Tensor) -> Tensor:
        """Turn standard normal values (batch,) into noise levels σ (batch,), each one of the 1000."""
        step = (torch.special.ndtr(normal) * DDPM_STEPS).long().clamp(max=DDPM_STEPS - 1)
        return ddpm_sigmas().to(normal)[step]

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (c_skip, c_out) of D = x − σ·ε̂. Eq. 9 of arXiv 2006.11239."""
        return torch.ones_like(sigma), -sigma

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Return λ = 1/σ²: λ·‖D − clean‖² is ‖ε̂ − ε‖². Eq. 14 of arXiv 2006.11239."""
        return sigma**-2

    def noise_schedule(self, steps: int) -> Tensor:
        """Return the levels of a sampler: (steps + 1,)."""
        return ddpm_schedule(steps)
