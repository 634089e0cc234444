"""The layer of the MLP of DiT."""

from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.design import Design
from mpdit.model.layers import SILU_MAGNITUDE, linear

MLP_RATIO = 4


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
