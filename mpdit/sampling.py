"""Samplers: from noise to images along the probability-flow ODE. One function each, one signature.

Each takes `denoise(x, sigma) -> clean images`, a start x: (batch, channels, height, width) of standard
deviation sigmas[0], and sigmas: (steps + 1,) descending to 0, and returns the images.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from mpdit.diffusion import Denoiser

Denoise = Callable[[Tensor, Tensor], Tensor]
Sampler = Callable[[Denoise, Tensor, Tensor], Tensor]

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 80.0, 7.0


def noise_schedule(steps: int) -> Tensor:
    """σ_0 = 80 … σ_{steps−1} = 0.002, then 0: (steps + 1,) fp32. Eq. 5 of arXiv 2206.00364, ρ = 7."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)
    low, high = SIGMA_MIN ** (1 / RHO), SIGMA_MAX ** (1 / RHO)
    return torch.cat([(high + ramp * (low - high)) ** RHO, torch.zeros(1, dtype=torch.float64)]).float()


def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """First-order steps; DDIM (arXiv 2010.02502) in the variables of arXiv 2206.00364. NFE = steps."""
    for now, then in itertools.pairwise(sigmas):
        clean = denoise(x, now)
        x = clean + (then / now) * (x - clean)
    return x


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """Second-order steps, the last one of first order. Algorithm 1 of arXiv 2206.00364. NFE = 2·steps − 1."""
    for now, then in itertools.pairwise(sigmas):
        slope = (x - denoise(x, now)) / now
        ahead = x + (then - now) * slope
        if then > 0:
            slope = (slope + (ahead - denoise(ahead, then)) / then) / 2
            ahead = x + (then - now) * slope
        x = ahead
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M), Algorithm 2 of arXiv 2211.01095: second order at NFE = steps."""
    before: Tensor | None = None
    span_before = sigmas.new_zeros(())
    for now, then in itertools.pairwise(sigmas):
        clean = denoise(x, now)
        span = (now / then).log()  # in log-SNR/2; infinite at the last step, which is of first order
        target = clean
        if before is not None and then > 0:
            target = clean + (clean - before) * (span / (2 * span_before))
        x = (then / now) * x + (1 - then / now) * target
        before, span_before = clean, span
    return x


SAMPLERS: dict[str, Sampler] = {"ddim": ddim, "heun": heun, "dpm++2m": dpmpp_2m}


def evaluations(sampler: str, steps: int, guidance: float) -> int:
    """NFE: how many times the network is evaluated for one image."""
    return (2 * steps - 1 if sampler == "heun" else steps) * (1 if guidance == 1 else 2)


def guided(denoiser: Denoiser, labels: Tensor, guidance: float) -> Denoise:
    """Classifier-free guidance: D(x; ∅) + guidance·(D(x; c) − D(x; ∅)). Eq. 6 of arXiv 2207.12598.

    labels: (batch,) int64. A guidance scale of 1 evaluates the conditional network alone.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.expand(x.shape[0])
        if guidance == 1:
            return denoiser(x, level, labels)
        both = torch.cat([labels, torch.full_like(labels, denoiser.no_class)])
        conditional, free = denoiser(x.repeat(2, 1, 1, 1), level.repeat(2), both).chunk(2)
        return free + guidance * (conditional - free)

    return denoise


@torch.inference_mode()
def sample(denoiser: Denoiser, noise: Tensor, labels: Tensor, sampler: str, steps: int, guidance: float) -> Tensor:
    """Images for unit noise: (batch, channels, height, width) → the same shape, about −1 … 1."""
    sigmas = noise_schedule(steps).to(noise.device)
    return SAMPLERS[sampler](guided(denoiser, labels, guidance), noise * sigmas[0], sigmas)
