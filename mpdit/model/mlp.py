"""The MLP: what every token does by itself."""

from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.design import Design
from mpdit.model.layers import SILU_MAGNITUDE, linear

MLP_RATIO = 4


class MLP(nn.Module):
    """Two layers around GELU (tanh) or mp_silu: x: (batch, tokens, channels) → the same shape."""

    def __init__(self, width: int, design: Design) -> None:
        super().__init__()
        self.mp_silu = design.mp_silu
        self.into = linear(design, width, MLP_RATIO * width)
        self.out = linear(design, MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.into(x)
        if self.mp_silu:
            return self.out(F.silu(hidden), scale=1 / SILU_MAGNITUDE)
        return self.out(F.gelu(hidden, approximate="tanh"))
