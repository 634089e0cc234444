"""RMSNorm: LayerNorm that leaves the mean."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mpdit.model.norm.layer import EPSILON
from mpdit.model.norm.registry import NORMS

if TYPE_CHECKING:
    from torch import nn


@NORMS.register
@dataclass(frozen=True)
class Rms:
    """x/√mean(x²) over the channels. arXiv 1910.07467; LightningDiT, arXiv 2501.01423."""

    name: ClassVar[str] = "rms"
    doc: ClassVar[str] = "unit magnitude over the channels, the mean stays (arXiv 1910.07467)"

    def build(self, width: int) -> "nn.Module":
        """Build the layer of this width."""
        from torch import nn

        return nn.RMSNorm(width, eps=EPSILON, elementwise_affine=False)
