"""What a kind of positions is, and the registry of them."""

from typing import TYPE_CHECKING, ClassVar, Protocol

from mpdit.model.design import Design
from mpdit.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn


class Positions(Protocol):
    """How the network knows where a token is: a frozen dataclass with a `name` and a `doc`.

    `turns_heads`: whether queries and keys are turned, which not every attention can do.
    """

    name: ClassVar[str]
    doc: ClassVar[str]
    turns_heads: ClassVar[bool]

    def check(self, head_channels: int) -> None:
        """Raise InputError for heads that cannot have these positions."""

    def table(self, grid: int, width: int, design: Design) -> "Tensor | None":
        """Return what is added to the patches, (grid², width); None for nothing."""

    def turn(self, grid: int, head_channels: int) -> "nn.Module":
        """Build what is done to queries and to keys: (batch, heads, tokens, d) → the same shape."""


POSITIONS: Registry[type[Positions]] = Registry("positions", "mpdit.model.positions")
