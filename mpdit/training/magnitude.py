"""Magnitude statistics: how far activations, weights and gradients are from unit magnitude.

Activations are observed through hooks, so that a network which is not being observed loses no time.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from mpdit.data.dataset import Dataset
from mpdit.diffusion.denoiser import Denoiser
from mpdit.model.layers import magnitude
from mpdit.model.transformer import SubLayer
from mpdit.randomness import normal


@contextmanager
def observed(
    denoiser: Denoiser, observations: dict[str, Tensor], statistic: Callable[[Tensor], Tensor] = magnitude
) -> Iterator[None]:
    """While open, every forward pass puts the statistic of each activation into `observations`, by name.

    The activations (batch, tokens, channels) are, for each block's attention and MLP, the modulated input and the
    residual stream after it, before it is brought back to unit magnitude (design F).
    """
    handles = []
    for number, block in enumerate(denoiser.network.blocks):
        for half in ("attention", "mlp"):
            layer = getattr(block, half)
            assert isinstance(layer, SubLayer)
            for place, module in (("input", layer.modulate), ("residual", layer.residual)):
                name = f"block{number}/{half}/{place}"

                def keep(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                    observations[name] = statistic(output)

                handles.append(module.register_forward_hook(keep))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def probe(denoiser: Denoiser, dataset: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Return the fixed batch that networks are measured on: noisy images, their levels and their classes.

    256 samples of the data, evenly over its classes, always with the same noise at the same noise levels.
    """
    device = next(denoiser.parameters()).device
    images, labels = dataset.plain(dataset.probe).to(device), dataset.labels[dataset.probe].to(device)
    noise = normal((len(images), 1 + images[0].numel()), 0, 0, "probe").to(device)
    sigma = denoiser.objective.noise_levels(noise[:, 0])
    return images + sigma.reshape(-1, 1, 1, 1) * noise[:, 1:].reshape(images.shape), sigma, labels


@torch.no_grad()
def activation_magnitudes(denoiser: Denoiser, dataset: Dataset) -> dict[str, tuple[float, float]]:
    """Measure {"block0/attention/residual": (mean, standard deviation)} of the token magnitudes on a fixed batch."""
    magnitudes: dict[str, Tensor] = {}
    with observed(denoiser, magnitudes), eager():
        denoiser(*probe(denoiser, dataset))
    return {name: (float(tokens.mean()), _deviation(tokens)) for name, tokens in magnitudes.items()}


def _deviation(values: Tensor) -> float:
    return float(values.std()) if values.numel() > 1 else 0.0


def eager() -> AbstractContextManager[None]:
    """While open, compiled code is not used, as it would not call the hooks; without the compiler there is none."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def magnitude_drift(magnitudes: dict[str, tuple[float, float]]) -> float:
    """Return the largest |ln M| over blocks, M the mean magnitude of the residual stream after it; 0 is none.

    Where streams are brought back to unit magnitude, M is what the sum was before.
    """
    after = [mean for name, (mean, _) in magnitudes.items() if name.endswith("mlp/residual")]
    return max(abs(math.log(mean)) if mean else math.inf for mean in after)


def matrices(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights that are matrices, by name."""
    return {name: p.detach() for name, p in module.named_parameters() if p.ndim == 2 and len(p) > 1}


def weight_magnitude(module: nn.Module) -> float:
    """Return the root mean square of all matrices; 1 under forced weight normalisation."""
    return _root_mean_square(list(matrices(module).values()))


@torch.no_grad()
def update_magnitudes(module: nn.Module, before: list[Tensor]) -> dict[str, float]:
    """Measure how far one step moved each matrix, relative to its size: the effective learning rate.

    before: the values of `matrices` before the step. Returns {"blocks.0.mlp.branch.fc1": RMS(W − W before)/RMS(W), …};
    a matrix that was zero has no size to compare with and is left out.
    """
    after = matrices(module)
    norms = [torch.stack([_norm(new - old), _norm(old)]) for new, old in zip(after.values(), before, strict=True)]
    names = [name.removeprefix("network.").removesuffix(".weight") for name in after]
    return {name: moved / size for name, (moved, size) in zip(names, torch.stack(norms).tolist(), strict=True) if size}


@torch.no_grad()
def gradient_magnitude(module: nn.Module, norm: Tensor | None = None) -> float:
    """Return the root mean square of all gradients of the last backward pass; not finite when one of them is not.

    norm: (), of the whole gradient before it was clipped; None where it is as it was.
    """
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if norm is not None:
        return float(norm) / math.sqrt(sum(gradient.numel() for gradient in gradients))
    return _root_mean_square(gradients)


def _root_mean_square(tensors: list[Tensor]) -> float:
    norm = torch.stack([_norm(tensor) for tensor in tensors]).norm()
    return float(norm) / math.sqrt(sum(tensor.numel() for tensor in tensors))


def _norm(tensor: Tensor) -> Tensor:
    """The root of the sum of squares, () float64: squares of large fp32 numbers would be infinite."""
    return torch.linalg.vector_norm(tensor, dtype=torch.float64)
