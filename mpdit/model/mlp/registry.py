"""What a kind of MLP is, and the registry of them."""

from typing import TYPE_CHECKING, ClassVar, Protocol

from mpdit.model.design import Design
from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import nn


class Mlp(Protocol):
    """One kind of MLP with its settings: a frozen dataclass with a `name` and a `doc`."""

    name: ClassVar[str]
    doc: ClassVar[str]

    def check(self, design: Design) -> None:
        """Raise InputError for a design that this MLP cannot be part of."""

    def build(self, width: int, design: Design) -> "nn.Module":
        """Build the layer: x: (batch, tokens, channels) → the same shape."""

    def flop(self, tokens: int, width: int) -> int:
        """Count the floating-point operations of one forward pass of one sample, beside those of its weights.

        It is negative where a weight is not used for every token: what its weights cost counts each for all.
        """


MLPS: Registry[type[Mlp]] = Registry("MLP", "mpdit.model.mlp")
