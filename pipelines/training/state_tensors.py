"""A training state as the tensors of a checkpoint, and back."""

from collections.abc import Mapping

import torch
from accelerate.utils import broadcast
from torch import Tensor

from mpdit.training.step import TrainingState


def state_tensors(state: TrainingState) -> dict[str, Tensor]:
    """All tensors of a state by their names in a checkpoint: views, so writing to them changes the state."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.denoiser.named_parameters():
        tensors[f"weights/{name}"] = parameter.detach()
        for key, value in state.optimizer.state[parameter].items():
            tensors[f"adam/{key}/{name}"] = value
    for index, average in enumerate(state.named_emas):
        tensors |= {f"average{index}/{name}": tensor for name, tensor in average.items()}
    return tensors


def load_state(state: TrainingState, step: int, saved: Mapping[str, Tensor] | None) -> None:
    """Set the state of every process to the saved tensors of one step, in place.

    saved: by name in the main process; None in the others, which receive them from it.
    """
    state.step = step
    for parameter in state.denoiser.parameters():
        moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
        state.optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device)} | moments
    tensors = state_tensors(state)
    if saved is not None:
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])
    broadcast(tensors)  # in place
