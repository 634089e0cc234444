"""The processes that train together: each one's Accelerator and its slice of the batch."""

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from mpdit.errors import input_error
from pipelines.recipe import Recipe


def new_accelerator(recipe: Recipe) -> Accelerator:
    """Build the Accelerator of this recipe, whatever an earlier training in this process has set."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not several)  # its public twin resets only what one object made
    GradientState._reset_state()
    precision = {"fp32": "no", "bf16": "bf16"}[recipe.runtime.precision]
    return Accelerator(cpu=recipe.runtime.device == "cpu", mixed_precision=precision)


def batch_slice(batch: int, accelerator: Accelerator) -> slice:
    """This process's part of the global batch. Raises InputError where the processes cannot share it evenly."""
    processes = accelerator.num_processes
    if batch % processes:
        raise input_error(f"a batch of {batch} cannot be shared by {processes} processes", given=batch)
    size = batch // processes
    return slice(accelerator.process_index * size, (accelerator.process_index + 1) * size)


def is_main_process() -> bool:
    """Whether this process scores and prints: the only one, or the first of several."""
    return bool(PartialState().is_main_process)
