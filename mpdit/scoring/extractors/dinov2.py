"""DINOv2's vision transformer (arXiv 2304.07193), read from its published weights, without their code or the network.

torch-fidelity's own DINOv2 extractor takes no weights file. Images are resized to 224 bicubically with antialiasing, as
EDM2 does for FD_DINOv2; torch-fidelity resizes as TensorFlow 1 did, so its values are not comparable with these.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.scoring.extractors.registry import EXTRACTORS, ExtractorKind
from mpdit.scoring.published_weights import FeatureNetwork, PublishedWeights, load_published

PUBLISHED = PublishedWeights(
    "dinov2",
    "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "MPDIT_DINOV2_WEIGHTS",
)

SIDE, PATCH, HEAD = 224, 14, 64  # pixels, pixels, channels of a head
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's channels, for values in 0 … 1
EPSILON = 1e-6


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, width = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _Block(nn.Module):
    """x + γ₁·attention(norm(x)), then x + γ₂·mlp(norm(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = _Attention(width)
        self.ls1 = _Scale(width)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = _Mlp(width)
        self.ls2 = _Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class _Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class DinoV2(nn.Module):
    """uint8 images (batch, 3, height, width) → the class token after the last norm, (batch, width).

    Modules are named as in the published files. positions: (1, 1 + grid², width) as trained (grid 37).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, depth: int, grid: int) -> None:
        super().__init__()
        self.width = width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of the pre-training; never used here
        self.patch_embed = _Patches(width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.register_buffer("mean", 255 * torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).reshape(1, 3, 1, 1), persistent=False)

    def positions(self, side: int) -> Tensor:
        """Return the positional table for side × side patches: bicubic, with the 0.1 that the published code adds."""
        grid = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if side == grid:
            return self.pos_embed
        first, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        table = table.reshape(1, grid, grid, self.width).permute(0, 3, 1, 2)
        scale = (side + 0.1) / grid
        table = F.interpolate(table, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([first, table.permute(0, 2, 3, 1).reshape(1, side * side, self.width)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.interpolate(images.float(), size=(SIDE, SIDE), mode="bicubic", antialias=True)
        x = self.patch_embed((x - self.mean) / self.std)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.positions(SIDE // PATCH)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


def read_dinov2(path: Path) -> DinoV2:
    """Read the network of a published file (ViT-S/14, B/14 or L/14, without registers), at the file's size."""
    weights = torch.load(path, weights_only=True, map_location="cpu")
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    grid = round((weights["pos_embed"].shape[1] - 1) ** 0.5)
    network = DinoV2(weights["cls_token"].shape[-1], depth, grid)
    network.load_state_dict(weights)
    return network


def _build(path: Path) -> FeatureNetwork:
    network = read_dinov2(path)
    return FeatureNetwork(network, network.width)


EXTRACTORS.register(
    ExtractorKind("dinov2", "DINOv2 ViT-L/14 (arXiv 2304.07193)", partial(load_published, PUBLISHED, _build), PUBLISHED)
)
