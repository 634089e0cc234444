"""Adam."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mpdit.model.design import Design
from mpdit.training.optimizers.registry import OPTIMIZERS, Part, Trainable, rate_groups, uncompiled

if TYPE_CHECKING:
    import torch

MOMENTS = ("exp_avg", "exp_avg_sq")


@OPTIMIZERS.register
@dataclass(frozen=True)
class Adam:
    """Adam, arXiv 1412.6980, with `optimizer.beta1` and `beta2`."""

    name: ClassVar[str] = "adam"
    doc: ClassVar[str] = "Adam (arXiv 1412.6980)"

    def check(self, design: Design) -> None:
        """Accept every design."""

    def make(self, parameters: Sequence[Trainable], betas: tuple[float, float]) -> list[Part]:
        """One Adam for all parameters."""
        return [adam_of(parameters, betas)]


def adam_of(parameters: Sequence[Trainable], betas: tuple[float, float]) -> Part:
    """Adam for some parameters, at µP's rates."""
    import torch

    return adam_part(torch.optim.Adam, rate_groups(parameters, [one.rate for one in parameters]), betas)


def adam_part(kind: "type[torch.optim.Adam]", groups: list[dict[str, Any]], betas: tuple[float, float]) -> Part:
    """Adam, or AdamW, for groups of parameters."""
    # capturable would keep the step count on the device; fused is the fast path on CPU and CUDA alike
    return Part("adam", uncompiled(kind)(groups, lr=0.0, betas=betas, fused=True), MOMENTS, counts_steps=True)
