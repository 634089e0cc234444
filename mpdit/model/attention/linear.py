"""Linear attention: its cost grows with the number of tokens, not with its square."""

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
class Linear:
    """Weights φ(q)·φ(k) with φ = ReLU, of sum 1; `convolution`: the side of a depthwise filter on the values, 0: none.

    arXiv 2006.16236; with the convolution of LiT, arXiv 2501.12976.
    """

    name: ClassVar[str] = "linear"
    doc: ClassVar[str] = "weights ReLU(q)·ReLU(k), and a depthwise convolution of the values (arXiv 2501.12976)"
    convolution: Annotated[int, Ge(0), Le(9)] = 0

    def check(self, design: Design) -> None:
        """Accept every design. Raises InputError for a filter without a middle."""
        if self.convolution and self.convolution % 2 == 0:
            given = f"attention: {{name: linear, convolution: {self.convolution}}}"
            raise input_error("the filter of a convolution has a middle", given=given, allowed="0 (none), 3, 5, 7 or 9")

    def build(self, width: int, heads: int, design: Design) -> "nn.Module":
        """Build the layer of this width."""
        from mpdit.model.attention.layers.heads import HeadedAttention
        from mpdit.model.attention.layers.linear import LinearMixer

        return HeadedAttention(width, heads, design, LinearMixer(width, self.convolution, design))

    def flop(self, tokens: int, width: int, heads: int) -> int:
        """Count 2·tokens·width·d_head operations for each of its two products."""
        return 4 * tokens * width * (width // heads)
