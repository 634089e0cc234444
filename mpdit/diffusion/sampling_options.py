"""How samples are drawn, in plain values, and how many network evaluations that takes."""

from dataclasses import dataclass

from mpdit.diffusion.guidance_rules.cfg import Cfg
from mpdit.diffusion.guidance_rules.registry import GuidanceRule
from mpdit.diffusion.samplers.registry import Sampler

CFG = Cfg()


@dataclass(frozen=True)
class Guidance:
    """Guidance: its scale, the noise levels (σ low, σ high) that are guided, None for all, and its rule.

    A scale of 1 is no guidance. The interval is that of arXiv 2404.07724.
    """

    scale: float = 1.0
    interval: tuple[float, float] | None = None
    rule: GuidanceRule = CFG

    def acts_at(self, sigma: float) -> bool:
        """Whether the unconditional network is evaluated too at this level."""
        return self.scale != 1 and (self.interval is None or self.interval[0] <= sigma <= self.interval[1])


@dataclass(frozen=True)
class SamplingOptions:
    """How samples are drawn: the sampler, its steps, and the guidance."""

    sampler: Sampler
    steps: int
    guidance: Guidance = Guidance()


def evaluations(options: SamplingOptions, sigmas: list[float]) -> int:
    """Count the network evaluations (NFE) for one image. sigmas: the sampler's levels, one more than its steps."""
    levels = options.sampler.evaluated_sigmas(sigmas)
    return sum(2 if options.guidance.acts_at(sigma) else 1 for sigma in levels)
