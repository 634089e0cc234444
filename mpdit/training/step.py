"""One training step on plain data: draw a batch, accumulate its gradient, apply it and update the EMAs."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mpdit.data.dataset import Dataset
from mpdit.diffusion.denoiser import Denoiser
from mpdit.model.layers import normalize_weights, project_gradients
from mpdit.model.transformer import parameter_rules
from mpdit.randomness import Draws, sample_order
from mpdit.training.ema import TRACKED_SIGMA_RELS, update_emas
from mpdit.training.optimizers.adam import Adam
from mpdit.training.optimizers.registry import Optimizer, Part, Trainable

ADAM = Adam()


@dataclass(frozen=True)
class Batch:
    """One process's slice of a global batch, on the training device."""

    images: Tensor  # (samples, channels, resolution, resolution)
    labels: Tensor  # (samples,) int64, `classes` where the label is dropped
    noise: Tensor  # (samples, 1 + channels·resolution²) standard normal

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, size: int) -> list["Batch"]:
        """Split into micro-batches of at most `size` samples."""
        parts = zip(self.images.split(size), self.labels.split(size), self.noise.split(size), strict=True)
        return [Batch(*part) for part in parts]


@dataclass
class TrainingState:
    """All that a step changes. emas: one list for each tracked σ_rel, with one fp32 tensor a parameter."""

    denoiser: Denoiser
    optimizers: list[Part]
    emas: list[list[Tensor]]
    step: int = 0

    @property
    def named_emas(self) -> list[dict[str, Tensor]]:
        """The tracked EMAs by parameter name."""
        names = [name for name, _ in self.denoiser.named_parameters()]
        return [dict(zip(names, ema, strict=True)) for ema in self.emas]


def new_state(denoiser: Denoiser, betas: tuple[float, float], optimizer: Optimizer = ADAM) -> TrainingState:
    """Make the state before the first step; betas are Adam's."""
    parameters = list(denoiser.parameters())
    emas = [[torch.zeros_like(p, dtype=torch.float32) for p in parameters] for _ in TRACKED_SIGMA_RELS]
    return TrainingState(denoiser, optimizer.make(_trainable(denoiser), betas), emas)


def _trainable(denoiser: Denoiser) -> list[Trainable]:
    """The parameters with µP's factors on their learning rates (mpdit/model/mup.py); 1 where it is not used."""
    architecture = denoiser.network.architecture
    rules = {f"network.{name}": rule for name, rule in parameter_rules(architecture).items()}
    ratio = (architecture.base_width or architecture.width) / architecture.width
    return [
        Trainable(name, parameter, rules[name].rate if name in rules else 1.0, ratio)
        for name, parameter in denoiser.named_parameters()
    ]


@dataclass(frozen=True)
class BatchSampler:
    """Draws the batches of one training; each is a function of the seed, the step and the device alone.

    size: samples of the global batch. batch_slice: the part of it that this process trains on.
    """

    dataset: Dataset
    seed: int
    size: int
    label_dropout: float
    batch_slice: slice = field(default_factory=lambda: slice(None))
    device: torch.device | str = "cpu"

    def draw(self, step: int) -> Batch:
        """Draw this process's slice of the batch of one step, which counts from 1."""
        index = sample_order(len(self.dataset), self.seed, (step - 1) * self.size, self.size)[self.batch_slice]
        draws = Draws(self.seed, step, self.size, self.batch_slice, self.device)
        labels = self.dataset.labels[index].to(self.device)
        labels = torch.where(draws.uniform("label dropout") < self.label_dropout, self.dataset.classes, labels)
        noise = draws.normal("noise", 1 + self.dataset.channels * self.dataset.resolution**2)
        return Batch(self.dataset.batch(index, draws), labels, noise)


def accumulate_gradient(
    loss: nn.Module, batch: Batch, micro_batch: int | None = None, precision: str = "fp32"
) -> Tensor:
    """Leave the gradient of the batch's mean loss in the parameters, and return that loss.

    Args:
        loss: the mean loss of (images, labels, noise), as DenoisingLoss. Under DistributedDataParallel the processes
            average their gradients once, after the last micro-batch.
        batch: this process's slice of the global batch.
        micro_batch: how many samples go through the network at once; all of them by default.
        precision: of the forward pass, `fp32` or `bf16`.

    Returns:
        () fp32, on the device: nothing here waits for it.
    """
    loss.zero_grad(set_to_none=True)
    mean_loss = torch.zeros((), device=batch.noise.device)
    parts = batch.split(micro_batch or len(batch))
    for number, part in enumerate(parts, 1):
        with _without_exchange(loss) if number < len(parts) else nullcontext():
            with torch.autocast(batch.noise.device.type, torch.bfloat16, enabled=precision == "bf16"):
                part_loss = loss(part.images, part.labels, part.noise)
            part_loss = part_loss * (len(part) / len(batch))
            part_loss.backward()
        mean_loss += part_loss.detach()
    return mean_loss


def _without_exchange(loss: nn.Module) -> AbstractContextManager[None]:
    """While open, the processes do not average their gradients."""
    return loss.no_sync() if isinstance(loss, DistributedDataParallel) else nullcontext()


def apply_gradient(state: TrainingState, lr: float, clip: float | None = None) -> Tensor | None:
    """Take the optimiser's step along the gradient in the parameters, normalise the weights, update the EMAs.

    Args:
        state: is changed.
        lr: the rate that each group's `factor` multiplies.
        clip: the largest norm that the whole gradient may have.

    Returns:
        () fp32, the norm of the whole gradient before it was clipped; None without clipping, which leaves it as it is.
    """
    norm: Tensor | None = None
    state.step += 1
    for part in state.optimizers:
        for group in part.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
    project_gradients(state.denoiser)
    if clip is not None:
        norm = torch.nn.utils.clip_grad_norm_(state.denoiser.parameters(), clip, foreach=True)
    for part in state.optimizers:
        part.optimizer.step()
    normalize_weights(state.denoiser)
    update_emas(state.emas, [p.detach() for p in state.denoiser.parameters()], state.step)
    return norm
