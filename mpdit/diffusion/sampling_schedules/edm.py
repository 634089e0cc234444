"""EDM's levels with their three numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from mpdit.diffusion.sampling_schedules.registry import SAMPLING_SCHEDULES
from mpdit.errors import input_error
from mpdit.schedules import RHO, SIGMA_MAX, SIGMA_MIN, edm_levels


@SAMPLING_SCHEDULES.register
@dataclass(frozen=True)
class EdmLevels:
    """σ_i between sigma_max and sigma_min, evenly spaced in σ^(1/rho). Eq. 5 of arXiv 2206.00364.

    rho: the larger, the more steps at low noise.
    """

    name: ClassVar[str] = "edm"
    doc: ClassVar[str] = "evenly spaced in σ^(1/ρ), for any objective (arXiv 2206.00364)"
    rho: Annotated[float, Gt(0)] = RHO
    sigma_min: Annotated[float, Gt(0)] = SIGMA_MIN
    sigma_max: Annotated[float, Gt(0)] = SIGMA_MAX

    def __post_init__(self) -> None:
        if self.sigma_min >= self.sigma_max:
            raise input_error(
                "a schedule goes from sigma_max down to sigma_min",
                given=f"sigma_min: {self.sigma_min:g}, sigma_max: {self.sigma_max:g}",
            )

    def levels(self, steps: int, own: Callable[[int], list[float]]) -> list[float]:
        """The levels of so many steps, and 0."""
        return edm_levels(steps, self.rho, self.sigma_min, self.sigma_max)
