"""How samples are drawn, in plain values, and how many network evaluations that takes."""

from collections.abc import Callable
from dataclasses import dataclass

from mpdit.diffusion.guidance_rules.cfg import Cfg
from mpdit.diffusion.guidance_rules.registry import GuidanceRule
from mpdit.diffusion.samplers.registry import Sampler
from mpdit.diffusion.sampling_schedules.default import Default
from mpdit.diffusion.sampling_schedules.registry import SamplingSchedule

CFG, OWN = Cfg(), Default()


@dataclass(frozen=True)
class Guidance:
    """Guidance: its scale, the noise levels that are guided, its rule, and what the guiding network is asked.

    Attributes:
        scale: 1 is no guidance.
        interval: σ low < σ ≤ σ high are guided, None: all. arXiv 2404.07724.
        rule: how the two predictions become one.
        empty_label: whether the guiding network is asked without the class; else with it (autoguidance).
    """

    scale: float = 1.0
    interval: tuple[float, float] | None = None
    rule: GuidanceRule = CFG
    empty_label: bool = True

    def acts_at(self, sigma: float) -> bool:
        """Whether the steps that start at this level are guided: there two predictions are made instead of one."""
        return self.scale != 1 and (self.interval is None or self.interval[0] < sigma <= self.interval[1])


@dataclass(frozen=True)
class SamplingOptions:
    """How samples are drawn: the sampler, its steps, the guidance, and the noise levels of the steps."""

    sampler: Sampler
    steps: int
    guidance: Guidance = Guidance()
    schedule: SamplingSchedule = OWN

    def levels(self, own: Callable[[int], list[float]]) -> list[float]:
        """The sampler's levels, one more than its steps. own: those of the model's objective."""
        return self.schedule.levels(self.steps, own)


def evaluations(options: SamplingOptions, sigmas: list[float]) -> int:
    """Count the network evaluations (NFE) for one image. sigmas: the sampler's levels, one more than its steps."""
    starts = options.sampler.starts_of_evaluations(sigmas)
    return sum(2 if options.guidance.acts_at(sigma) else 1 for sigma in starts)
