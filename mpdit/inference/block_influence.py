"""How much each block of a network does, and a network without some of them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpdit.data.dataset import Dataset
from mpdit.diffusion.denoiser import Denoiser
from mpdit.model.transformer import Transformer
from mpdit.training.magnitude import eager, probe


@torch.no_grad()
def block_influences(denoiser: Denoiser, dataset: Dataset) -> list[float]:
    """Measure 1 − cos(token before, token after) of each block, the mean over tokens of a fixed batch: 0 does nothing.

    The block influence of arXiv 2403.03853. The batch is that of `activation_magnitudes`.
    """
    found: list[float] = []

    def measure(_block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(1 - float(F.cosine_similarity(inputs[0].float(), output.float(), dim=-1).mean()))

    handles = [block.register_forward_hook(measure) for block in denoiser.network.blocks]
    try:
        with eager():
            denoiser(*probe(denoiser, dataset))
    finally:
        for handle in handles:
            handle.remove()
    return found


class LeftOut(nn.Module):
    """In the place of a block that is left out: x as it is."""

    def forward(self, x: Tensor, _condition: Tensor) -> Tensor:
        return x


@contextmanager
def without_blocks(network: Transformer, numbers: Sequence[int]) -> Iterator[None]:
    """While open, the network is run without the blocks of these numbers, which keep their weights."""
    kept: dict[int, Any] = {number: network.blocks[number] for number in numbers}
    try:
        for number in numbers:
            network.blocks[number] = LeftOut()
        yield
    finally:
        for number, block in kept.items():
            network.blocks[number] = block
