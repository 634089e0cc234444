"""iPNDM: Adams–Bashforth steps of the probability-flow ODE, of one evaluation each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from mpdit.diffusion.multistep import adams_weights
from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler, once_a_step

if TYPE_CHECKING:
    from torch import Tensor


@SAMPLERS.register
@dataclass(frozen=True)
class Ipndm:
    """Extrapolate the slopes (x − D)/σ of the last steps through the next one, with the weights of unequal steps.

    arXiv 2204.13902, where iPNDM has the weights of equal steps, and tAB-DEIS these. history: slopes used.
    """

    name: ClassVar[str] = "ipndm"
    doc: ClassVar[str] = "Adams–Bashforth over the last slopes, arXiv 2204.13902; NFE = steps"
    history: Annotated[int, Ge(1), Le(4)] = 4

    def draw(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
        """x: (batch, channels, height, width) → images of the same shape."""
        slopes: list[Tensor] = []
        places: list[float] = []
        for sigma, sigma_next in itertools.pairwise(sigmas.double().tolist()):
            slopes = [(x - denoise(x, sigma).denoised) / sigma, *slopes[: self.history - 1]]
            places = [sigma, *places[: self.history - 1]]
            for weight, slope in zip(adams_weights(places, sigma, sigma_next), slopes, strict=True):
                x = x + weight * slope
        return x

    def starts_of_evaluations(self, sigmas: list[float]) -> list[float]:
        """The level at which each step starts."""
        return once_a_step(sigmas)
