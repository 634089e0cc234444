"""AdamW: Adam with decoupled weight decay."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Lt

from mpdit.errors import input_error
from mpdit.model.design import Design
from mpdit.training.optimizers.adam import adam_part
from mpdit.training.optimizers.registry import OPTIMIZERS, Part, Trainable, rate_groups


@OPTIMIZERS.register
@dataclass(frozen=True)
class AdamW:
    """AdamW, arXiv 1711.05101: at each step a matrix also loses lr·`weight_decay` of itself; vectors do not."""

    name: ClassVar[str] = "adamw"
    doc: ClassVar[str] = "Adam with decoupled weight decay (arXiv 1711.05101)"
    weight_decay: Annotated[float, Ge(0), Lt(1)] = 0.01

    def check(self, design: Design) -> None:
        """Refuse designs whose weights are set back to unit magnitude after each step, which undoes the decay."""
        if design.forced_normalization and self.weight_decay:
            raise input_error(
                "forced weight normalisation undoes weight decay",
                given=f"optimizer: {self.name} with weight_decay {self.weight_decay:g}, forced_normalization: true",
                allowed="optimizer: adam or muon; or design: A to C",
            )

    def make(self, parameters: Sequence[Trainable], betas: tuple[float, float]) -> list[Part]:
        """One AdamW for all parameters."""
        import torch

        groups = []
        for decay, are_matrices in ((self.weight_decay, True), (0.0, False)):
            members = [one for one in parameters if (one.parameter.ndim > 1) == are_matrices]
            groups += [group | {"weight_decay": decay} for group in rate_groups(members, [one.rate for one in members])]
        return [adam_part(torch.optim.AdamW, groups, betas)]
