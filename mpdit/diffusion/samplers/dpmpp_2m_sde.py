"""DPM-Solver++(2M) of the reverse SDE: each step adds noise, whose amount is a setting."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler, once_a_step

if TYPE_CHECKING:
    from torch import Tensor


@SAMPLERS.register
@dataclass(frozen=True)
class Dpmpp2mSde:
    """x' = (σ'/σ)·e^(−ηh)·x + (1 − e^(−h−ηh))·(D + h/(2h_last)·(D − D_last)) + σ'·√(1 − e^(−2ηh))·noise, h = ln(σ/σ').

    SDE-DPM-Solver++(2M) of arXiv 2211.01095, where η is 1; the last step adds nothing.

    eta: 0 is the probability-flow ODE, and dpm++2m.
    """

    name: ClassVar[str] = "dpm++2m-sde"
    doc: ClassVar[str] = "SDE-DPM-Solver++(2M), adds noise, arXiv 2211.01095; NFE = steps"
    eta: Annotated[float, Ge(0)] = 1.0

    def draw(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
        """x: (batch, channels, height, width) → images of the same shape."""
        old_denoised: Tensor | None = None
        h_last = 0.0
        for i, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas.double().tolist())):
            denoised = denoise(x, sigma).denoised
            if sigma_next == 0:
                return denoised
            h = math.log(sigma / sigma_next)
            target = denoised
            if old_denoised is not None:
                target = denoised + (denoised - old_denoised) * (h / (2 * h_last))
            kept = math.exp(-self.eta * h)
            x = (sigma_next / sigma) * kept * x - math.expm1(-h - self.eta * h) * target
            if self.eta:
                x = x + sigma_next * math.sqrt(1 - kept**2) * noise_sampler(i)
            old_denoised, h_last = denoised, h
        return x

    def starts_of_evaluations(self, sigmas: list[float]) -> list[float]:
        """The level at which each step starts."""
        return once_a_step(sigmas)
