"""Magnitude-preserving primitives, one equation each.

Magnitude means root mean square over the channels. The primitives named MP… or mp_… map inputs of unit
magnitude to outputs of unit magnitude in expectation, so a network of them needs no normalisation
layers; the others are DiT's, for the lower rungs of the design ladder.
Sources: arXiv 2312.02696 (EDM2), arXiv 2505.19122 (MP-DiT) and arXiv 2212.09748 (DiT).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.design import Design

SILU_MAGNITUDE = 0.5960  # root mean square of silu(z) for z ~ N(0, 1); Lemma 5 of arXiv 2505.19122


def magnitude(x: Tensor) -> Tensor:
    """Return the root mean square over the last axis: (..., channels) → (...). Eq. 3 of arXiv 2312.02696, per token."""
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
    """Add two uncorrelated streams of unit magnitude so that the sum has unit magnitude too.

    a, b: (..., channels) → (..., channels); ((1 − t)·a + t·b) / √((1 − t)² + t²).
    Eq. 88 of arXiv 2312.02696.
    """
    scale = 1 / math.hypot(1 - t, t)
    return a * ((1 - t) * scale) + b * (t * scale)


def mp_silu(x: Tensor) -> Tensor:
    """Return silu(x) / 0.596: unit magnitude for a standard normal input. Eq. 81 of arXiv 2312.02696."""
    return F.silu(x) / SILU_MAGNITUDE


def amplification(amount: Tensor, gain: Tensor) -> Tensor:
    """Return (1 + g·s)/√(1 + g²), a factor that keeps unit magnitude at any gain. amount: (..., channels), gain: ()."""
    return (1 + gain * amount) * torch.rsqrt(1 + gain.square())


class PlainSum(nn.Module):
    """stream + branch, as in DiT: (…, channels) → (…, channels)."""

    def forward(self, stream: Tensor, branch: Tensor) -> Tensor:
        return stream + branch


class MPSum(nn.Module):
    """`mp_sum` of stream and branch: (…, channels) → (…, channels)."""

    def __init__(self, t: float) -> None:
        super().__init__()
        self.t = t

    def forward(self, stream: Tensor, branch: Tensor) -> Tensor:
        return mp_sum(stream, branch, self.t)


class Renormalize(nn.Module):
    """A stream brought back to unit magnitude token by token: (…, channels) → (…, channels). Ours, in design F.

    Eq. 88 keeps the magnitude of a sum only while its two parts are uncorrelated. They are so at initialisation, by
    chance (to about 1/√channels), and not after training: branches learn to point along the stream.
    """

    def forward(self, stream: Tensor) -> Tensor:
        return normalize(stream)


class Linear(nn.Module):
    """A linear map with a bias, as in DiT: x: (..., in_features) → (..., out_features).

    `init_std`: the standard deviation of its first weights; None draws them as Xavier does, uniformly.
    """

    def __init__(self, in_features: int, out_features: int, init_std: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features))
        self.init_std = init_std

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Map scale·x."""
        return F.linear(x, self.weight * scale if scale != 1 else self.weight, self.bias)


class WNLinear(nn.Module):
    """A bias-free linear map, weight-normalised on use: x: (..., in_features) → (..., out_features).

    w = normalize(W)/√in_features, whatever the size of W; its gradient is orthogonal to W, so W tends to grow.
    Eq. 47 of arXiv 2312.02696.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Map scale·x; the scale is folded into the weight, which has fewer values."""
        return F.linear(x, normalize(self.weight) * (scale / math.sqrt(self.weight.shape[1])))


class MPLinear(nn.Module):
    """A bias-free linear map whose stored rows have unit magnitude: x: (..., in_features) → (..., out_features).

    Forced weight normalisation (Eq. 66 of arXiv 2312.02696) in two halves that act once a step, for all layers at
    once: `project_gradients` before the optimiser's step, `normalize_weights` after it. Between them W is its own
    normalisation, so using it costs nothing: w = W/√in_features.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Map scale·x; the scale is folded into the weight, which has fewer values."""
        return F.linear(x, self.weight * (scale / math.sqrt(self.weight.shape[1])))


def linear(
    design: Design, in_features: int, out_features: int, init_std: float | None = None
) -> Linear | WNLinear | MPLinear:
    """Build the design's linear map; `init_std` is for Linear only, the others draw rows of unit magnitude."""
    if design.forced_normalization:
        return MPLinear(in_features, out_features)
    if design.weight_normalization:
        return WNLinear(in_features, out_features)
    return Linear(in_features, out_features, init_std)


class Embedding(nn.Module):
    """A table of rows drawn from N(0, 0.02²), as in DiT: index: (...) int64 → (..., channels)."""

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, channels))
        self.init_std = 0.02

    def forward(self, index: Tensor) -> Tensor:
        return self.weight[index]


class MPEmbedding(nn.Module):
    """A table whose rows are stored at unit magnitude, as MPLinear's are: index: (...) int64 → (..., channels)."""

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, channels))

    def forward(self, index: Tensor) -> Tensor:
        return self.weight[index]


