"""Attention to the tokens nearby, and to the means of squares of tokens."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.design import Design

if TYPE_CHECKING:
    from torch import nn


@ATTENTIONS.register
@dataclass(frozen=True)
class Window:
    """A token sees those closer than `radius` tokens; and, with `pooled` > 0, the mean of each square of that side.

    Closer: dx² + dy² < radius²; at radius 1 only itself. CLEAR, arXiv 2412.16112, whose means have learned weights.
    """

    name: ClassVar[str] = "window"
    doc: ClassVar[str] = (
        "softmax over the tokens closer than a radius, and over means of squares (CLEAR, arXiv 2412.16112)"
    )
    turns_heads: ClassVar[bool] = True
    radius: Annotated[float, Ge(1)] = 2.0
    pooled: Annotated[int, Ge(0)] = 0

    def check(self, design: Design) -> None:
        """Accept every design."""

    def build(self, width: int, heads: int, design: Design) -> "nn.Module":
        """Build the layer of this width."""
        from mpdit.model.attention.layers.heads import HeadedAttention
        from mpdit.model.attention.layers.window import WindowMixer

        return HeadedAttention(width, heads, design, WindowMixer(self.radius, self.pooled, design))

    def flop(self, tokens: int, width: int, heads: int) -> int:
        """Count softmax's operations: what is masked is computed too, and left out."""
        squares = math.ceil(round(tokens**0.5) / self.pooled) ** 2 if self.pooled else 0
        return 4 * tokens * (tokens + squares) * width
