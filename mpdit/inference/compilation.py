"""Compiling a denoiser block by block: all blocks have one shape, so one compilation serves them all.

The first step waits for one block instead of for the whole network, and a second trial of the same shape in the
same process, or on the same machine through the compiler's own cache on disk, hardly waits. Compiled code is
used only after its gradients were those of the plain network.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mpdit.diffusion.denoiser import Denoiser
from mpdit.inference.ahead_of_time import quiet_compiler

GRAPHED_UP_TO = 512  # channels; smaller networks on a GPU spend more time on launches than on arithmetic
REHEARSALS = 3  # runs before the gradients are trusted: CUDA graphs are warmed up, recorded and replayed
TOLERANCE = 0.1  # of the gradients' norm: far above bf16's rounding, far below the effect of a fault

log = logging.getLogger(__name__)

Gradients = list[Tensor]


def compilation_modes(width: int, device: torch.device, one_pass: bool) -> list[str]:
    """Return the modes of torch.compile to try for a network of this width, the fastest first.

    CUDA graphs (`reduce-overhead`) pay off where launches take most of the time. They reuse their memory, so they are
    for one process whose step is one pass: gradients of a second pass would overwrite those of the first.
    """
    is_single = not torch.distributed.is_initialized()
    has_graphs = device.type == "cuda" and width <= GRAPHED_UP_TO and is_single and one_pass
    return ["reduce-overhead", "default"] if has_graphs else ["default"]


def compile_blocks(
    denoiser: Denoiser, device: torch.device, gradients: Callable[[], Gradients], one_pass: bool = True
) -> str | None:
    """Compile every block in place.

    Args:
        denoiser: whose network is compiled.
        device: where it trains.
        gradients: computes one training step's gradients, always on the same batch.
        one_pass: whether a training step is one forward and one backward pass.

    Returns:
        The mode that works; None where none does (without a C++ compiler, say): then the blocks stay as they were, and
        the log says why.
    """
    plain = gradients()
    for mode in compilation_modes(denoiser.network.architecture.width, device, one_pass):
        for block in denoiser.network.blocks:
            block.compile(mode=mode, dynamic=False)
        begin = denoiser.network.register_forward_pre_hook(_begin_pass) if mode == "reduce-overhead" else None
        try:
            with quiet_compiler():
                for _ in range(REHEARSALS):
                    _check_equal(gradients(), plain)
            return mode
        except Exception as error:  # whatever a compiler raises
            for block in denoiser.network.blocks:
                block._compiled_call_impl = None
            if begin is not None:
                begin.remove()
            log.warning("not compiled (%s), so slower: %s", mode, str(error).strip().splitlines()[0])
    return None


def _begin_pass(*_: object) -> None:
    torch.compiler.cudagraph_mark_step_begin()  # the last pass's results in the graphs' memory may be overwritten


def _check_equal(compiled: Gradients, plain: Gradients) -> None:
    difference = sum(float((a - b).double().square().sum()) for a, b in zip(compiled, plain, strict=True))
    size = sum(float(b.double().square().sum()) for b in plain)
    if not difference <= TOLERANCE**2 * size:
        raise ArithmeticError("the compiled gradients are not the plain ones")
