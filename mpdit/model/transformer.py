"""The diffusion transformer, on every rung of the design ladder from DiT to MP-DiT.

Sources: arXiv 2212.09748 (DiT, design A), arXiv 2505.19122 (MP-DiT, design E), with the choices of
arXiv 2312.02696 for embeddings and residual sums. Design F brings streams back to unit magnitude: our own step.
"""

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.model.architecture import Architecture
from mpdit.model.conditioner import Modulate, conditioner
from mpdit.model.design import Design
from mpdit.model.layers import (
    Embedding,
    FourierFeatures,
    HashedFeatures,
    Linear,
    MPEmbedding,
    MPSum,
    PlainSum,
    Renormalize,
    SinusoidalFeatures,
    initialize_weights,
    linear,
    mp_silu,
    mp_sum,
    normalize,
)
from mpdit.model.modulation.registry import MODULATIONS, parse_modulation
from mpdit.model.mup import Rule, normalised_names, parameter_roles, rule
from mpdit.randomness import generator
from mpdit.schedules import ddpm_sigmas

RESIDUAL_T = 0.3  # t of `mp_sum` for each residual sum
EMBEDDING_T = 0.5  # t of `mp_sum` for patches and positions, and for noise level and class
NOISE_CHANNELS = 256


def patchify(images: Tensor, patch: int) -> Tensor:
    """Cut images into patches: (batch, channels, height, width) → (batch, tokens, patch²·channels)."""
    b, c, h, w = images.shape
    x = images.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // patch) * (w // patch), patch * patch * c)


def unpatchify(tokens: Tensor, patch: int, channels: int) -> Tensor:
    """Join patches, the inverse of `patchify`: (batch, tokens, patch²·channels) → (batch, channels, height, width)."""
    b, n, _ = tokens.shape
    grid = round(n**0.5)
    x = tokens.reshape(b, grid, grid, patch, patch, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, grid * patch, grid * patch)


def norm_layer(architecture: Architecture) -> nn.Module:
    """Build what stands before a modulation: nothing where the layers keep magnitudes."""
    a = architecture
    return a.norm.build(a.width) if a.design.layer_norm else nn.Identity()


def residual_sum(design: Design) -> MPSum | PlainSum:
    """Build the design's sum of a stream and a branch."""
    return MPSum(RESIDUAL_T) if design.mp_residual else PlainSum()


