"""DPM-Solver++(3M): a third-order multistep method that evaluates the network once a step."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from mpdit.diffusion.multistep import exponential_weights
from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler, PlainSampler

if TYPE_CHECKING:
    from torch import Tensor

ORDER = 3


def dpmpp_3m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
    """Integrate the polynomial in λ = −ln σ through the last three predictions; the last step is of first order.

    The multistep method of arXiv 2211.01095 with the second derivative in full: the published code takes half of it, so
    that its order is two.
    """
    history: list[Tensor] = []
    places: list[float] = []
    for sigma, sigma_next in itertools.pairwise(sigmas.double().tolist()):
        history = [denoise(x, sigma).denoised, *history[: ORDER - 1]]
        places = [-math.log(sigma), *places[: ORDER - 1]]
        if sigma_next == 0:
            return history[0]
        weights = exponential_weights(places, places[0], -math.log(sigma_next))
        x = (sigma_next / sigma) * x
        for weight, denoised in zip(weights, history, strict=True):
            x = x + weight * denoised
    return x


SAMPLERS.register(PlainSampler("dpm++3m", "DPM-Solver++(3M), third order, arXiv 2211.01095; NFE = steps", dpmpp_3m))
