"""Out of memory: how it is recognised, and the message that says what did not fit and what to change."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mpdit.diffusion.denoiser import Denoiser
from mpdit.errors import MpditError
from pipelines.recipe import Recipe


class OutOfMemory(MpditError):
    """A step did not fit into the device's memory; the message says what was tried and what to change."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device's or the machine's memory was full; on a CPU, PyTorch says so only in the message."""
    kinds = (OutOfMemory, MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "DefaultCPUAllocator: can't allocate memory" in str(error)


@contextmanager
def explained_out_of_memory(recipe: Recipe, denoiser: Denoiser, micro_batch: int) -> Iterator[None]:
    """While open, full memory raises OutOfMemory. micro_batch: how many samples were tried at once."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # without its traceback, whose frames would keep what filled the memory
        raise OutOfMemory(_explanation(recipe, denoiser, micro_batch)) from error.with_traceback(None)


def _explanation(recipe: Recipe, denoiser: Denoiser, micro_batch: int) -> str:
    millions = sum(p.numel() for p in denoiser.parameters()) / 1e6
    model, runtime = f"{recipe.model.size}/{recipe.model.patch}", recipe.runtime
    return (
        f"out of memory on {runtime.device}: {model} with {millions:.1f} M parameters, {micro_batch} samples at once "
        f"in {runtime.precision}; set runtime.micro_batch: {max(1, micro_batch // 2)}, which does not change what is "
        "learned"
    )