class SinusoidalFeatures(nn.Module):
    """Cosines and sines of a scalar at geometric frequencies, as in DiT: x: (batch,) → (batch, channels).

    DiT's input are the steps 0 … 999; ours is c_noise = ln(σ)/4, stretched so that the noise levels of a training
    cover about the same range.
    """

    STRETCH = 300.0
    frequencies: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64, device="cpu") / half)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        angle = torch.outer(self.STRETCH * x.float(), self.frequencies)
        return torch.cat([angle.cos(), angle.sin()], dim=-1)


class FourierFeatures(nn.Module):
    """Unit-magnitude Fourier features of a scalar: x: (batch,) → (batch, channels). Eq. 75 of arXiv 2312.02696.

    √2·cos(2π(f·x + φ)). EDM2 draws f ~ N(0, 1) and φ ~ U(0, 1) once; here f are the normal's own quantiles and φ
    a golden-ratio sequence: the same distribution, with nothing to draw or store.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        index = torch.arange(channels, dtype=torch.float64, device="cpu")
        frequencies = math.sqrt(2) * torch.erfinv(2 * (index + 0.5) / channels - 1)
        phases = (index * (math.sqrt(5) - 1) / 2) % 1
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.register_buffer("phases", phases.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        angle = 2 * math.pi * (torch.outer(x.float(), self.frequencies) + self.phases)
        return math.sqrt(2) * angle.cos()


class HashedFeatures(nn.Module):
    """The public MP-DiT code's features of a whole-numbered step: x: (batch,) → (batch, channels), of magnitude 0.71.

    cos(2π(f·t + φ)) with f ~ N(0, 1): neighbouring steps have nothing in common. x is c_noise = ln(σ)/4; t is the
    DDPM step of that σ. For comparisons only.
    """

    frequencies: Tensor
    phases: Tensor
    levels: Tensor

    def __init__(self, channels: int, levels: Tensor) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(channels, generator=draw), persistent=False)
        self.register_buffer("phases", torch.rand(channels, generator=draw), persistent=False)
        self.register_buffer("levels", levels.float(), persistent=False)  # of the steps 0 … 999, ascending

    def forward(self, x: Tensor) -> Tensor:
        step = torch.searchsorted(self.levels, x.float() - 1e-5).clamp(max=len(self.levels) - 1)
        return torch.cos(2 * math.pi * (torch.outer(step.float(), self.frequencies) + self.phases))


def normalised_weights(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights that forced weight normalisation acts on: those of every MPLinear and MPEmbedding."""
    return [part.weight for part in module.modules() if isinstance(part, (MPLinear, MPEmbedding))]


GROUP_LIMIT = {
    "cpu": 2**18,
    "cuda": 2**24,
}  # values treated at once: what fits a CPU's cache, what is worth one launch on a GPU


def _groups(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Group matrices with rows of one length, by index: a group is treated as one tall matrix, with few kernels."""
    groups: list[list[int]] = []
    open_group: dict[int, list[int]] = {}
    for index, tensor in enumerate(tensors):
        limit = GROUP_LIMIT.get(tensor.device.type, 0)
        group = open_group.get(tensor.shape[1])
        if group is None or sum(tensors[i].numel() for i in group) + tensor.numel() > limit:
            group = open_group[tensor.shape[1]] = []
            groups.append(group)
        group.append(index)
    return groups


@torch.no_grad()
def normalize_weights(module: nn.Module) -> None:
    """Scale every row of every normalised weight to norm √in_features, in place.

    Eq. 66 of arXiv 2312.02696. Called after the optimiser's step, never inside `forward`.
    """
    weights: list[Tensor] = [weight.detach() for weight in normalised_weights(module)]
    for group in _groups(weights):
        rows = normalize(torch.cat([weights[i] for i in group]))
        torch._foreach_copy_([weights[i] for i in group], rows.split([len(weights[i]) for i in group]))


@torch.no_grad()
def project_gradients(module: nn.Module) -> None:
    """Remove from every normalised weight's gradient its component along the weight, row by row, in place.

    g ← g − W·mean(g·W): the derivative of normalize(W) at a W of unit magnitude (Eq. 47 of arXiv 2312.02696). It is
    linear in g, so once a step does for all micro-batches and processes.
    """
    weights = [weight for weight in normalised_weights(module) if weight.grad is not None]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    for group in _groups(weights):
        w, g = torch.cat([weights[i] for i in group]), torch.cat([gradients[i] for i in group])
        g.addcmul_(w, (g * w).mean(-1, keepdim=True), value=-1)
        torch._foreach_copy_([gradients[i] for i in group], g.split([len(weights[i]) for i in group]))


@torch.no_grad()
def initialize_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight: normalised ones uniformly on the sphere, DiT's as DiT draws them. Biases start at 0."""
    for part in module.modules():
        if isinstance(part, (MPLinear, MPEmbedding, WNLinear)):
            part.weight.copy_(normalize(torch.randn(part.weight.shape, generator=generator)))
        elif isinstance(part, Embedding):
            part.weight.copy_(part.init_std * torch.randn(part.weight.shape, generator=generator))
        elif isinstance(part, Linear):
            part.bias.zero_()
            if part.init_std is None:
                nn.init.xavier_uniform_(part.weight, generator=generator)
            else:
                part.weight.copy_(part.init_std * torch.randn(part.weight.shape, generator=generator))
