"""Reconstructed EMAs against EMAs tracked directly, on a real run: `python benchmarks/ema_width.py [--folder DIR]`.

Trains the digits model for 2,000 steps while nine more averages are tracked in float64, then reconstructs the same nine
widths from the snapshots. Shows the relative error of the weights (before and after forced normalisation), the error
that `mpdit.training.ema` had estimated, and both Fréchet distances on the same noise. With --folder the run is kept,
and used again.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mpdit.data.registry import load_dataset
from mpdit.run_folder import EMA, RAW_WEIGHTS, read_weights, set_weights
from mpdit.training import ema
from pipelines.recipe import Recipe
from pipelines.scoring.cell import SAMPLE_BATCH, Evaluation
from pipelines.scoring.evaluation import measure
from pipelines.scoring.reference import extractor_for, reference
from pipelines.scoring.sample_generator import SampleGenerator, sample_labels
from pipelines.training import trainer as training

WIDTHS = (0.02, 0.03, 0.05, 0.07, 0.1, 0.13, 0.16, 0.2, 0.25)
STEPS, BAR = 2000, 1e-3


def train_and_track(folder: Path) -> None:
    """Train into `folder`, and write the directly tracked averages beside the run."""
    direct: list[dict[str, Tensor]] = []
    apply_gradient = training.apply_gradient

    def tracked_step(state: Any, *arguments: Any, **options: Any) -> None:
        apply_gradient(state, *arguments, **options)
        now = {name: p.detach().double() for name, p in state.denoiser.named_parameters()}
        if state.step == 1:
            direct.extend({name: tensor.clone() for name, tensor in now.items()} for _ in WIDTHS)
        for width, average in zip(WIDTHS, direct, strict=True):
            share = 1 - ema.power_function_beta(width, state.step)
            for name, tensor in now.items():
                average[name].lerp_(tensor, share)

    training.apply_gradient = tracked_step
    recipe = Recipe.model_validate({"steps": STEPS, "runtime": {"device": "cpu"}})
    training.train(recipe, folder / "run", lambda _line: None)
    flat = {f"{width}/{name}": t for width, average in zip(WIDTHS, direct, strict=True) for name, t in average.items()}
    save_file(flat, folder / "direct.safetensors")


def relative_error(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """‖found − wanted‖ / ‖wanted‖ over all weights together, in float64."""
    difference = sum(float((found[name].double() - wanted[name].double()).square().sum()) for name in wanted)
    return float((difference / sum(float(tensor.double().square().sum()) for tensor in wanted.values())) ** 0.5)


def compare(folder: Path) -> list[dict[str, float]]:
    """One row a width: errors of the weights, and both distances."""
    kept = load_file(folder / "direct.safetensors")
    rebuilt = ema.reconstruct(folder / "run" / EMA, list(WIDTHS), STEPS)
    evaluation = Evaluation(samples=2000, steps=8)
    digits = load_dataset("digits")
    against = reference(digits, extractor_for(digits, "auto"))
    rows = []
    for width, found in zip(WIDTHS, rebuilt, strict=True):
        wanted = {name.split("/", 1)[1]: t for name, t in kept.items() if name.startswith(f"{width}/")}
        distances, normalised = [], []
        for weights in (wanted, found):
            denoiser = read_weights(folder / "run" / EMA / RAW_WEIGHTS)[0]
            set_weights(denoiser, weights)
            normalised.append({name: p.detach() for name, p in denoiser.named_parameters()})
            generator, firsts = SampleGenerator(denoiser), range(0, evaluation.samples, SAMPLE_BATCH)
            drawn = [
                generator.draw(evaluation, first, sample_labels(digits, evaluation, first, SAMPLE_BATCH))
                for first in firsts
            ]
            images = torch.cat(drawn)
            distances.append(measure(against.extractor.features(images), against, digits)["value"])
        rows.append(
            {
                "sigma_rel": width,
                "error": relative_error(found, wanted),
                "normalised": relative_error(normalised[1], normalised[0]),
                "distance tracked": distances[0],
                "distance rebuilt": distances[1],
            }
        )
    return rows


def main() -> None:
    """Train unless the folder holds the run already, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if not (folder / "direct.safetensors").exists():
            train_and_track(folder)
        rows = compare(folder)
    worst = max(row["error"] for row in rows)
    if given.json:
        result = {"name": "ema_width", "device": "cpu", "ratio": BAR / worst, "bar": 1.0, "details": {"widths": rows}}
        print(json.dumps(result))
        return
    print("  ".join(f"{name:>17}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>17.3g}" if name != "sigma_rel" else f"{value:>17}" for name, value in row.items()))


if __name__ == "__main__":
    main()
