"""LayerNorm, as in DiT."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.model.norm.registry import NORMS

if TYPE_CHECKING:
    from torch import nn

EPSILON = 1e-6


@NORMS.register
@dataclass(frozen=True)
class Layer:
    """(x − mean)/√variance over the channels. arXiv 1607.06450; arXiv 2212.09748."""

    name: ClassVar[str] = "layer"
    doc: ClassVar[str] = "zero mean and unit variance over the channels, as in DiT (arXiv 1607.06450)"

    def build(self, width: int) -> "nn.Module":
        """Build the layer of this width."""
        from torch import nn

        return nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)