class SubLayer(nn.Module):
    """x ← x ⊕ gate(branch(modulate(norm(x)))): one half of a block. Eq. 4 of arXiv 2505.19122."""

    def __init__(self, branch: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        a, design = architecture, architecture.design
        self.norm = norm_layer(a)
        self.conditioner = conditioner(design, a.width, parse_modulation(a.modulation))
        self.modulate = Modulate()
        self.branch = branch
        self.residual = residual_sum(design)  # its output is observed as it is, so that drift shows also in design F
        self.renormalize = Renormalize() if design.renormalized else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        modulation = self.conditioner(condition)
        branch = self.branch(self.modulate(self.norm(x), modulation))
        return self.renormalize(self.residual(x, modulation.output.of(branch)))


class Block(nn.Module):
    """Attention, then MLP: x: (batch, tokens, channels), condition: (batch, channels) → (batch, tokens, channels)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        attention = a.attention.build(a.width, a.heads, a.design)
        if a.positions.turns_heads:
            attention.turn = a.positions.turn(a.resolution // a.patch, a.width // a.heads)
        self.attention = SubLayer(attention, a)
        self.mlp = SubLayer(a.mlp.build(a.width, a.design), a)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.mlp(self.attention(x, condition), condition)


class LongSkips(nn.Module):
    """Add what a block of the first half began with to what its mirror image begins with: U-ViT, arXiv 2209.12152.

    x ← x + g·s with a learned scalar g for each pair, 0 at the start, where the published code has a matrix, which the
    designs of unit rows could not start at 0. Where sums keep magnitude it is divided by √(1 + g²), and where streams
    are brought back, so is this one. The last stream kept is the first one added; an odd depth leaves a middle block.
    """

    def __init__(self, depth: int, design: Design) -> None:
        super().__init__()
        self.depth, self.mp_residual = depth, design.mp_residual
        self.gains = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in range(depth // 2))
        self.renormalize = Renormalize() if design.renormalized else nn.Identity()

    def forward(self, number: int, x: Tensor, streams: list[Tensor]) -> Tensor:
        """Return what block `number` begins with: x (batch, tokens, channels), put on `streams` or with one of them."""
        if number < self.depth // 2:
            streams.append(x)
        if number < (self.depth + 1) // 2:
            return x
        gain = self.gains[self.depth - 1 - number]
        total = x + gain * streams.pop()
        return self.renormalize(total * torch.rsqrt(1 + gain.square()) if self.mp_residual else total)


class FinalLayer(nn.Module):
    """From modulated tokens to patches, 0 at the start: (batch, tokens, width) → (batch, tokens, patch²·channels).

    Normalised weights cannot be 0: there one gain starts at 0 instead.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a, design = architecture, architecture.design
        parts = [name for name in parse_modulation(a.modulation) if MODULATIONS[name].place == "input"]
        self.norm = norm_layer(a)
        self.conditioner = conditioner(design, a.width, parts)
        self.modulate = Modulate()
        self.proj_out = linear(design, a.width, a.patch**2 * a.out_channels, init_std=0.0)
        self.gain = nn.Parameter(torch.zeros(())) if design.weight_normalization else None
        ratio = (a.base_width or a.width) / a.width
        self.multiplier = rule("output", design.weight_normalization, a.width, ratio).multiplier

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        patches = self.proj_out(self.modulate(self.norm(x), self.conditioner(condition)), scale=self.multiplier)
        return patches if self.gain is None else patches * self.gain


class NoiseEmbedding(nn.Module):
    """Embed the noise level c_noise = ln(σ)/4 (or the log-SNR/−8, which is the same): (batch,) → (batch, channels)."""

    def __init__(self, width: int, design: Design) -> None:
        super().__init__()
        self.features: nn.Module = SinusoidalFeatures(NOISE_CHANNELS)
        if design.map_dit:
            self.features = HashedFeatures(NOISE_CHANNELS, ddpm_sigmas().log() / 4)
        elif design.mp_embedding:
            self.features = FourierFeatures(NOISE_CHANNELS)
        self.silu = mp_silu if design.mp_silu else F.silu
        self.fc1 = linear(design, NOISE_CHANNELS, width, init_std=0.02)
        self.fc2 = linear(design, width, width, init_std=0.02)

    def forward(self, c_noise: Tensor) -> Tensor:
        return self.fc2(self.silu(self.fc1(self.features(c_noise))))


class Transformer(nn.Module):
    """The network F: (noisy images, noise level, class) → its output (batch, out_channels, resolution, resolution).

    images: (batch, channels, resolution, resolution) of unit magnitude, c_noise: (batch,), or (1,) for all,
    about −2 … 2 (ln σ / 4), labels: (batch,) int64 with `classes` meaning "no class".
    """

    pos_embed: Tensor | None

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        d = a.design
        grid = a.resolution // a.patch
        self.ones = int(d.weight_normalization)  # normalised maps have no bias: a channel of ones stands for it
        self.patch_embed = linear(d, a.patch**2 * a.channels + self.ones, a.width)
        self.register_buffer("pos_embed", a.positions.table(grid, a.width, d), persistent=False)
        self.noise_embed = NoiseEmbedding(a.width, d)
        self.class_embed = (MPEmbedding if d.mp_embedding else Embedding)(a.classes + 1, a.width)
        self.blocks = nn.ModuleList(Block(a) for _ in range(a.depth))
        self.skips = LongSkips(a.depth, d) if a.skips else None
        self.final = FinalLayer(a)

    def forward(self, images: Tensor, c_noise: Tensor, labels: Tensor) -> Tensor:
        a = self.architecture
        x = self.patch_embed(F.pad(patchify(images, a.patch), (0, self.ones), value=1.0))
        if self.pos_embed is not None:
            x = mp_sum(x, self.pos_embed, EMBEDDING_T) if a.design.mp_positions else x + self.pos_embed
        if a.design.renormalized:
            x = normalize(x)
        noise, label = self.noise_embed(c_noise), self.class_embed(labels)
        condition = mp_sum(noise, label, EMBEDDING_T) if a.design.mp_embedding else noise + label
        streams: list[Tensor] = []  # that long skips have still to add
        for number, block in enumerate(self.blocks):
            if self.skips is not None:
                x = self.skips(number, x, streams)
            x = block(x, condition)
        return unpatchify(self.final(x, condition), a.patch, a.out_channels)


def build_transformer(architecture: Architecture, seed: int) -> Transformer:
    """Build a network with weights drawn from the seed alone, on the CPU."""
    model = Transformer(architecture)
    for name, parameter_rule in parameter_rules(architecture).items():
        layer, _, kind = name.rpartition(".")
        module = model.get_submodule(layer)
        if kind == "weight" and parameter_rule.init_std is not None and isinstance(module, (Linear, Embedding)):
            module.init_std = parameter_rule.init_std
    initialize_weights(model, generator(seed, 0, "weights"))
    return model


def parameter_rules(architecture: Architecture) -> dict[str, Rule]:
    """Return µP's rule for every parameter, by name; none under the standard parametrisation."""
    a = architecture
    if a.base_width is None:
        return {}
    with torch.device("meta"):
        network, wider = (Transformer(dataclasses.replace(a, width=n * a.width, heads=n * a.heads)) for n in (1, 2))
    roles, normalised = parameter_roles(network, wider), normalised_names(network)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    ratio = a.base_width / a.width
    in_features = {name: math.prod(shape[1:]) if len(shape) > 1 else 0 for name, shape in shapes.items()}
    return {name: rule(role, name in normalised, in_features[name], ratio) for name, role in roles.items()}


def parameter_count(architecture: Architecture) -> int:
    """Count the trainable parameters, without allocating any."""
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(architecture).parameters() if p.requires_grad)


def forward_flop(architecture: Architecture) -> int:
    """Count the floating-point operations of one forward pass of one image: two a weight and token, and attention's.

    A training step takes about three times as many, as the backward pass takes twice the forward one.
    """
    a = architecture
    tokens = (a.resolution // a.patch) ** 2
    more = a.attention.flop(tokens, a.width, a.heads) + a.mlp.flop(tokens, a.width)
    return 2 * parameter_count(a) * tokens + a.depth * more
