"""DPM-Solver++(2M): a second-order multistep method that evaluates the network once a step."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler, PlainSampler

if TYPE_CHECKING:
    from torch import Tensor


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
    """Take second-order steps, the first and the last one of first order. Algorithm 2 of arXiv 2211.01095."""
    old_denoised: Tensor | None = None
    h_last = 0.0
    for sigma, sigma_next in itertools.pairwise(sigmas.double().tolist()):
        denoised = denoise(x, sigma).denoised
        h = math.log(sigma / sigma_next) if sigma_next > 0 else math.inf  # the step in λ = −ln σ, half the log-SNR
        target = denoised
        if old_denoised is not None and sigma_next > 0:
            target = denoised + (denoised - old_denoised) * (h / (2 * h_last))
        x = (sigma_next / sigma) * x + (1 - sigma_next / sigma) * target
        old_denoised, h_last = denoised, h
    return x


SAMPLERS.register(PlainSampler("dpm++2m", "DPM-Solver++(2M), second order, arXiv 2211.01095; NFE = steps", dpmpp_2m))
