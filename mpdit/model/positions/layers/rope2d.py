"""The turn of queries and keys."""

import torch
from torch import Tensor, nn

BASE = 10000.0


class Turn(nn.Module):
    """Turn pairs of channels by angles that depend on the place: (batch, heads, tokens, d) → the same shape."""

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: int, head_channels: int) -> None:
        super().__init__()
        count = head_channels // 4
        frequency = BASE ** (-torch.arange(count, dtype=torch.float64, device="cpu") / count)
        angle = torch.outer(torch.arange(grid, dtype=torch.float64, device="cpu"), frequency)
        angles = torch.cat([angle.repeat_interleave(grid, 0), angle.repeat(grid, 1)], dim=-1)  # (tokens, d/2)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, dim=-1)
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        return torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)
