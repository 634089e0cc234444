"""What a kind of attention is, and the registry of them."""

from typing import TYPE_CHECKING, ClassVar, Protocol

from mpdit.model.design import Design
from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import nn


class Attention(Protocol):
    """One kind of attention with its settings: a frozen dataclass with a `name` and a `doc`.

    One that takes nothing from queries and keys but their products says `turns_heads = True`, and what it builds calls
    its `turn` on both, so that positions may turn them.
    """

    name: ClassVar[str]
    doc: ClassVar[str]

    def check(self, design: Design) -> None:
        """Raise InputError for a design that this attention cannot be part of."""

    def build(self, width: int, heads: int, design: Design) -> "nn.Module":
        """Build the layer: x (batch, tokens, channels) → the same shape, of unit magnitude in a renormalized design.

        The tokens are those of a square grid, row by row.
        """

    def flop(self, tokens: int, width: int, heads: int) -> int:
        """Count the floating-point operations of one forward pass of one sample, beside those of its weights."""


ATTENTIONS: Registry[type[Attention]] = Registry("attention", "mpdit.model.attention")
