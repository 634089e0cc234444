"""Tables of sines and cosines."""

import torch
from torch import Tensor

from mpdit.model.layers import normalize


def sincos_positions(grid: int, width: int) -> Tensor:
    """Return fixed 2-D sine and cosine positions, as in DiT: (grid², width).

    They are on the CPU also where a network is only counted (`parameter_count`): on the meta device this arithmetic
    would import the compiler.
    """
    frequency = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64, device="cpu") / (width // 4))
    angle = torch.outer(torch.arange(grid, dtype=torch.float64, device="cpu"), frequency)
    line = torch.cat([angle.sin(), angle.cos()], dim=-1)  # (grid, width/2)
    rows, columns = line.repeat_interleave(grid, 0), line.repeat(grid, 1)
    return torch.cat([rows, columns], dim=-1).float()


def unit_positions(grid: int, width: int) -> Tensor:
    """Return `sincos_positions` of unit magnitude and zero mean: (grid², width)."""
    table = sincos_positions(grid, width)
    return normalize(table - table.mean(-1, keepdim=True))
