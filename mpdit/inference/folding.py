"""Fold a network for inference: every normalised weight becomes the plain matrix that it is used as, once.

WNLinear normalises its weight on every use, and both it and MPLinear scale it: training needs that, while in
sampling the same work would be repeated hundreds of times.
"""

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.layers import MPLinear, WNLinear, normalize

Module = TypeVar("Module", bound=nn.Module)


class FoldedLinear(nn.Module):
    """A linear map called as the layer it replaces: x: (..., in_features) → (..., out_features).

    Normalisation, 1/√in_features and scale are in the matrix.
    """

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


@torch.no_grad()
def refold(folded: nn.Module, module: nn.Module) -> None:
    """Give a folded network the weights of another network of the same shape, in place: compiled code stays valid."""
    new_folded = fold(module)
    for old, new in zip(folded.modules(), new_folded.modules(), strict=True):
        if isinstance(old, FoldedLinear) and isinstance(new, FoldedLinear):
            new.weight.mul_(old.scale)
    for parameter, new_parameter in zip(folded.parameters(), new_folded.parameters(), strict=True):
        parameter.copy_(new_parameter)


@torch.no_grad()
def fold(module: Module) -> Module:
    """Copy a network for inference, with every WNLinear and MPLinear folded; the original does not change.

    Its outputs are the original's up to rounding. It cannot be trained, and its state cannot be loaded elsewhere.
    """
    folded = copy.deepcopy(module).requires_grad_(False).eval()
    for parent in list(folded.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, (WNLinear, MPLinear)):
                weight = normalize(part.weight) if isinstance(part, WNLinear) else part.weight
                setattr(parent, name, FoldedLinear(weight / math.sqrt(part.weight.shape[1])))
    return folded
