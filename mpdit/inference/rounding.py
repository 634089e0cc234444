"""A network whose blocks' weights are rounded to a format."""

import torch
from torch import nn

from mpdit.diffusion.denoiser import Denoiser
from mpdit.inference.weight_formats.registry import WeightFormat


@torch.no_grad()
def round_blocks(folded: Denoiser, weight_format: WeightFormat) -> None:
    """Round every matrix of the blocks of a folded network in place.

    What embeds patches, level and class, and the final layer, stay as they are: they are small, and suffer first.
    """
    if weight_format.is_exact:
        return
    for block in folded.network.blocks:
        for module in block.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, nn.Parameter) and weight.ndim == 2:
                weight.copy_(weight_format.rounded(weight))
