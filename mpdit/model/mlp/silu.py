"""The MLP of DiT: two layers around one nonlinearity."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.design import Design
from mpdit.model.layers import SILU_MAGNITUDE, linear
from mpdit.model.mlp.registry import MLPS

MLP_RATIO = 4


@MLPS.register
@dataclass(frozen=True)
class Silu:
    """Four times the width between two linear maps; arXiv 2212.09748."""

    name: ClassVar[str] = "silu"
    doc: ClassVar[str] = "two layers around SiLU/0.596, or GELU in designs without mp_silu (arXiv 2212.09748)"

    def check(self, design: Design) -> None:
        """Accept every design."""

    def build(self, width: int, design: Design) -> nn.Module:
        """Build the layer of this width."""
        return SiluMLP(width, design)


class SiluMLP(nn.Module):
    """Two layers around GELU (tanh) or mp_silu: x: (batch, tokens, channels) → the same shape."""

    def __init__(self, width: int, design: Design) -> None:
        super().__init__()
        self.mp_silu = design.mp_silu
        self.fc1 = linear(design, width, MLP_RATIO * width)
        self.fc2 = linear(design, MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if self.mp_silu:
            return self.fc2(F.silu(hidden), scale=1 / SILU_MAGNITUDE)
        return self.fc2(F.gelu(hidden, approximate="tanh"))
