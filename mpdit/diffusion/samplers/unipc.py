"""UniPC: a multistep predictor, and a corrector that costs no evaluation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from mpdit.diffusion.multistep import exponential_weights
from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler, once_a_step

if TYPE_CHECKING:
    from torch import Tensor


@SAMPLERS.register
@dataclass(frozen=True)
class Unipc:
    """Predict with the last `order` predictions; once the network has seen the new state, do the step again with it.

    arXiv 2302.04867 in λ = −ln σ for the denoised image, where every system is solved, also those of one unknown, for
    which the published code takes one half. The last step is of first order.
    """

    name: ClassVar[str] = "unipc"
    doc: ClassVar[str] = "a predictor, and a corrector by the next step's evaluation, arXiv 2302.04867; NFE = steps"
    order: Annotated[int, Ge(1), Le(3)] = 3

    def draw(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
        """x: (batch, channels, height, width) → images of the same shape."""
        before = x  # the corrected state at the start of the last step
        history: list[Tensor] = []
        places: list[float] = []
        for sigma, sigma_next in itertools.pairwise(sigmas.double().tolist()):
            history = [denoise(x, sigma).denoised, *history[: self.order]]
            places = [-math.log(sigma), *places[: self.order]]
            if len(places) > 1:
                x = _step(before, places, places[1], places[0], history)
            if sigma_next == 0:
                return history[0]
            before = x
            x = _step(x, places[: self.order], places[0], -math.log(sigma_next), history)
        return x

    def starts_of_evaluations(self, sigmas: list[float]) -> list[float]:
        """The level at which each step starts."""
        return once_a_step(sigmas)


def _step(x: Tensor, places: Sequence[float], start: float, end: float, history: Sequence[Tensor]) -> Tensor:
    """Take one step with the predictions at some places; more of them may be there."""
    x = math.exp(start - end) * x
    for weight, denoised in zip(exponential_weights(places, start, end), history, strict=False):
        x = x + weight * denoised
    return x
