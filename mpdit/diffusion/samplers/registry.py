"""What a sampler is, and the registry of all samplers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from mpdit.diffusion.denoiser import Estimate


class Denoise(Protocol):
    """The network, with its guidance: noisy images and their level to the Estimate of the clean ones.

    step: the level at which the step starts that the evaluation belongs to, so that all its evaluations are guided
    alike; sigma where it is not given.
    """

    def __call__(self, x: Tensor, sigma: float, step: float | None = None) -> Estimate: ...


NoiseSampler = Callable[[int], "Tensor"]


def once_a_step(sigmas: list[float]) -> list[float]:
    """Return the level at the start of each step, for samplers that evaluate the network once a step: NFE = steps."""
    return sigmas[:-1]


class Sampler(Protocol):
    """One way from noise to images, along descending noise levels.

    name: how an evaluation names it. doc: what it is, with its source and its NFE (network evaluations for one image).
    """

    @property
    def name(self) -> str: ...

    @property
    def doc(self) -> str: ...

    def draw(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler, /) -> Tensor:
        """Draw images.

        Args:
            denoise: `denoise(x, sigma)` gives the Estimate of the clean images; see `Denoise`.
            x: noise (batch, channels, height, width) of standard deviation sigmas[0].
            sigmas: (steps + 1,), descending to 0.
            noise_sampler: `noise_sampler(i)` gives the standard normal noise, of x's shape, that step i may add.
                Samplers of the probability-flow ODE do not call it.

        Returns:
            The images, of x's shape.
        """

    def starts_of_evaluations(self, sigmas: list[float], /) -> list[float]:
        """Return, for each network evaluation, the level at which its step starts; their number is the NFE."""


@dataclass(frozen=True)
class PlainSampler:
    """A sampler without settings, whose `draw` is a function; one with settings is a frozen dataclass of its own."""

    name: str
    doc: str
    draw: Callable[[Denoise, Tensor, Tensor, NoiseSampler], Tensor]
    starts_of_evaluations: Callable[[list[float]], list[float]] = once_a_step


SAMPLERS: Registry[Sampler | type[Sampler]] = Registry("sampler", __package__)
