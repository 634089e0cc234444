"""The gated MLP of LightningDiT and of language models: one half of the hidden channels gates the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.model.design import Design
from mpdit.model.mlp.registry import MLPS

if TYPE_CHECKING:
    from torch import nn


@MLPS.register
@dataclass(frozen=True)
class Swiglu:
    """W₃(silu(W₁x) ⊙ W₂x) with ⌊8·width/3⌋ hidden channels, for the cost of two maps with four times the width."""

    name: ClassVar[str] = "swiglu"
    doc: ClassVar[str] = "one map gated by SiLU of another, as many weights as silu (arXiv 2002.05202)"

    def check(self, design: Design) -> None:
        """Accept every design."""

    def build(self, width: int, design: Design) -> "nn.Module":
        """Build the layer of this width."""
        from mpdit.model.mlp.layers.swiglu import SwigluMLP

        return SwigluMLP(width, design)

    def flop(self, tokens: int, width: int) -> int:
        """Count none: every weight is used for every token, and the product is left out."""
        return 0
