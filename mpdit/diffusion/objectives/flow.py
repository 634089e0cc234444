"""Rectified flow: the network predicts the velocity from image to noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt

from mpdit.diffusion.objectives.registry import OBJECTIVES
from mpdit.errors import input_error
from mpdit.lazy_modules import lazy_module
from mpdit.registry import not_a_setting
from mpdit.schedules import FLOW_EDGE, flow_schedule

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


@OBJECTIVES.register
@dataclass(frozen=True)
class Flow:
    """Rectified flow: σ = t/(1 − t); the network predicts the velocity noise − clean, at unit magnitude.

    In training t is uniform, or logit-normal where `t_std` is set: ln(t/(1 − t)) = ln σ ~ N(t_mean, t_std²)
    (arXiv 2403.03206). `shift` multiplies σ: t' = αt/(1 + (α − 1)t). A sampler's levels are neither.
    """

    name: ClassVar[str] = "flow"
    doc: ClassVar[str] = "rectified flow, arXiv 2209.03003; with t_std, logit-normal times (arXiv 2403.03206)"
    learned_variance: ClassVar[bool] = False
    uncertainty: ClassVar[bool] = False
    sigma_data: float = not_a_setting(0.5)
    pixels: bool = not_a_setting(True)
    t_mean: float = 0.0
    t_std: Annotated[float, Gt(0)] | None = None
    shift: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        if self.t_mean and self.t_std is None:
            raise input_error(
                "uniform times have no mean to set", given=f"t_mean: {self.t_mean:g}", hint="t_std: 1.0, logit-normal"
            )

    def noise_levels(self, normal: Tensor) -> Tensor:
        """Turn standard normal values (batch,) into noise levels σ (batch,)."""
        if self.t_std is not None:
            return torch.exp(self.t_mean + self.t_std * normal) * self.shift
        t = FLOW_EDGE + (1 - 2 * FLOW_EDGE) * torch.special.ndtr(normal)
        return t / (1 - t) * self.shift

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return (c_skip, c_out) of D = z − t·v with z = (1 − t)·x and v = √(1 + σ_d²)·F. Eq. 1 of arXiv 2209.03003."""
        return 1 / (1 + sigma), -sigma / (1 + sigma) * math.hypot(1, self.sigma_data)

    def loss_weight(self, sigma: Tensor) -> Tensor:
        """Return λ = 1/t²: λ·‖D − clean‖² is the velocity's squared error."""
        return (1 + 1 / sigma) ** 2

    def noise_schedule(self, steps: int) -> Tensor:
        """Return the levels of a sampler: (steps + 1,)."""
        return flow_schedule(steps)
