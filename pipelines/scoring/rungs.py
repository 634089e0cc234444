"""Rungs: scores taken while a run trains, from few samples of the averages that its snapshots give so far.

All runs of a sweep are scored at a rung on the same noise and labels, at the same widths, so they compare in pairs.
"""

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from mpdit.diffusion.denoiser import build_denoiser
from mpdit.errors import InputError
from mpdit.run_folder import EMA, set_weights
from mpdit.scoring.frechet import folds_of, jackknife_error, left_out_distances
from mpdit.training.ema import TRACKED_SIGMA_RELS, fit_snapshots, reconstruct, snapshot_steps
from mpdit.training.magnitude import activation_magnitudes, magnitude_drift
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Evaluation
from pipelines.scoring.reference import extractor_for, reference
from pipelines.scoring.samples import SAMPLE_BATCH, Drawer

WIDTHS_AT_A_RUNG = 3


def rung_steps(steps: int, shares: Iterable[float]) -> list[int]:
    """When a training of `steps` steps comes to each share of itself: the first snapshot there or after."""
    kept = snapshot_steps(steps)
    return [next(step for step in kept if step >= share * steps) for share in shares]


def rung_widths(steps: int, step: int, widths: Iterable[float]) -> list[float]:
    """Up to three of the widths, the ends and the middle of those that the snapshots up to `step` can give.

    Where they can give none of them, the tracked ones.
    """
    snapshots = [kept for kept in snapshot_steps(steps) if kept <= step]
    reached = [width for width in sorted(set(widths)) if width and _is_reached(snapshots, step, width)]
    if len(reached) > WIDTHS_AT_A_RUNG:
        return [reached[0], reached[len(reached) // 2], reached[-1]]
    return reached or list(TRACKED_SIGMA_RELS)


def _is_reached(snapshots: Sequence[int], step: int, width: float) -> bool:
    try:
        fit_snapshots(snapshots, step, width)
    except InputError:
        return False
    return True


def score_rung(
    run: Path, recipe: Recipe, step: int, widths: Sequence[float], evaluation: Evaluation
) -> list[dict[str, Any]]:
    """Score the averages of a run as they are at a snapshot; the run need not be finished.

    One result a width: {"sigma_rel", "value", "stderr", "left_out", "magnitude_drift", "seconds"}; samples that are not
    finite have the value None.
    """
    dataset, device = recipe.dataset, str(recipe.runtime.device)
    extractor = extractor_for(dataset, evaluation.extractor, device)
    against = reference(dataset, extractor)
    results = []
    for width, average in zip(widths, reconstruct(run / EMA, widths, step), strict=True):
        started = time.monotonic()
        denoiser = build_denoiser(recipe.architecture(dataset), recipe.prediction(dataset), recipe.seed).to(device)
        set_weights(denoiser.eval(), average)
        drift = magnitude_drift(activation_magnitudes(denoiser, dataset))
        drawer = Drawer(denoiser, dataset.to_pixels)
        result: dict[str, Any] = {"sigma_rel": width, "value": None, "stderr": None, "left_out": None}
        try:
            parts = range(0, evaluation.samples, SAMPLE_BATCH)
            drawn = (drawer.batch(evaluation, at, min(SAMPLE_BATCH, evaluation.samples - at)) for at in parts)
            features = torch.cat([extractor.features(images) for images in drawn])
            value, left_out = left_out_distances(folds_of(features), against.statistics)
            result |= {"value": value, "stderr": jackknife_error(left_out), "left_out": left_out}
        except FloatingPointError:
            pass
        result["magnitude_drift"] = drift if math.isfinite(drift) else None
        results.append(result | {"seconds": round(time.monotonic() - started, 3)})
    return results
