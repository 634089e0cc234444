"""Coordinate check: `python -m pipelines.coordinates [RECIPE] [--widths 64,256,1024] [-o PICTURE.png] [--json]`.

A few steps at a large learning rate, at several widths, on one batch: under a parametrisation whose learning rates
transfer, no activation and no change of one grows or shrinks with the width. Both are root mean squares over the
batch: of the residual stream after each half of each block and of the answer, and of its difference from the start.
Source: arXiv 2203.03466, Appendix D.1.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from mpdit.datasets import load_dataset
from mpdit.diffusion import Denoiser, DenoisingLoss, build_denoiser
from mpdit.errors import BadInput, refusal
from mpdit.magnitude import observed
from mpdit.step import Batch, draw_batch, new_state, train_step
from pipelines.recipe import Recipe
from pipelines.training import read_recipe

WIDTHS = (64, 128, 256, 512, 1024)
STEPS, BATCH, SEEDS = 4, 16, 2
Coordinates = dict[str, dict[str, float]]  # {"activation" or "change": {place: RMS}}


def coordinates(recipe: Recipe, steps: int = STEPS, batch: int = BATCH, seeds: int = SEEDS) -> Coordinates:
    """The root mean squares after `steps` steps at the recipe's own lr, without warm-up; their means over seeds."""
    runs = [_coordinates(recipe.model_copy(update={"seed": seed}), steps, batch) for seed in range(seeds)]
    return {kind: {place: fmean(run[kind][place] for run in runs) for place in runs[0][kind]} for kind in runs[0]}


def _coordinates(recipe: Recipe, steps: int, batch: int) -> Coordinates:
    dataset = load_dataset(recipe.data.name)
    denoiser = build_denoiser(recipe.architecture(dataset), recipe.prediction(dataset), recipe.seed)
    state = new_state(denoiser, (recipe.optimizer.beta1, recipe.optimizer.beta2))
    data = draw_batch(dataset, recipe.seed, 1, batch, recipe.label_dropout, slice(None), torch.device("cpu"))
    loss = DenoisingLoss(denoiser)

    def gradient() -> Tensor:
        value = loss(data.images, data.labels, data.noise)
        value.backward()
        return value.detach()

    before = _seen(denoiser, data)
    for _ in range(steps):
        train_step(state, gradient, recipe.optimizer.lr, recipe.clip)
    after = _seen(denoiser, data)
    return {
        "activation": {place: _rms(after[place]) for place in after},
        "change": {place: _rms(after[place] - before[place]) for place in after},
    }


@torch.no_grad()
def _seen(denoiser: Denoiser, data: Batch) -> dict[str, Tensor]:
    """The residual stream after each half of each block, and the answer, on the batch."""
    sigma = denoiser.objective.noise_levels(data.noise[:, 0])
    noisy = data.images + sigma.reshape(-1, 1, 1, 1) * data.noise[:, 1:].reshape(data.images.shape)
    everything: dict[str, Tensor] = {}
    with observed(denoiser, everything, lambda output: output):
        answer = denoiser(noisy, sigma, data.labels)
    streams = {name: value for name, value in everything.items() if name.endswith("/residual")}
    return streams | {"answer": answer}


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())


def spread(by_width: Sequence[float]) -> float:
    """The largest over the smallest: 1 is flat."""
    return max(by_width) / min(by_width) if min(by_width) > 0 else float("inf")
