"""A block of convolutions in place of attention."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from mpdit.errors import input_error
from mpdit.model.attention.registry import ATTENTIONS
from mpdit.model.design import Design

if TYPE_CHECKING:
    from torch import nn


@ATTENTIONS.register
@dataclass(frozen=True)
class Conv:
    """DiCo's block: a map, a depthwise filter of side `kernel`, a nonlinearity, a gate for each channel, a map.

    The gate is made from the mean over all tokens, the only thing that they share beyond the filter. arXiv 2505.11196.
    """

    name: ClassVar[str] = "conv"
    doc: ClassVar[str] = "a depthwise convolution and a gate from the mean of all tokens (DiCo, arXiv 2505.11196)"
    kernel: Annotated[int, Ge(1), Le(9)] = 3

    def check(self, design: Design) -> None:
        """Accept every design. Raises InputError for a filter without a middle."""
        if self.kernel % 2 == 0:
            given = f"attention: {{name: conv, kernel: {self.kernel}}}"
            raise input_error("the filter of a convolution has a middle", given=given, allowed="1, 3, 5, 7 or 9")

    def build(self, width: int, heads: int, design: Design) -> "nn.Module":
        """Build the layer of this width; it has no heads."""
        from mpdit.model.attention.layers.conv import ConvBlock

        return ConvBlock(width, self.kernel, design)

    def flop(self, tokens: int, width: int, heads: int) -> int:
        """Take off what the gate's map does not cost: it is used once, not for every token."""
        return -2 * width**2 * (tokens - 1)
