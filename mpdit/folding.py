"""Fold a network for inference: every normalised weight becomes the plain matrix that it stands for, once.

MPLinear normalises its weight on every use, which training needs and sampling pays for hundreds of times.
"""

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.layers import MPEmbedding, MPLinear, normalize

Module = TypeVar("Module", bound=nn.Module)


class FoldedLinear(nn.Module):
    """x: (..., inputs) → (..., outputs), called as an MPLinear is; norm, fan-in and scale are in the matrix."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = 1.0

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        if scale != self.scale:  # a layer is always called with the same one: this happens once
            self.weight.mul_(scale / self.scale)
            self.scale = scale
        return F.linear(x, self.weight)


class FoldedEmbedding(nn.Module):
    """A table whose rows are normalised already: index: (...) int64 → (..., channels)."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight)


@torch.no_grad()
def fold(module: Module) -> Module:
    """A copy of a network for inference, with every MPLinear and MPEmbedding folded; the original is left alone.

    Its outputs are the original's up to rounding. It cannot be trained, and its state cannot be loaded elsewhere.
    """
    folded = copy.deepcopy(module).requires_grad_(False).eval()
    for parent in list(folded.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, MPLinear):
                setattr(parent, name, FoldedLinear(normalize(part.weight) / math.sqrt(part.weight.shape[1])))
            elif isinstance(part, MPEmbedding):
                setattr(parent, name, FoldedEmbedding(normalize(part.weight)))
    return folded
