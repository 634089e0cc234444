"""One training step on plain data: draw the batch, follow the gradient, renormalise, average."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpdit.data.dataset import Dataset
from mpdit.diffusion.denoiser import Denoiser
from mpdit.model.layers import normalize_weights, project_gradients
from mpdit.model.transformer import parameter_rules
from mpdit.randomness import Draws, sample_order
from mpdit.training.ema import TRACKED_WIDTHS, update_averages

SCHEDULES = ("inverse_sqrt", "cosine", "constant")


@dataclass(frozen=True)
class Batch:
    """One process's share of a global batch, on the training device."""

    images: Tensor  # (share, channels, resolution, resolution)
    labels: Tensor  # (share,) int64, `classes` where the label is dropped
    noise: Tensor  # (share, 1 + channels·resolution²) standard normal

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, size: int) -> list["Batch"]:
        """Micro-batches of at most that many samples."""
        parts = zip(self.images.split(size), self.labels.split(size), self.noise.split(size), strict=True)
        return [Batch(*part) for part in parts]


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
    optimizer = torch.optim.Adam(_rate_groups(denoiser), lr=0.0, betas=betas, fused=True)
    averages = [[torch.zeros_like(p, dtype=torch.float32) for p in parameters] for _ in TRACKED_WIDTHS]
    return TrainingState(denoiser, optimizer, averages)


def _rate_groups(denoiser: Denoiser) -> list[dict[str, Any]]:
    """The parameters in groups of one learning rate each; `factor` multiplies the step's (mpdit/model/mup.py)."""
    rules = {f"network.{name}": rule for name, rule in parameter_rules(denoiser.network.architecture).items()}
    groups: dict[float, list[Tensor]] = {}
    for name, parameter in denoiser.named_parameters():
        groups.setdefault(rules[name].rate if name in rules else 1.0, []).append(parameter)
    return [{"params": members, "factor": factor} for factor, members in groups.items()]


def draw_batch(
    dataset: Dataset, seed: int, step: int, size: int, label_dropout: float, share: slice, device: torch.device
) -> Batch:
    """The `share` of the global batch of one step; the whole batch is a function of (seed, step) and the device."""
    index = sample_order(len(dataset), seed, (step - 1) * size, size)[share]
    draws = Draws(seed, step, size, share, device)
    labels = dataset.labels[index].to(device)
    labels = torch.where(draws.uniform("label dropout") < label_dropout, dataset.classes, labels)
    noise = draws.normal("noise", 1 + dataset.channels * dataset.resolution**2)
    return Batch(dataset.batch(index, draws), labels, noise)


def learning_rate(step: int, steps: int, peak: float, schedule: str, warmup: float, decay_from: float) -> float:
    """Linear warm-up, constant, then down: as peak/√(step/start), as half a cosine to 0, or not at all.

    `warmup` and `decay_from` are shares of the whole run; step counts from 1. `inverse_sqrt` is Eq. 67 of
    arXiv 2312.02696.
    """
    start = max(1.0, decay_from * steps)
    rate = peak * min(1.0, step / max(1.0, warmup * steps))
    if schedule == "constant" or step <= start:
        return rate
    if schedule == "cosine":
        return rate * 0.5 * (1 + math.cos(math.pi * (step - start) / (steps + 1 - start)))
    return rate * (step / start) ** -0.5


def accumulate(
    loss: Callable[[Batch], Tensor],
    batch: Batch,
    micro_batch: int,
    backward: Callable[[Tensor], None],
    alone: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Tensor:
    """Leave the mean gradient of the whole batch in the parameters, micro-batch by micro-batch; returns the mean loss.

    alone: a context for all micro-batches but the last, in which several processes keep their gradients apart.
    """
    parts = batch.split(micro_batch)
    total = torch.zeros((), device=batch.noise.device)
    for number, part in enumerate(parts, 1):
        with alone() if number < len(parts) else contextlib.nullcontext():
            weighted = loss(part) * (len(part) / len(batch))
            backward(weighted)
        total += weighted.detach()
    return total


def train_step(state: TrainingState, gradient: Callable[[], Tensor], lr: float, clip: float | None = None) -> Tensor:
    """Take one step and return its loss, () fp32, on the device: nothing here waits for it.

    `gradient()` leaves the global batch's mean gradient in the parameters and returns the loss. clip: the largest
    norm that the whole gradient may have. lr: what each group's `factor` multiplies.
    """
    state.step += 1
    for group in state.optimizer.param_groups:
        group["lr"] = lr * group["factor"]
    state.optimizer.zero_grad(set_to_none=True)
    loss = gradient()
    project_gradients(state.denoiser)
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(state.denoiser.parameters(), clip, foreach=True)
    state.optimizer.step()
    normalize_weights(state.denoiser)
    update_averages(state.averages, [p.detach() for p in state.denoiser.parameters()], state.step)
    return loss
