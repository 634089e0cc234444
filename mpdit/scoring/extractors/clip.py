"""CLIP's image tower, ViT-L/14 at 336 pixels (arXiv 2103.00020), read from its published weights or from open_clip's.

Images are resized bicubically with antialiasing to the size of its positions.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.scoring.extractors.registry import EXTRACTORS, ExtractorKind
from mpdit.scoring.published_weights import FeatureNetwork, PublishedWeights, load_published

HASH = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"
PUBLISHED = PublishedWeights(
    "clip",
    f"https://openaipublic.azureedge.net/clip/models/{HASH}/ViT-L-14-336px.pt",
    HASH,
    "MPDIT_CLIP_WEIGHTS",
)
HEAD = 64  # channels
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of channels in 0 … 1
PREFIX = "visual."  # of the image tower's weights


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        return self.c_proj(x * torch.sigmoid(1.702 * x))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.ln_1(x)
        x = x + self.attn(seen, seen, seen, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class _Blocks(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(_Block(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x)


class ClipVision(nn.Module):
    """uint8 images (batch, 3, height, width) → embeddings (batch, dimensions); modules are named as in the files."""

    mean: Tensor
    std: Tensor

    def __init__(self, width: int, depth: int, patch: int, grid: int, dimensions: int) -> None:
        super().__init__()
        self.side, self.dimensions = grid * patch, dimensions
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + grid * grid, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = _Blocks(width, depth)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, dimensions))
        self.register_buffer("mean", 255 * torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = F.interpolate(images.float(), size=self.side, mode="bicubic", antialias=True).clamp(0, 255)
        x = self.conv1((x - self.mean) / self.std).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


def read_clip(path: Path) -> ClipVision:
    """Read the image tower of a file: the published one (TorchScript), or open_clip's (.safetensors, or tensors)."""
    weights = {name.removeprefix(PREFIX): t.float() for name, t in _tensors(path).items() if name.startswith(PREFIX)}
    width, _, patch, _ = weights["conv1.weight"].shape
    depth = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("transformer.resblocks."))
    grid = round((len(weights["positional_embedding"]) - 1) ** 0.5)
    network = ClipVision(width, depth, patch, grid, weights["proj"].shape[1])
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    return network


def _tensors(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        found: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except RuntimeError:  # a TorchScript archive, whose code is TorchScript's and is not run here
        found = torch.jit.load(str(path), map_location="cpu").state_dict()
    return found


def _build(path: Path) -> FeatureNetwork:
    network = read_clip(path)
    return FeatureNetwork(network, network.dimensions)


EXTRACTORS.register(
    ExtractorKind(
        "clip", "CLIP ViT-L/14 at 336 pixels (arXiv 2103.00020)", partial(load_published, PUBLISHED, _build), PUBLISHED
    )
)
