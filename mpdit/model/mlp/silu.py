"""The MLP of DiT: two layers around one nonlinearity."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.model.design import Design
from mpdit.model.mlp.registry import MLPS

if TYPE_CHECKING:
    from torch import nn


@MLPS.register
@dataclass(frozen=True)
class Silu:
    """Four times the width between two linear maps; arXiv 2212.09748."""

    name: ClassVar[str] = "silu"
    doc: ClassVar[str] = "two layers around SiLU/0.596, or GELU in designs without mp_silu (arXiv 2212.09748)"

    def check(self, design: Design) -> None:
        """Accept every design."""

    def build(self, width: int, design: Design) -> "nn.Module":
        """Build the layer of this width."""
        from mpdit.model.mlp.layers.silu import SiluMLP

        return SiluMLP(width, design)

    def flop(self, tokens: int, width: int) -> int:
        """Count none: every weight is used for every token, and the nonlinearity is left out."""
        return 0
