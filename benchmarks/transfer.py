"""Does the best learning rate stay where it is when the width grows? `python benchmarks/transfer.py [--json]`.

Trains the digits at several widths over a half-octave grid of learning rates under sp and mup, and scores each
training by the loss of its averaged weights (σ_rel 0.1) on 256 fixed noised digits. Base width: the smallest.
What it has trained it keeps in `--points`, so that it continues where it was stopped; `--minutes` stops it.
On a GPU: `--widths 64,256,1024 --depth 12 --batch 256 --steps 5000`.
"""

import argparse
import itertools
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from mpdit.data.registry import load_dataset
from mpdit.diffusion.denoiser import build_denoiser
from mpdit.diffusion.loss import DenoisingLoss
from mpdit.model.architecture import Architecture
from mpdit.randomness import normal
from mpdit.run_folder import set_weights
from mpdit.training.ema import TRACKED_SIGMA_RELS
from mpdit.training.step import BatchSampler, accumulate_gradient, apply_gradient, new_state
from pipelines.recipe import Recipe

Points = dict[str, float]  # {key: loss}
PROBE, SCORED_WIDTH = 256, 0.10
CENTRES = {"F": 0.06 * 2**0.5, "A": 0.004}  # of the grid of learning rates


def grid(design: str, octaves: float) -> list[float]:
    """Learning rates √2 apart, `octaves` below the centre to `octaves` above it."""
    n = round(2 * octaves)
    return [CENTRES[design] * 2 ** (k / 2) for k in range(-n, n + 1)]


Point = tuple[int, str, int, float]  # seed, parametrisation, width, learning rate


def key(options: argparse.Namespace, seed: int, parametrization: str, width: int, lr: float) -> str:
    """What one training is called in the file of points; at the base width E's two are one training, bit for bit."""
    one = options.design == "F" and width == options.widths[0]
    return f"{options.design}/{'sp' if one else parametrization}/{width}/{lr:.3g}/{seed}"


def train(options: argparse.Namespace, point: Point) -> float:
    """The probe's loss after one training; infinite when it left the finite world."""
    seed, parametrization, width, lr = point
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = {"lr": lr, "parametrization": parametrization, "base_width": options.widths[0]}
    model = {"design": options.design, "width": width, "patch": options.patch}
    fields = {"model": model, "optimizer": optimizer, "seed": seed, "steps": options.steps, "batch": options.batch}
    recipe, dataset = Recipe.model_validate(fields), load_dataset("digits")
    o = recipe.optimizer
    shape = recipe.architecture(dataset).as_dict() | {"depth": options.depth, "design": recipe.model.chosen_design()}
    denoiser = build_denoiser(Architecture(**shape), recipe.prediction(dataset), seed).to(device)
    state, loss = new_state(denoiser, o.betas, o.name), DenoisingLoss(denoiser)

    batches = BatchSampler(dataset, seed, recipe.batch, recipe.label_dropout, device=device)
    for step in range(1, recipe.steps + 1):
        accumulate_gradient(loss, batches.draw(step))
        apply_gradient(state, recipe.learning_rate.at(step, recipe.steps), recipe.clip)
    set_weights(denoiser, state.named_emas[TRACKED_SIGMA_RELS.index(SCORED_WIDTH)])
    noise = normal((PROBE, 1 + dataset.images[0].numel()), 0, 0, "probe").to(device)
    with torch.no_grad():
        value = float(loss(dataset.images[:PROBE].to(device), dataset.labels[:PROBE].to(device), noise))
    return value if math.isfinite(value) else math.inf


def main() -> None:
    """Train what is missing, then print the table."""
    options = _options()
    points: Points = json.loads(options.points.read_text()) if options.points.exists() else {}
    rates = grid(options.design, options.octaves)
    if not fill(options, points, rates):
        print(f"{len(points)} points are in {options.points}; the same command continues")
        return
    report(options, points, rates)


def fill(options: argparse.Namespace, points: Points, rates: list[float]) -> bool:
    """Train what `points` lacks, a process for each core; whether all is there now."""
    deadline = time.monotonic() + 60 * options.minutes
    asked = itertools.product(range(options.seeds), ("sp", "mup"), options.widths, rates)
    missing = [*{key(options, *point): point for point in asked if key(options, *point) not in points}.values()]
    at_once = options.workers
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn"), initializer=_start) as pool:
        for first in range(0, len(missing), at_once):
            some = missing[first : first + at_once]
            if time.monotonic() > deadline:
                return False
            for point, loss in zip(some, pool.map(partial(train, options), some), strict=True):
                points[key(options, *point)] = loss
            options.points.write_text(json.dumps(points, indent=0))
    return True


def _start() -> None:
    torch.set_num_threads(1)


def report(options: argparse.Namespace, points: Points, rates: list[float]) -> None:
    """The table, or the JSON object, and the picture."""
    means: dict[str, dict[int, list[float]]] = {"sp": {}, "mup": {}}
    best: dict[str, dict[int, list[int]]] = {"sp": {}, "mup": {}}  # by seed
    for parametrization, width in itertools.product(means, options.widths):
        curves = [
            [points[key(options, seed, parametrization, width, lr)] for lr in rates] for seed in range(options.seeds)
        ]
        means[parametrization][width] = [fmean(values) for values in zip(*curves, strict=True)]
        best[parametrization][width] = [curve.index(min(curve)) for curve in curves]
    details = {p: [_row(w, means[p][w], best[p][w], rates) for w in options.widths] for p in means}
    small, large = options.widths[0], options.widths[-1]
    carried = {p: means[p][large][_lowest(means[p][small])] for p in means}
    ratio = round(carried["sp"] / carried["mup"], 3)
    if options.picture:
        from pipelines.scoring.pictures import write_curves

        names = {"sp": "standard", "mup": f"µP, base width {small}"}
        panels = {
            names[p]: {f"width {w}": list(zip(rates, means[p][w], strict=True)) for w in options.widths} for p in means
        }
        write_curves(options.picture, panels, "learning rate", "loss of the averaged weights")
    if options.json:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        result = {"name": "transfer", "device": device, "ratio": ratio, "bar": 1.0, "details": details}
        print(json.dumps(result))
        return
    print(f"{'':6}{'width':>6}  loss at lr " + " ".join(f"{lr:7.4f}" for lr in rates) + "   best lr, of each seed")
    for p, rows in details.items():
        for row in rows:
            losses = " ".join(f"{value:7.4f}" for value in row["losses"])
            seeds = ", ".join(f"{lr:.4f}" for lr in row["best_of_seeds"])
            print(f"{p:6}{row['width']:>6}  {'':10} {losses}   {row['best']:.4f} ({seeds})")
    print(f"width {large} at the best lr of width {small}: the loss under sp is {ratio} times that under mup")


def _lowest(losses: list[float]) -> int:
    return losses.index(min(losses))


def _row(width: int, losses: list[float], best: list[int], rates: list[float]) -> dict[str, Any]:
    of_seeds = [round(rates[index], 5) for index in best]
    shown = [round(value, 5) for value in losses]
    return {"width": width, "losses": shown, "best": round(rates[_lowest(losses)], 5), "best_of_seeds": of_seeds}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--design", choices=CENTRES, default="F")
    parser.add_argument("--widths", type=lambda text: [int(part) for part in text.split(",")], default=[64, 128, 256])
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--patch", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--octaves", type=float, default=1.0, help="the grid reaches so far to both sides")
    workers = 1 if torch.cuda.is_available() else os.cpu_count() or 1
    parser.add_argument("--workers", type=int, default=workers, help="trainings at a time")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--points", type=Path, default=Path("transfer.json"))
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
