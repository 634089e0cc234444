"""Heun's method: second-order steps of the probability-flow ODE, of two evaluations each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler, Sampler

if TYPE_CHECKING:
    from torch import Tensor


def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
    """Take second-order steps; the last one, to σ = 0, is of first order. Algorithm 1 of arXiv 2206.00364."""
    for sigma, sigma_next in itertools.pairwise(sigmas.double().tolist()):
        d_cur = (x - denoise(x, sigma).denoised) / sigma
        x_next = x + (sigma_next - sigma) * d_cur
        if sigma_next > 0:
            d_cur = (d_cur + (x_next - denoise(x_next, sigma_next, sigma).denoised) / sigma_next) / 2
            x_next = x + (sigma_next - sigma) * d_cur
        x = x_next
    return x


def _starts(sigmas: list[float]) -> list[float]:
    """Return the start of every step twice, of the last one, whose end is σ = 0, once."""
    return sigmas[:-1] + sigmas[:-2]


SAMPLERS.register(Sampler("heun", "second-order steps, arXiv 2206.00364; NFE = 2·steps − 1", heun, _starts))
