"""Magnitude per block over training: `python -m pipelines.studies.magnitude_evolution RUN … [-o FILE.png]`.

One panel for each finished run, so that designs can be compared as in Figure 5 of arXiv 2505.19122: the mean token
magnitude of the residual stream after each block, with three standard deviations over the tokens. The start is the
recipe's own initialisation, the end its last weights; both see the same noised images.
"""

import argparse
import json
import sys
from pathlib import Path

from mpdit.diffusion.denoiser import build_denoiser
from mpdit.errors import InputError
from mpdit.run_folder import load
from mpdit.training.magnitude import activation_magnitudes
from pipelines.recipe import Recipe
from pipelines.scoring.pictures import write_bands
from pipelines.training.training_folder import read_recipe

Magnitudes = dict[str, list[tuple[float, float]]]  # {"start" or "end": for each block (mean, standard deviation)}


def magnitudes(run: Path) -> Magnitudes:
    """Of a finished run's residual stream, block by block. Raises InputError where there is none."""
    recipe = read_recipe(run)
    dataset = recipe.dataset
    start = build_denoiser(recipe.architecture(dataset), recipe.prediction(dataset), recipe.seed)
    end = load(run, 0.0)[0]
    seen = {"start": activation_magnitudes(start, dataset), "end": activation_magnitudes(end, dataset)}
    return {when: [at for name, at in told.items() if name.endswith("mlp/residual")] for when, told in seen.items()}


def title(recipe: Recipe) -> str:
    """What tells one run from another in a picture."""
    model = recipe.model
    return f"design {model.design}, {model.size}/{model.patch}, {recipe.steps:,} steps at {recipe.optimizer.lr:g}"


def table(found: dict[str, Magnitudes]) -> str:
    """Text: a line for each run, moment and block."""
    lines = [f"{'':<44}{'block':>6}{'mean':>9}{'std':>8}"]
    for name, told in found.items():
        for when, blocks in told.items():
            lines += [f"{name:<38}{when:<6}{at:>6}{mean:9.3f}{std:8.3f}" for at, (mean, std) in enumerate(blocks)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the magnitudes of finished runs, and draw them."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.studies.magnitude_evolution", description=(__doc__ or "").split("`")[0]
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("-o", "--output", type=Path, help="a picture (PNG)")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    options = parser.parse_args()
    found = {title(read_recipe(run)): magnitudes(run) for run in options.runs}
    if options.output:
        write_bands(options.output, found, "block", "token magnitude of the residual stream")
    sys.stdout.write(json.dumps(found) + "\n" if options.json else table(found))


if __name__ == "__main__":
    try:
        main()
    except InputError as problem:
        sys.stderr.write(f"{problem}\n")
        sys.exit(2)
