"""Softmax attention, as in DiT; with cosine logits in the designs that preserve magnitude."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.design import Design

if TYPE_CHECKING:
    from torch import nn


@ATTENTIONS.register
@dataclass(frozen=True)
class Softmax:
    """Every token attends to every token, by the softmax of scaled dot products. arXiv 1706.03762."""

    name: ClassVar[str] = "softmax"
    doc: ClassVar[str] = "every token attends to every token (arXiv 1706.03762)"
    turns_heads: ClassVar[bool] = True

    def check(self, design: Design) -> None:
        """Accept every design."""

    def build(self, width: int, heads: int, design: Design) -> "nn.Module":
        """Build the layer of this width."""
        from mpdit.model.attention.layers.heads import HeadedAttention
        from mpdit.model.attention.layers.softmax import softmax

        return HeadedAttention(width, heads, design, softmax)

    def flop(self, tokens: int, width: int, heads: int) -> int:
        """Count 2·tokens²·width operations each for the logits and for the weighted sum."""
        return 4 * tokens**2 * width
