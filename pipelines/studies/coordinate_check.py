"""Coordinate check: `python -m pipelines.studies.coordinate_check [RECIPE] [--widths W,…] [--lr LR] [-o FILE.png]`.

A few steps at a large learning rate, at several widths, on one batch: under a parametrisation whose learning rates
transfer, no activation and no change of one grows or shrinks with the width. Both are root mean squares over the
batch: of the residual stream after each half of each block and of the answer, and of its difference from the start.
Streams of design F begin each sum at unit magnitude, so how far they can move is limited: there choose --lr so that the
changes stay below 1.
Source: arXiv 2203.03466, Appendix D.1.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from mpdit.diffusion.denoiser import Denoiser, build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.errors import InputError
from mpdit.model.architecture import PARAMETRIZATIONS
from mpdit.training.magnitude import observed
from mpdit.training.step import Batch, BatchSampler, accumulate_gradient, apply_gradient, new_state
from pipelines.recipe import Recipe
from pipelines.scoring.pictures import write_curves
from pipelines.training.training_folder import read_recipe
from pipelines.yaml_file import Document, validate

WIDTHS = (64, 128, 256, 512, 1024)
STEPS, BATCH, SEEDS = 4, 16, 2
Coordinates = dict[str, dict[str, float]]  # {"activation" or "change": {place: RMS}}
Check = dict[str, dict[int, Coordinates]]


def coordinates(recipe: Recipe, steps: int = STEPS, batch: int = BATCH, seeds: int = SEEDS) -> Coordinates:
    """The root mean squares after `steps` steps at the recipe's own lr, without warm-up; their means over seeds."""
    runs = [_coordinates(recipe.model_copy(update={"seed": seed}), steps, batch) for seed in range(seeds)]
    return {kind: {place: fmean(run[kind][place] for run in runs) for place in runs[0][kind]} for kind in runs[0]}


def _coordinates(recipe: Recipe, steps: int, batch: int) -> Coordinates:
    dataset = recipe.dataset
    denoiser = build_denoiser(recipe.architecture(dataset), recipe.prediction(dataset), recipe.seed)
    state = new_state(denoiser, recipe.optimizer.betas, recipe.optimizer.name)
    data = BatchSampler(dataset, recipe.seed, batch, recipe.label_dropout).draw(1)
    loss = DenoisingLoss(denoiser)

    before = _seen(denoiser, data)
    for _ in range(steps):
        accumulate_gradient(loss, data)
        apply_gradient(state, recipe.optimizer.lr, recipe.clip)
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


def spread(by_width: Iterable[float]) -> float:
    """The largest over the smallest: 1 is flat."""
    values = list(by_width)
    return max(values) / min(values) if min(values) > 0 else math.inf


def check(recipe: Recipe, widths: Sequence[int], parametrizations: Sequence[str] = PARAMETRIZATIONS) -> Check:
    """{parametrisation: {width: coordinates}} of the recipe; the base width is its own.

    Raises InputError for a width that its heads do not divide.
    """
    found: Check = {}
    for name in parametrizations:
        found[name] = {}
        for width in widths:
            fields = recipe.model_dump()
            fields["model"]["width"] = width
            fields["optimizer"]["parametrization"] = name
            found[name][width] = coordinates(validate(Recipe, Document(fields, f"--widths {width}")))
    return found


def main() -> None:
    """Print the coordinates of a recipe under both parametrisations, and draw their changes."""
    options = _options()
    recipe = read_recipe(options.recipe) if options.recipe else Recipe()
    if options.lr:
        optimizer = recipe.optimizer.model_copy(update={"lr": options.lr})
        recipe = recipe.model_copy(update={"optimizer": optimizer})
    found = check(recipe, options.widths)
    if options.output:
        names = {"mup": f"µP, base width {recipe.optimizer.base_width}", "sp": "standard"}
        write_curves(options.output, {names[p]: _curves(found[p]) for p in names}, "width", "change (RMS)")
    sys.stdout.write(json.dumps(found) + "\n" if options.json else _table(found))


def _table(found: Check) -> str:
    lines = []
    for name, by_width in found.items():
        lines.append(f"{name:<34}" + "".join(f"{width:>9}" for width in by_width) + "  largest/smallest")
        for kind in ("activation", "change"):
            for place in next(iter(by_width.values()))[kind]:
                values = [coordinates[kind][place] for coordinates in by_width.values()]
                row = "".join(f"{value:9.3f}" for value in values)
                lines.append(f"{kind:<11}{place:<23}{row}{spread(values):10.2f}")
    return "\n".join(lines) + "\n"


def _curves(by_width: dict[int, Coordinates]) -> dict[str, list[tuple[float, float]]]:
    places = next(iter(by_width.values()))["change"]
    return {place: [(width, found["change"][place]) for width, found in by_width.items()] for place in places}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.studies.coordinate_check", description=(__doc__ or "").split("`")[0]
    )
    parser.add_argument("recipe", type=Path, nargs="?", help="a recipe's file, or a run's or bundle's folder")
    parser.add_argument("--widths", type=lambda text: [int(part) for part in text.split(",")], default=WIDTHS)
    parser.add_argument("--lr", type=float, help="the recipe's own by default")
    parser.add_argument("-o", "--output", type=Path, help="a picture of the changes (PNG)")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except InputError as problem:
        sys.stderr.write(f"{problem}\n")
        sys.exit(2)
