"""An attention without queries and keys: every token sees the mean of all tokens."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from torch import Tensor, nn

from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.design import Design
from mpdit.model.layers import linear, normalize


@ATTENTIONS.register
@dataclass(frozen=True)
class Mean:
    """own: how much of a token's own value stays beside the mean of all."""

    name: ClassVar[str] = "example.mean"
    doc: ClassVar[str] = "every token sees the mean of all tokens"
    own: Annotated[float, Ge(0), Le(1)] = 0.5

    def check(self, design: Design) -> None:
        """Goes with every design."""

    def build(self, width: int, heads: int, design: Design) -> nn.Module:
        """The layer of this width; it has no heads."""
        return MeanAttention(width, self.own, design)

    def flop(self, tokens: int, width: int, heads: int) -> int:
        """The mean, and its sum with the values."""
        return 3 * tokens * width


class MeanAttention(nn.Module):
    """x: (batch, tokens, channels) → the same shape."""

    def __init__(self, width: int, own: float, design: Design) -> None:
        super().__init__()
        self.own, self.renormalized = own, design.renormalized
        self.value = linear(design, width, width)

    def forward(self, x: Tensor) -> Tensor:
        values = self.value(x)
        mixed = self.own * values + (1 - self.own) * values.mean(1, keepdim=True)
        return normalize(mixed) if self.renormalized else mixed
