"""A fixed table of sines and cosines that is added to the patches, as in DiT."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.model.design import Design
from mpdit.model.positions.registry import POSITIONS

if TYPE_CHECKING:
    from torch import Tensor, nn


@POSITIONS.register
@dataclass(frozen=True)
class Table:
    """Sines and cosines of row and column, each at width/4 frequencies. arXiv 2212.09748."""

    name: ClassVar[str] = "table"
    doc: ClassVar[str] = "fixed sines and cosines of row and column, added to the patches (arXiv 2212.09748)"
    turns_heads: ClassVar[bool] = False

    def check(self, head_channels: int) -> None:
        """Accept heads of any size."""

    def table(self, grid: int, width: int, design: Design) -> "Tensor | None":
        """Return the table, of unit magnitude where the design blends positions: (grid², width)."""
        from mpdit.model.positions.layers.table import sincos_positions, unit_positions

        return unit_positions(grid, width) if design.mp_positions else sincos_positions(grid, width)

    def turn(self, grid: int, head_channels: int) -> "nn.Module":
        """Leave queries and keys as they are."""
        from torch import nn

        return nn.Identity()
