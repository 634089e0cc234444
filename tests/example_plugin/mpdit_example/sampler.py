"""DDIM from noise of another size: `evaluation.sampler.temperature` is a post-hoc axis, as all of a sampler is."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt
from torch import Tensor

from mpdit.diffusion.samplers.ddim import ddim
from mpdit.diffusion.samplers.registry import SAMPLERS, Denoise, NoiseSampler, once_a_step


@SAMPLERS.register
@dataclass(frozen=True)
class Tempered:
    """temperature: the factor on the noise that sampling starts from."""

    name: ClassVar[str] = "example.tempered"
    doc: ClassVar[str] = "DDIM from noise times a temperature; NFE = steps"
    temperature: Annotated[float, Gt(0)] = 1.0

    def draw(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise_sampler: NoiseSampler) -> Tensor:
        """x: (batch, channels, height, width) → images of the same shape."""
        return ddim(denoise, x * self.temperature, sigmas, noise_sampler)

    def starts_of_evaluations(self, sigmas: list[float]) -> list[float]:
        """The level at which each step starts."""
        return once_a_step(sigmas)
