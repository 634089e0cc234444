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


MLPS: Registry[type[Mlp]] = Registry("MLP", "mpdit.model.mlp")
