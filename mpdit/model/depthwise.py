"""A depthwise convolution over the grid of tokens, in every design."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.design import Design
from mpdit.model.layers import linear


class DepthwiseConv(nn.Module):
    """Each channel filtered by itself over the square grid of tokens: x: (batch, tokens, channels) → the same shape.

    The filters are the rows of one of the design's linear maps, (channels, kernel²), so that they are normalised,
    folded and scaled as all weights are. Outside the grid are zeros. Where magnitude is kept, a place at the edge is
    divided by √(places of the filter within the grid / kernel²), for its sum has fewer terms.
    """

    def __init__(self, width: int, kernel: int, design: Design) -> None:
        super().__init__()
        self.kernel, self.keeps_magnitude = kernel, design.mp_residual
        self.filters = linear(design, kernel**2, width, init_std=1 / kernel)

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        grid, size = round(n**0.5), self.kernel
        bias = self.filters(x.new_zeros(1, size**2))
        taps = self.filters(torch.eye(size**2, dtype=x.dtype, device=x.device)) - bias  # whatever the map's class
        image = x.mT.reshape(b, width, grid, grid)
        y = F.conv2d(image, taps.mT.reshape(width, 1, size, size), bias[0], padding=size // 2, groups=width)
        if self.keeps_magnitude:
            y = y * edge_factors(grid, size, x)
        return y.reshape(b, width, n).mT


def edge_factors(grid: int, kernel: int, like: Tensor) -> Tensor:
    """Return √(kernel²/places of the filter within the grid) for each place: (grid, grid)."""
    at = torch.arange(grid, device=like.device)
    valid = (at + kernel // 2).clamp(max=grid - 1) - (at - kernel // 2).clamp(min=0) + 1
    line = (kernel / valid).sqrt().to(like.dtype)
    return torch.outer(line, line)
