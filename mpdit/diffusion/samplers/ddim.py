"""DDIM: first-order steps of the probability-flow ODE."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler, PlainSampler

if TYPE_CHECKING:
    from torch import Tensor


def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
    """Take first-order steps. Eq. 12 of arXiv 2010.02502 with σ_τ = 0; for rectified flow it is Euler's method in t."""
    for sigma, sigma_next in itertools.pairwise(sigmas.double().tolist()):
        denoised = denoise(x, sigma).denoised
        x = denoised + (sigma_next / sigma) * (x - denoised)
    return x


SAMPLERS.register(PlainSampler("ddim", "first-order steps, arXiv 2010.02502; NFE = steps", ddim))
