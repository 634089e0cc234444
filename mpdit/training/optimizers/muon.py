"""Muon: the hidden matrices move along orthogonal directions, all else by Adam."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Lt

from mpdit.model.design import Design
from mpdit.training.optimizers.adam import adam_of
from mpdit.training.optimizers.registry import OPTIMIZERS, Part, Trainable, rate_groups, uncompiled


@OPTIMIZERS.register
@dataclass(frozen=True)
class Muon:
    """Muon (torch's own) for the blocks' matrices, Adam for patches, tables, the final map, gains and biases.

    A step is 0.2·lr·√max(out, in) times the momentum with its singular values set to about 1 (arXiv 2502.16982, Eq. 4),
    so its root mean square is about 0.2·lr and `lr` stays in Adam's range.
    """

    name: ClassVar[str] = "muon"
    doc: ClassVar[str] = "orthogonal steps for the blocks' matrices, Adam for the rest (arXiv 2502.16982)"
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.95

    def check(self, design: Design) -> None:
        """Accept every design."""

    def make(self, parameters: Sequence[Trainable], betas: tuple[float, float]) -> list[Part]:
        """Muon for the hidden matrices, and Adam for the other parameters.

        µP's rate is Adam's over √(base width / width): a step's spectral norm grows with √width where Adam's grows
        with the width.
        """
        import torch

        hidden = [one for one in parameters if one.is_hidden_matrix]
        groups = rate_groups(hidden, [one.rate / math.sqrt(one.width_ratio) for one in hidden])
        muon = uncompiled(torch.optim.Muon)(
            groups, lr=0.0, momentum=self.momentum, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        )
        others = [one for one in parameters if not one.is_hidden_matrix]
        return [Part("muon", muon, ("momentum_buffer",), counts_steps=False), adam_of(others, betas)]
