"""The layers of the gated MLP."""

from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.design import Design
from mpdit.model.layers import SILU_MAGNITUDE, linear


class SwigluMLP(nn.Module):
    """W₃(silu(W₁x) ⊙ W₂x), with SiLU/0.596 in designs with mp_silu: x: (batch, tokens, channels) → the same shape.

    Silu(a)/0.596 and b are independent at the start and have unit magnitude, and so has their product.
    """

    def __init__(self, width: int, design: Design) -> None:
        super().__init__()
        hidden = 8 * width // 3
        self.scale = 1 / SILU_MAGNITUDE if design.mp_silu else 1.0
        self.fc1 = linear(design, width, 2 * hidden)
        self.fc2 = linear(design, hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value, scale=self.scale)
