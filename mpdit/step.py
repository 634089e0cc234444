"""One training step on plain data: draw the batch, follow the gradient, renormalise, average."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpdit.datasets import Dataset
from mpdit.diffusion import Denoiser, Edm, denoising_loss
from mpdit.ema import TRACKED_WIDTHS, update_averages
from mpdit.layers import normalize_weights
from mpdit.randomness import normal, sample_order, uniform


@dataclass(frozen=True)
class Batch:
    """One process's share of a global batch, on the training device."""

    images: Tensor  # (share, channels, resolution, resolution)
    labels: Tensor  # (share,) int64, `classes` where the label is dropped
    noise: Tensor  # (share, 1 + channels·resolution²) standard normal


@dataclass
class TrainingState:
    """All that a step changes. `averages`: for each tracked width, one fp32 tensor a parameter."""

    denoiser: Denoiser
    optimizer: torch.optim.Adam
    averages: list[list[Tensor]]
    step: int = 0

    @property
    def named_averages(self) -> list[dict[str, Tensor]]:
        """The tracked averages by parameter name."""
        names = [name for name, _ in self.denoiser.named_parameters()]
        return [dict(zip(names, average, strict=True)) for average in self.averages]


def new_state(denoiser: Denoiser, betas: tuple[float, float]) -> TrainingState:
    """A state before the first step."""
    parameters = list(denoiser.parameters())
    # capturable would keep the step count on the device; fused is the fast path on CPU and CUDA alike
    optimizer = torch.optim.Adam(parameters, lr=0.0, betas=betas, fused=True)
    averages = [[torch.zeros_like(p, dtype=torch.float32) for p in parameters] for _ in TRACKED_WIDTHS]
    return TrainingState(denoiser, optimizer, averages)


def draw_batch(
    dataset: Dataset, seed: int, step: int, size: int, label_dropout: float, share: slice, device: torch.device
) -> Batch:
    """The `share` of the global batch of one step; the whole batch is a function of (seed, step) alone."""
    index = sample_order(len(dataset), seed, (step - 1) * size, size)[share]
    labels = dataset.labels[index]
    dropped = uniform((size,), seed, step, "label dropout")[share] < label_dropout
    labels = torch.where(dropped, dataset.classes, labels)
    noise = normal((size, 1 + dataset.images[0].numel()), seed, step, "noise")[share]
    return Batch(dataset.images[index].to(device), labels.to(device), noise.to(device))


def learning_rate(step: int, steps: int, peak: float, warmup: float, decay_from: float) -> float:
    """Linear warm-up, constant, then peak/√(step/start): the schedule of arXiv 2312.02696, Eq. 67.

    `warmup` and `decay_from` are shares of the whole run; step counts from 1.
    """
    start = max(1.0, decay_from * steps)
    return peak * min(1.0, step / max(1.0, warmup * steps)) * (max(step, start) / start) ** -0.5


def train_step(
    state: TrainingState,
    model: nn.Module,
    objective: Edm,
    batch: Batch,
    lr: float,
    backward: Callable[[Tensor], None],
) -> Tensor:
    """Take one step and return its loss, () fp32, on the device: nothing here waits for it.

    `model` is the denoiser as it is called (compiled, or wrapped for several processes); `state.denoiser` holds
    the parameters. `backward(loss)` must leave the global batch's mean gradient in them.
    """
    state.step += 1
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.zero_grad(set_to_none=True)
    loss = denoising_loss(model, objective, batch.images, batch.labels, batch.noise)
    backward(loss)
    state.optimizer.step()
    normalize_weights(state.denoiser)
    update_averages(state.averages, [p.detach() for p in state.denoiser.parameters()], state.step)
    return loss.detach()
