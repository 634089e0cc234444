"""Noise levels in order: those of DDPM's training, and those of a sampler's steps.

A noise level is σ in x = clean + σ·noise, whatever the objective: DDPM's √ᾱ·clean + √(1 − ᾱ)·noise is the same
image divided by √ᾱ, with σ² = (1 − ᾱ)/ᾱ; rectified flow's (1 − t)·clean + t·noise has σ = t/(1 − t). Every
schedule returns (steps + 1,) fp32, descending, the last one 0.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from mpdit.lazy_modules import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0
DDPM_STEPS = 1000
FLOW_EDGE = 1e-3  # flow's t stays this far from 0 and 1, where σ would be 0 and infinite


def ddpm_sigmas() -> Tensor:
    """Return the levels of DDPM's 1000 steps with linear betas from 1e-4 to 0.02: (1000,) float64, ascending.

    §4 of arXiv 2006.11239.
    """
    alphas_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, DDPM_STEPS, dtype=torch.float64), 0)
    return ((1 - alphas_bar) / alphas_bar).sqrt()


def edm_schedule(steps: int) -> Tensor:
    """Return σ_0 = 80 … σ_{steps−1} = 0.002, then 0. Eq. 5 of arXiv 2206.00364, ρ = 7."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    return _down_to_zero((high + ramp * (low - high)) ** RHO)


def edm_levels(steps: int, rho: float = RHO, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> list[float]:
    """Return the levels of `edm_schedule` as plain numbers, for who counts a sampler's steps and draws none."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    ramp = [i / (steps - 1) for i in range(steps)] if steps > 1 else [0.0]
    return [*array("f", [(high + at * (low - high)) ** rho for at in ramp]), 0.0]


def ddpm_schedule(steps: int) -> Tensor:
    """Return the levels of DDPM steps evenly spaced from the last to the first: the respacing of arXiv 2102.09672."""
    index = torch.linspace(DDPM_STEPS - 1, 0, steps, dtype=torch.float64).round().long()
    return _down_to_zero(ddpm_sigmas()[index])


def flow_schedule(steps: int) -> Tensor:
    """Return the levels for t from 1 to 0 in equal steps, but no t beyond 1 − `FLOW_EDGE`. §3.1 of arXiv 2209.03003."""
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1].clamp(max=1 - FLOW_EDGE)
    return _down_to_zero(t / (1 - t))


def _down_to_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]).float()
