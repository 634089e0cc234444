"""The layer of linear attention."""

import torch
from torch import Tensor, nn

from mpdit.model.depthwise import DepthwiseConv
from mpdit.model.design import Design
from mpdit.model.layers import mp_sum

LEAST_WEIGHT = 1e-6  # a query with no positive feature has no weights: 0/0


class LinearMixer(nn.Module):
    """Mix values by weights φ(q)·φ(k)/Σ, in fp32: (batch, heads, tokens, d) of q, k, v → the same shape."""

    def __init__(self, width: int, convolution: int, design: Design) -> None:
        super().__init__()
        self.convolution = DepthwiseConv(width, convolution, design) if convolution else None
        self.mp_residual = design.mp_residual

    def forward(self, q: Tensor, k: Tensor, v: Tensor, _x: Tensor) -> Tensor:
        y = linear_mix(q, k, v)
        if self.convolution is None:
            return y
        b, heads, n, d = v.shape
        near = self.convolution(v.transpose(1, 2).reshape(b, n, heads * d)).reshape(b, n, heads, d).transpose(1, 2)
        return mp_sum(y, near, 0.5) if self.mp_residual else y + near


def linear_mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j), φ = ReLU: (…, tokens, d) each → the same shape."""
    with torch.autocast(q.device.type, enabled=False):
        q, k = q.float().relu(), k.float().relu()
        weight = q @ k.sum(-2, keepdim=True).mT
        return ((q @ (k.mT @ v.float())) / weight.clamp_min(LEAST_WEIGHT)).to(v.dtype)
