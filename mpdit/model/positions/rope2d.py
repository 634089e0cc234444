"""Rotary positions: queries and keys are turned, so that logits depend on differences of rows and of columns."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.errors import input_error
from mpdit.model.design import Design
from mpdit.model.positions.registry import POSITIONS

if TYPE_CHECKING:
    from torch import Tensor, nn


@POSITIONS.register
@dataclass(frozen=True)
class Rope2d:
    """Pairs of a head's channels turned by θᵢ·row, or by θᵢ·column, θᵢ = 10000^(−2i/(d/2)), i < d/4; nothing is added.

    arXiv 2104.09864, in two dimensions as in LightningDiT, arXiv 2501.01423 (which keeps a table too).
    """

    name: ClassVar[str] = "rope2d"
    doc: ClassVar[str] = "queries and keys turned by row and column, nothing added to the patches (arXiv 2104.09864)"
    turns_heads: ClassVar[bool] = True

    def check(self, head_channels: int) -> None:
        """Raise InputError where a head's channels are not pairs for rows and pairs for columns."""
        if head_channels % 4:
            given = f"positions: rope2d, {head_channels} channels a head"
            raise input_error("rope2d turns pairs of channels by row and by column", given=given, allowed="4, 8, 12 …")

    def table(self, grid: int, width: int, design: Design) -> "Tensor | None":
        """Add nothing to the patches."""
        return None

    def turn(self, grid: int, head_channels: int) -> "nn.Module":
        """Build the turn of queries and keys of this grid."""
        from mpdit.model.positions.layers.rope2d import Turn

        return Turn(grid, head_channels)
