"""Compiling a denoiser block by block: all blocks are one shape, so one compilation serves them all.

The first step waits for one block instead of for the whole network, and a second trial of the same shape in the
same process, or on the same machine through the compiler's own cache on disk, hardly waits.
"""

import logging
from collections.abc import Callable

import torch

from mpdit.diffusion import Denoiser

GRAPHED_UP_TO = 512  # channels; smaller networks on a GPU wait for launches more than for arithmetic

log = logging.getLogger(__name__)


def compilation_mode(width: int, device: torch.device) -> str:
    """torch.compile's mode for a network of this width: with CUDA graphs where launches are what takes the time."""
    alone = not torch.distributed.is_initialized()  # the hooks of several processes and graphs do not mix
    return "reduce-overhead" if device.type == "cuda" and width <= GRAPHED_UP_TO and alone else "default"


def compile_blocks(denoiser: Denoiser, device: torch.device, attempt: Callable[[], object]) -> bool:
    """Compile every block in place; `attempt()` must run them once, forwards and back. Returns whether it worked.

    Where it does not (no C++ compiler, say), the blocks stay as they were, and the log says why.
    """
    mode = compilation_mode(denoiser.network.architecture.width, device)
    for block in denoiser.network.blocks:
        block.compile(mode=mode, dynamic=False)
    try:
        attempt()
    except Exception as error:  # whatever a compiler raises
        for block in denoiser.network.blocks:
            block._compiled_call_impl = None
        log.warning("not compiled, so slower: %s", str(error).strip().splitlines()[0])
        return False
    return True
