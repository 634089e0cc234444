"""DDPM's ancestral sampling, which adds noise at every step but the last."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler, PlainSampler
from mpdit.diffusion.variational_bound import learned_log_variance, step_back
from mpdit.lazy_modules import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


def ddpm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
    """Take DDPM's steps back. Algorithm 2 of arXiv 2006.11239, respaced as in §4 of arXiv 2102.09672.

    The variance is the network's where it has learned one, else the exact posterior's (the smaller bound).
    """
    for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas.double().tolist())):
        estimate = denoise(x, sigma)
        mean_coef, lower, upper = step_back(*torch.tensor([sigma, sigma_next], dtype=torch.float64))
        x = estimate.denoised + float(mean_coef) * (x - estimate.denoised)
        if sigma_next > 0:
            std: float | Tensor = float(lower.sqrt())
            if estimate.variance is not None:
                std = torch.exp(0.5 * learned_log_variance(estimate.variance, lower.to(x), upper.to(x)))
            x = x + std * noise_sampler(i)
    return x


SAMPLERS.register(PlainSampler("ddpm", "DDPM's ancestral steps, arXiv 2006.11239; NFE = steps", ddpm))
