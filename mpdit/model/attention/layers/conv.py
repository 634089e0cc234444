"""The block of convolutions."""

from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.depthwise import DepthwiseConv
from mpdit.model.design import Design
from mpdit.model.layers import linear, mp_silu, normalize

SIGMOID_MAGNITUDE = 0.5416  # root mean square of sigmoid(z) for z ~ N(0, 1)


class ConvBlock(nn.Module):
    """proj(act(filter(fc(x))) ⊙ gate): x: (batch, tokens, channels) → the same shape.

    gate = sigmoid(W·mean over tokens). Where magnitude is kept, the mean, which averaging has made small, is brought
    back to unit magnitude first, and the gate is divided by its own magnitude.
    """

    def __init__(self, width: int, kernel: int, design: Design) -> None:
        super().__init__()
        self.mp_silu, self.mp_residual, self.renormalized = design.mp_silu, design.mp_residual, design.renormalized
        self.fc = linear(design, width, width)
        self.filter = DepthwiseConv(width, kernel, design)
        self.gate = linear(design, width, width)
        self.proj = linear(design, width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.filter(self.fc(x))
        hidden = mp_silu(hidden) if self.mp_silu else F.gelu(hidden, approximate="tanh")
        mean = hidden.mean(1, keepdim=True)
        if self.mp_residual:
            gate = self.gate(normalize(mean)).sigmoid() / SIGMOID_MAGNITUDE
        else:
            gate = self.gate(mean).sigmoid()
        y = self.proj(hidden * gate)
        return normalize(y) if self.renormalized else y
