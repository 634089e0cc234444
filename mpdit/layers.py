"""Magnitude-preserving primitives, one equation each.

Magnitude means root mean square over the channels. Every primitive here maps inputs of unit
magnitude to outputs of unit magnitude in expectation, so the network needs no normalisation layers.
Sources: arXiv 2312.02696 (EDM2) and arXiv 2505.19122 (MP-DiT).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SILU_MAGNITUDE = 0.5960  # root mean square of silu(z) for z ~ N(0, 1); Lemma 5 of arXiv 2505.19122


def magnitude(x: Tensor) -> Tensor:
    """Root mean square over the last axis. x: (..., channels) → (...). Eq. 3 of arXiv 2312.02696, per token."""
    return x.float().square().mean(-1).sqrt()


class _Normalize(torch.autograd.Function):
    """`normalize` with its derivative in closed form: half the passes over memory that autograd would take."""

    @staticmethod
    def forward(x: Tensor, floor: float) -> tuple[Tensor, Tensor]:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        inverse = (length / math.sqrt(x.shape[-1])).clamp_min(floor).reciprocal()
        return (x * inverse).to(x.dtype), inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        y, inverse = output
        ctx.floor = inputs[1]
        ctx.mark_non_differentiable(inverse)
        ctx.save_for_backward(y, inverse)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _unused: Tensor) -> tuple[Tensor, None]:
        y, inverse = ctx.saved_tensors
        along = (gradient * y).mean(-1, keepdim=True, dtype=inverse.dtype)
        along = torch.where(inverse * ctx.floor < 1, along, 0)  # below the floor the map is linear
        return (torch.addcmul(gradient, y, along.to(y.dtype), value=-1) * inverse).to(gradient.dtype), None


def normalize(x: Tensor, floor: float = 1e-4) -> Tensor:
    """Scale every vector of the last axis to unit magnitude. x: (..., channels) → (..., channels).

    Computed in fp32 at least, whatever the input's type. Vectors of a magnitude below `floor` are divided by
    the floor, so that a zero stays a zero. Eq. 30 of arXiv 2312.02696.
    """
    y, _ = _Normalize.apply(x, floor)
    return y


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Blend two uncorrelated unit-magnitude streams and keep unit magnitude.

    a, b: (..., channels) → (..., channels); ((1 − t)·a + t·b) / √((1 − t)² + t²).
    Eq. 88 of arXiv 2312.02696.
    """
    scale = 1 / math.hypot(1 - t, t)
    return a * ((1 - t) * scale) + b * (t * scale)


def mp_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596: unit magnitude for a standard normal input. Eq. 81 of arXiv 2312.02696."""
    return F.silu(x) / SILU_MAGNITUDE


class ResidualSum(nn.Module):
    """`mp_sum` of stream and branch, brought back to unit magnitude token by token: (…, channels) → (…, channels).

    Eq. 88 keeps magnitude only while the two are uncorrelated. They are so by chance at initialisation (to about
    1/√channels) and not after training: branches learn to point along the stream, and a plain sum doubles it.
    """

    def __init__(self, t: float) -> None:
        super().__init__()
        self.t = t

    def forward(self, stream: Tensor, branch: Tensor) -> Tensor:
        return normalize(mp_sum(stream, branch, self.t))


class MPLinear(nn.Module):
    """A bias-free linear map whose rows have unit magnitude: x: (..., inputs) → (..., outputs).

    The weight is normalised on use, w = normalize(W)/√inputs, so its gradient is orthogonal to W
    (Eq. 47 and 66 of arXiv 2312.02696). Keeping the stored W normalised is `normalize_weights`'s
    work, after the optimiser's step.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """`scale` multiplies the output; it is folded into the weight, which is smaller than x."""
        return F.linear(x, normalize(self.weight) * (scale / math.sqrt(self.weight.shape[1])))


class MPEmbedding(nn.Module):
    """A table of unit-magnitude rows: index: (...) int64 → (..., channels)."""

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, channels))

    def forward(self, index: Tensor) -> Tensor:
        return normalize(self.weight[index])


class FourierFeatures(nn.Module):
    """Unit-magnitude Fourier features of a scalar: x: (batch,) → (batch, channels). Eq. 75 of arXiv 2312.02696.

    √2·cos(2π(f·x + φ)). EDM2 draws f ~ N(0, 1) and φ ~ U(0, 1) once; here f are the normal's own quantiles and φ
    a golden-ratio sequence: the same distribution, with nothing to draw or store.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        index = torch.arange(channels, dtype=torch.float64)
        frequencies = math.sqrt(2) * torch.erfinv(2 * (index + 0.5) / channels - 1)
        phases = (index * (math.sqrt(5) - 1) / 2) % 1
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.register_buffer("phases", phases.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * (torch.outer(x.float(), self.frequencies) + self.phases)
        return math.sqrt(2) * angle.cos()


def normalised_weights(module: nn.Module) -> list[nn.Parameter]:
    """The weights that forced weight normalisation keeps on the sphere: those of every MPLinear and MPEmbedding."""
    return [part.weight for part in module.modules() if isinstance(part, (MPLinear, MPEmbedding))]


@torch.no_grad()
def normalize_weights(module: nn.Module) -> None:
    """Forced weight normalisation: bring every row of every weight to norm √inputs, in place.

    Eq. 66 of arXiv 2312.02696. Called after the optimiser's step, never inside `forward`.
    """
    for weight in normalised_weights(module):
        weight.copy_(normalize(weight))


def initialize_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every normalised weight from N(0, 1), then project it onto the sphere."""
    with torch.no_grad():
        for weight in normalised_weights(module):
            weight.copy_(torch.randn(weight.shape, generator=generator))
    normalize_weights(module)
