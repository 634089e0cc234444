"""The public code of arXiv 2505.19122 (github.com/ericbill21/map-dit), for `training.py --module` to time.

    MAP_DIT=/path/to/its/clone python benchmarks/training.py XS/2 --module benchmarks/map_dit.py:training_step

Its own network, loss and EMA, compiled as its training script compiles them; it needs `einops`. It is not part of
this project, and nothing of it is copied here.
"""

import itertools
import os
import sys
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor

if "MAP_DIT" not in os.environ:
    sys.exit("benchmarks/map_dit.py: MAP_DIT must name the folder of a clone of github.com/ericbill21/map-dit")
sys.path.insert(0, os.environ["MAP_DIT"])

from diffusion import create_diffusion
from src.ema import EMA
from src.models import DIT_MODELS


def training_step(size: str, patch: int, batch: int, device: str) -> Callable[[Tensor, Tensor], float]:
    """One step as its train.py takes it: loss, Adam, both EMAs, and a look at the loss."""
    torch.manual_seed(0)
    network = DIT_MODELS[f"DiT-{size}/{patch}"](input_size=16, in_channels=4, num_classes=1000).to(device).train()
    compiled = torch.compile(network)
    diffusion = create_diffusion(timestep_respacing="")
    optimizer = torch.optim.Adam(compiled.parameters(), lr=1e-2, betas=(0.9, 0.99))
    ema = EMA(compiled, results_dir=tempfile.mkdtemp(), stds=[0.05, 0.1])
    count = itertools.count(1)

    def step(images: Tensor, labels: Tensor) -> float:
        t = torch.randint(0, diffusion.num_timesteps, (len(images),), device=device)
        loss = diffusion.training_losses(compiled, images, t, {"y": labels})["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        value = float(loss.item())
        ema.update(next(count), compiled)
        return value

    return step
