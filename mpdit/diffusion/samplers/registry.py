"""What a sampler is, and the registry of all samplers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from mpdit.diffusion.denoiser import Estimate

Denoise = Callable[["Tensor", float], "Estimate"]
NoiseSampler = Callable[[int], "Tensor"]


def once_a_step(sigmas: list[float]) -> list[float]:
    """Return the level at the start of each step, for samplers that evaluate the network once a step: NFE = steps."""
    return sigmas[:-1]


@dataclass(frozen=True)
class Sampler:
    """One way from noise to images, along descending noise levels.

    Attributes:
        name: how an evaluation names it.
        doc: what it is, with its source and its NFE (network evaluations for one image).
        draw: `draw(denoise, x, sigmas, noise_sampler)` returns the images.
            denoise: `denoise(x, sigma)` gives the Estimate of the clean images.
            x: noise (batch, channels, height, width) of standard deviation sigmas[0].
            sigmas: (steps + 1,), descending to 0.
            noise_sampler: `noise_sampler(i)` gives the standard normal noise, of x's shape, that step i may add.
                Samplers of the probability-flow ODE do not call it.
        evaluated_sigmas: from sigmas to the levels at which the network is evaluated; their number is the NFE
            without guidance.
    """

    name: str
    doc: str
    draw: Callable[[Denoise, Tensor, Tensor, NoiseSampler], Tensor]
    evaluated_sigmas: Callable[[list[float]], list[float]] = once_a_step


SAMPLERS: Registry[Sampler] = Registry("sampler", __package__)
