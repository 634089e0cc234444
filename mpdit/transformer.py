"""The magnitude-preserving diffusion transformer (MP-DiT) and its sizes.

Source: arXiv 2505.19122, with the choices of arXiv 2312.02696 for embeddings and residual sums.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.errors import refusal
from mpdit.layers import (
    SILU_MAGNITUDE,
    FourierFeatures,
    MPEmbedding,
    MPLinear,
    ResidualSum,
    initialize_weights,
    mp_silu,
    mp_sum,
    normalize,
)
from mpdit.modulation import Conditioner, Modulate, gate, parse_modulation
from mpdit.randomness import generator

SIZES = {  # name: (depth, width, heads); XS to XL as published, nano for 8×8 digits
    "nano": (4, 64, 4),
    "XS": (6, 256, 4),
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}
RESIDUAL_BLEND = 0.3  # share of the branch in each residual sum
EMBEDDING_BLEND = 0.5  # patches with positions, noise level with class
MLP_RATIO = 4
FOURIER_CHANNELS = 256


@dataclass(frozen=True)
class Architecture:
    """Everything that fixes the network's shape, in plain values (it travels in the weights' file header)."""

    depth: int
    width: int
    heads: int
    patch: int
    modulation: str
    channels: int  # of the images
    resolution: int  # of the images, in pixels
    classes: int

    def __post_init__(self) -> None:
        parse_modulation(self.modulation)
        if self.resolution % self.patch:
            divisors = [n for n in range(1, self.resolution + 1) if self.resolution % n == 0]
            raise refusal(
                f"patch {self.patch} does not divide the images' {self.resolution} pixels",
                given=self.patch,
                allowed=divisors,
            )
        if self.width % (2 * self.heads):
            raise refusal(f"{self.heads} heads do not divide width {self.width} into even parts", given=self.heads)

    def as_dict(self) -> dict[str, int | str]:
        """The fields as plain values."""
        return dataclasses.asdict(self)


def sincos_positions(grid: int, width: int) -> Tensor:
    """Fixed 2-D sine and cosine positions of unit magnitude and zero mean: (grid², width)."""
    frequency = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.outer(torch.arange(grid, dtype=torch.float64), frequency)
    line = torch.cat([angle.sin(), angle.cos()], dim=-1)  # (grid, width/2)
    rows, columns = line.repeat_interleave(grid, 0), line.repeat(grid, 1)
    table = torch.cat([rows, columns], dim=-1)
    return normalize((table - table.mean(-1, keepdim=True)).float())


def patchify(images: Tensor, patch: int) -> Tensor:
    """(batch, channels, height, width) → (batch, tokens, patch²·channels)."""
    b, c, h, w = images.shape
    x = images.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // patch) * (w // patch), patch * patch * c)


def unpatchify(tokens: Tensor, patch: int, channels: int) -> Tensor:
    """(batch, tokens, patch²·channels) → (batch, channels, height, width), the inverse of `patchify`."""
    b, n, _ = tokens.shape
    grid = round(n**0.5)
    x = tokens.reshape(b, grid, grid, patch, patch, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, grid * patch, grid * patch)


class CosineAttention(nn.Module):
    """Self-attention on unit-magnitude queries and keys: x: (batch, tokens, channels) → the same shape.

    Logits are √d_head·cos θ. Averaging over tokens shrinks the values, by an amount that no fixed factor can
    undo (tokens are correlated), so the output is brought back to unit magnitude token by token.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = MPLinear(width, 3 * width)
        self.out = MPLinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(normalize(q), normalize(k), v)
        return normalize(self.out(y.transpose(1, 2).reshape(b, n, width)))


class MLP(nn.Module):
    """Two magnitude-preserving layers around mp_silu: x: (batch, tokens, channels) → the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = MPLinear(width, MLP_RATIO * width)
        self.out = MPLinear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.silu(self.into(x)), scale=1 / SILU_MAGNITUDE)


class SubLayer(nn.Module):
    """x ← normalize(mp_sum(x, gate(branch(modulate(x))))): one half of a block. Eq. 4 of arXiv 2505.19122."""

    def __init__(self, branch: nn.Module, width: int, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.conditioner = Conditioner(width, kinds)
        self.modulate = Modulate()
        self.branch = branch
        self.residual = ResidualSum(RESIDUAL_BLEND)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        amounts, gains = self.conditioner(condition), self.conditioner.gains
        branch = self.branch(self.modulate(x, amounts, gains))
        return self.residual(x, gate(branch, amounts, gains))


class Block(nn.Module):
    """Attention, then MLP: x: (batch, tokens, channels), condition: (batch, channels) → (batch, tokens, channels)."""

    def __init__(self, width: int, heads: int, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.attention = SubLayer(CosineAttention(width, heads), width, kinds)
        self.mlp = SubLayer(MLP(width), width, kinds)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.mlp(self.attention(x, condition), condition)


class FinalLayer(nn.Module):
    """Modulated tokens to patches, with one gain that starts at 0: (batch, tokens, width) → (…, patch²·channels)."""

    def __init__(self, width: int, outputs: int, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.conditioner = Conditioner(width, tuple(kind for kind in kinds if kind != "gate"))
        self.modulate = Modulate()
        self.out = MPLinear(width, outputs)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        x = self.modulate(x, self.conditioner(condition), self.conditioner.gains)
        return self.out(x) * self.gain


class Transformer(nn.Module):
    """MP-DiT: (noisy images, noise level, class) → a prediction of the images' shape.

    images: (batch, channels, resolution, resolution) of unit magnitude, level: (batch,) about −2 … 2
    (ln σ / 4), labels: (batch,) int64 with `classes` meaning "no class".
    """

    positions: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        kinds = parse_modulation(a.modulation)
        pixels = a.patch**2 * a.channels
        self.patches = MPLinear(pixels + 1, a.width)  # one channel of ones stands for a bias
        positions = sincos_positions(a.resolution // a.patch, a.width)
        self.register_buffer("positions", positions, persistent=False)
        self.level = nn.Sequential(FourierFeatures(FOURIER_CHANNELS), MPLinear(FOURIER_CHANNELS, a.width))
        self.level_out = MPLinear(a.width, a.width)
        self.label = MPEmbedding(a.classes + 1, a.width)
        self.blocks = nn.ModuleList(Block(a.width, a.heads, kinds) for _ in range(a.depth))
        self.final = FinalLayer(a.width, pixels, kinds)

    def forward(self, images: Tensor, level: Tensor, labels: Tensor) -> Tensor:
        a = self.architecture
        patches = F.pad(patchify(images, a.patch), (0, 1), value=1.0)
        x = normalize(mp_sum(self.patches(patches), self.positions, EMBEDDING_BLEND))
        noise = self.level_out(mp_silu(self.level(level)))
        condition = mp_sum(noise, self.label(labels), EMBEDDING_BLEND)
        for block in self.blocks:
            x = block(x, condition)
        return unpatchify(self.final(x, condition), a.patch, a.channels)


def build_transformer(architecture: Architecture, seed: int) -> Transformer:
    """A network with weights drawn from the seed alone, on the CPU."""
    model = Transformer(architecture)
    initialize_weights(model, generator(seed, 0, "weights"))
    return model


def parameter_count(architecture: Architecture) -> int:
    """The number of trainable parameters, without allocating any."""
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(architecture).parameters() if p.requires_grad)
