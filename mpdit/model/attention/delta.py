"""Attention by the delta rule: a memory that is corrected by what it gets wrong, in both directions over the tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.design import Design

DIRECTIONS = 2

if TYPE_CHECKING:
    from torch import nn


@ATTENTIONS.register
@dataclass(frozen=True)
class Delta:
    """S ← S + β(v − Sk)kᵀ, o = Sq, token by token, forwards and backwards. arXiv 2406.06484; DiG, arXiv 2405.18428.

    Blocks with it are not compiled ahead of time for scoring: PyTorch 2.15 cannot run the solution of a triangular
    system from a file, so they stay plain.
    """

    name: ClassVar[str] = "delta"
    doc: ClassVar[str] = (
        "a memory corrected by the delta rule, forwards and backwards over the tokens (arXiv 2406.06484)"
    )
    turns_heads: ClassVar[bool] = True

    def check(self, design: Design) -> None:
        """Accept every design."""

    def build(self, width: int, heads: int, design: Design) -> "nn.Module":
        """Build the layer of this width."""
        from mpdit.model.attention.layers.delta import DeltaMixer
        from mpdit.model.attention.layers.heads import HeadedAttention

        return HeadedAttention(width, heads, design, DeltaMixer(width, heads, design))

    def flop(self, tokens: int, width: int, heads: int) -> int:
        """Count 2·tokens²·width for K·Kᵀ and for Q·Kᵀ, and in each direction for a product, and half for a solution."""
        return (4 + 3 * DIRECTIONS) * tokens**2 * width
