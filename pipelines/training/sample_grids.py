"""How a run's samples grow: small grids of one noise and the same classes, drawn before and along its training."""

from pathlib import Path

import torch

from mpdit.diffusion.denoiser import build_denoiser
from mpdit.run_folder import EMA, PICTURES, set_weights
from mpdit.training.ema import TRACKED_WIDTHS, tracked_average
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Evaluation
from pipelines.scoring.pictures import write_grid
from pipelines.scoring.rungs import rung_steps
from pipelines.scoring.samples import Drawer
from pipelines.training.trainer import is_out_of_memory

SHARES = (0.125, 0.25, 0.5, 1.0)  # of the training
DRAWN, COLUMNS, CLASSES = 20, 5, 10  # about as high as wide, as MLflow's viewer shows it
FEW_STEPS = Evaluation(sampler="dpm++2m", steps=8)


def growth_steps(steps: int) -> list[int]:
    """When a training of `steps` steps is drawn: before the first, and at some of its snapshots."""
    return sorted({0, *rung_steps(steps, SHARES)})


def draw_growth(run: Path, recipe: Recipe, step: int) -> str | None:
    """Draw the wider tracked average as it is at a step; returns the picture's name in the run's folder of pictures.

    None where the samples are not finite or do not fit beside the training: a picture ends no training.
    """
    dataset = recipe.dataset
    denoiser = build_denoiser(recipe.architecture(dataset), recipe.prediction(dataset), recipe.seed)
    if step:
        set_weights(denoiser, tracked_average(run / EMA, TRACKED_WIDTHS[-1], step))
    labels = torch.arange(DRAWN) % max(1, min(CLASSES, dataset.classes))
    try:
        images = Drawer(denoiser.eval().to(recipe.runtime.device), dataset.to_pixels).draw(FEW_STEPS, 0, labels)
    except (FloatingPointError, RuntimeError, MemoryError) as problem:
        if not isinstance(problem, FloatingPointError) and not is_out_of_memory(problem):
            raise
        return None
    name = f"step-{step:08d}.png"
    write_grid(run / PICTURES / name, images, COLUMNS)
    return name
