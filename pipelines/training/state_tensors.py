"""A training state as the tensors of a checkpoint, and back."""

from collections.abc import Mapping

from accelerate.utils import broadcast
from torch import Tensor

from mpdit.training.step import TrainingState


def state_tensors(state: TrainingState) -> dict[str, Tensor]:
    """All tensors of a state by their names in a checkpoint: views, so writing to them changes the state."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.denoiser.named_parameters():
        tensors[f"weights/{name}"] = parameter.detach()
        for part in state.optimizers:
            for key, value in part.optimizer.state.get(parameter, {}).items():
                tensors[f"{part.label}/{key}/{name}"] = value
    for index, average in enumerate(state.named_emas):
        tensors |= {f"average{index}/{name}": tensor for name, tensor in average.items()}
    return tensors


def load_state(state: TrainingState, step: int, saved: Mapping[str, Tensor] | None) -> None:
    """Set the state of every process to the saved tensors of one step, in place.

    saved: by name in the main process; None in the others, which receive them from it.
    """
    state.step = step
    for part in state.optimizers:
        for group in part.optimizer.param_groups:
            for parameter in group["params"]:
                part.optimizer.state[parameter] = part.empty_state(parameter)
    tensors = state_tensors(state)
    if saved is not None:
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])
    broadcast(tensors)  # in place
