"""The layer of attention to the tokens nearby."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.design import Design
from mpdit.model.layers import normalize


class WindowMixer(nn.Module):
    """Softmax attention with a mask: (batch, heads, tokens, d) of q, k, v → the same shape."""

    def __init__(self, radius: float, pooled: int, design: Design) -> None:
        super().__init__()
        self.radius, self.pooled, self.cosine = radius, pooled, design.cosine_attention

    def forward(self, q: Tensor, k: Tensor, v: Tensor, _x: Tensor) -> Tensor:
        n = q.shape[-2]
        seen = is_near(round(n**0.5), self.radius, q.device)
        if self.pooled:
            keys, values = pool(k, self.pooled), pool(v, self.pooled)
            k, v = torch.cat([k, normalize(keys) if self.cosine else keys], -2), torch.cat([v, values], -2)
            seen = torch.cat([seen, seen.new_ones(n, keys.shape[-2])], -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


def is_near(grid: int, radius: float, device: torch.device) -> Tensor:
    """Return which tokens see which: (grid², grid²) of booleans."""
    at = torch.arange(grid, device=device)
    squares = (at[:, None] - at).square()  # of the distance along one side
    return ((squares[:, None, :, None] + squares[None, :, None, :]) < radius**2).reshape(grid**2, grid**2)


def pool(x: Tensor, side: int) -> Tensor:
    """Average squares of tokens, or what there is of them at the edge: (batch, heads, tokens, d) → fewer tokens."""
    b, heads, n, d = x.shape
    grid = round(n**0.5)
    image = x.mT.reshape(b, heads * d, grid, grid)
    means = F.avg_pool2d(image, min(side, grid), ceil_mode=True, count_include_pad=False)
    return means.reshape(b, heads, d, -1).mT
