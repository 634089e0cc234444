"""Rungs: scores taken while a run trains, from few samples of the EMAs that its snapshots give so far.

All runs of a sweep are scored at a rung on the same noise and labels, at the same EMA widths, so they compare in pairs.
"""

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from mpdit.data.dataset import Dataset
from mpdit.diffusion.denoiser import build_denoiser
from mpdit.errors import InputError
from mpdit.run_folder import EMA, set_weights
from mpdit.scoring.frechet import left_out_distances
from mpdit.scoring.intervals import jackknife_error
from mpdit.training.cadence import first_snapshot, kept_snapshots
from mpdit.training.ema import TRACKED_SIGMA_RELS, fit_snapshots, reconstruct
from mpdit.training.magnitude import activation_magnitudes, magnitude_drift
from pipelines.recipe import Recipe
from pipelines.scoring.cell import SAMPLE_BATCH, SIGMA_RELS_AT_A_RUNG, Evaluation
from pipelines.scoring.networks.loading import load_networks
from pipelines.scoring.reference import Reference, chosen_reference, extractor_for
from pipelines.scoring.sample_generator import SampleGenerator, sample_folds, sample_labels


def rung_steps(steps: int, rung_fractions: Iterable[float]) -> list[int]:
    """The step of each rung in a training of `steps` steps: the first snapshot at that fraction of it, or after."""
    return [first_snapshot(fraction, steps) for fraction in rung_fractions]


def rung_sigma_rels(step: int, sigma_rels: Iterable[float]) -> list[float]:
    """Up to three EMA widths to score at a rung: ends and middle of those that the snapshots up to `step` can give.

    They are the tracked ones where the snapshots can give none of `sigma_rels`.
    """
    snapshots = kept_snapshots(step)
    reached = [
        sigma_rel for sigma_rel in sorted(set(sigma_rels)) if sigma_rel and _is_reached(snapshots, step, sigma_rel)
    ]
    if len(reached) > SIGMA_RELS_AT_A_RUNG:
        return [reached[0], reached[len(reached) // 2], reached[-1]]
    return reached or list(TRACKED_SIGMA_RELS)


def _is_reached(snapshots: Sequence[int], step: int, sigma_rel: float) -> bool:
    try:
        fit_snapshots(snapshots, step, sigma_rel)
    except InputError:
        return False
    return True


def score_rung(
    run: Path, recipe: Recipe, step: int, sigma_rels: Sequence[float], evaluation: Evaluation
) -> list[dict[str, Any]]:
    """Score a run's EMAs at a snapshot; the run need not be finished.

    Returns one result for each of `sigma_rels`: {"sigma_rel", "value", "stderr", "left_out", "magnitude_drift",
    "seconds"}; where samples are not finite, the value is None.
    """
    dataset, device = recipe.dataset, str(recipe.runtime.device)
    real = chosen_reference(dataset, extractor_for(dataset, evaluation.extractor, device), evaluation.reference)
    results = []
    for sigma_rel, ema in zip(sigma_rels, reconstruct(run / EMA, sigma_rels, step), strict=True):
        started = time.monotonic()
        denoiser = build_denoiser(recipe.architecture(dataset), recipe.prediction(dataset), recipe.seed).to(device)
        set_weights(denoiser.eval(), ema)
        drift = magnitude_drift(activation_magnitudes(denoiser, dataset))
        generator = SampleGenerator(denoiser, dataset.to_pixels)
        guide = denoiser if evaluation.has_guide else None  # a guide is of a finished run: until then it adds nothing
        load_networks(generator, evaluation, denoiser, guide, lambda: dataset)
        result = {"sigma_rel": sigma_rel, **_distance(generator, dataset, evaluation, real)}
        result["magnitude_drift"] = drift if math.isfinite(drift) else None
        results.append(result | {"seconds": round(time.monotonic() - started, 3)})
    return results


def _distance(generator: SampleGenerator, dataset: Dataset, evaluation: Evaluation, real: Reference) -> dict[str, Any]:
    labels = sample_labels(dataset, evaluation, 0, evaluation.samples).split(SAMPLE_BATCH)
    try:
        batches = (generator.draw(evaluation, at * SAMPLE_BATCH, part) for at, part in enumerate(labels))
        fake = torch.cat([real.extractor.features(images) for images in batches])
        folds = sample_folds(fake, dataset, evaluation, real.class_means)
        value, left_out = left_out_distances(folds, real.statistics)
    except FloatingPointError:
        return {"value": None, "stderr": None, "left_out": None}
    return {"value": value, "stderr": jackknife_error(left_out), "left_out": left_out}
