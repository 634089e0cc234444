"""Sample grids during a training: one noise and the same classes, drawn before the first step and at snapshots.

At which steps: mpdit/training/cadence.py.
"""

from pathlib import Path

import torch

from mpdit.diffusion.denoiser import build_denoiser
from mpdit.run_folder import EMA, PICTURES, set_weights
from mpdit.training.ema import TRACKED_SIGMA_RELS, tracked_ema
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Evaluation
from pipelines.scoring.pictures import write_grid
from pipelines.scoring.sample_generator import SampleGenerator
from pipelines.training.out_of_memory import is_out_of_memory

DRAWN, COLUMNS, CLASSES = 20, 5, 10  # about as high as wide, as MLflow's viewer shows it
FEW_STEPS = Evaluation(sampler="dpm++2m", steps=8)


def draw_sample_grid(run: Path, recipe: Recipe, step: int) -> str | None:
    """Draw samples of the wider tracked average at a step, and return the picture's name in the run's `samples` folder.

    Returns None where the samples are not finite or do not fit into memory: a picture ends no training.
    """
    dataset = recipe.dataset
    denoiser = build_denoiser(recipe.architecture(dataset), recipe.prediction(dataset), recipe.seed)
    if step:
        set_weights(denoiser, tracked_ema(run / EMA, TRACKED_SIGMA_RELS[-1], step))
    labels = torch.arange(DRAWN) % max(1, min(CLASSES, dataset.classes))
    try:
        generator = SampleGenerator(denoiser.eval().to(recipe.runtime.device), dataset.to_pixels)
        images = generator.draw(FEW_STEPS, 0, labels)
    except (FloatingPointError, RuntimeError, MemoryError) as problem:
        if not isinstance(problem, FloatingPointError) and not is_out_of_memory(problem):
            raise
        return None
    name = f"step-{step:08d}.png"
    write_grid(run / PICTURES / name, images, COLUMNS)
    return name
