"""What a format of weights is, and the registry of all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from mpdit.lazy_modules import lazy_module
from mpdit.registry import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")


class WeightFormat(Protocol):
    """One format with its settings: a frozen dataclass with a `name` and a `doc`.

    is_exact: whether fp32 weights stay as they are.
    """

    name: ClassVar[str]
    doc: ClassVar[str]
    is_exact: ClassVar[bool]

    def rounded(self, weight: Tensor) -> Tensor:
        """Round a matrix to what the format holds: (out_features, in_features) fp32 → the same, fp32."""


WEIGHT_FORMATS: Registry[type[WeightFormat]] = Registry("weight format", "mpdit.inference.weight_formats")


def rounded_to_bits(weight: Tensor, bits: int, group: int = 0) -> Tensor:
    """Round a matrix to whole multiples of a scale: Ŵ = s·round(W/s), so that |W − Ŵ| ≤ s/2.

    Symmetric, up to n = 2^(bits−1) − 1, with s = max|W|/n of each row, or of each `group` of inputs of a row. weight:
    (out_features, in_features) fp32 → the same.
    """
    parts = weight.split(group, dim=1) if group else (weight,)
    return torch.cat([_rounded(part, 2 ** (bits - 1) - 1) for part in parts], dim=1)


def _rounded(weight: Tensor, largest: int) -> Tensor:
    scale = weight.abs().amax(1, keepdim=True) / largest
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # a row of zeros stays one
    return (weight / scale).round().clamp(-largest, largest) * scale
