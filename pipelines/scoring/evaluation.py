"""Score a finished run: sample each cell on shared noise and labels, and measure it against the data.

All cells of one evaluation start from the same noise and ask for the same classes, so they are compared in pairs.
"""

import copy
import itertools
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mpdit.data.dataset import Dataset
from mpdit.diffusion.denoiser import Denoiser
from mpdit.errors import disk_is_full, input_error, no_space
from mpdit.run_folder import EMA, PICTURES, RAW_WEIGHTS, is_bundle, load, read_weights, set_weights
from mpdit.scoring.frechet import FOLDS, folds_of, jackknife_error, left_out_distances, metric_name
from mpdit.training.ema import reconstruct
from mpdit.training.magnitude import activation_magnitudes, magnitude_drift
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.metric import Features, measurable, measured_metrics
from pipelines.scoring.pictures import write_grid
from pipelines.scoring.reference import Reference, extractor_for, real_features, reference
from pipelines.scoring.samples import SAMPLE_BATCH, Drawer, Drawers, Kept, Progress

SCORES = "scores"  # the folder in a run where features wait for a cell to be finished
PICTURED = 10  # columns of a cell's picture, a class each
COMPILE_PAYS_FROM = 200_000  # evaluations of the network for one image; half of what the first compilation costs
ALONE = Drawers()
REAL_FEATURES = 50_000  # real images that the further metrics are measured against, at most

Report = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


def compiling_pays(cells: Iterable[Cell]) -> bool:
    """Whether compiling the network costs less time than it saves on these cells, and there is a compiler.

    A function of the cells and the machine, so that a continued evaluation decides alike: compiled samples differ from
    others by rounding.
    """
    work = sum(cell.evaluation.samples * cell.evaluation.network_evaluations for cell in cells)
    return work >= COMPILE_PAYS_FROM and any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def prepare(recipe: Recipe, evaluations: Iterable[Evaluation]) -> None:
    """Check, before anything is trained, that all that an evaluation needs is there. Raises InputError."""
    dataset = recipe.dataset
    for asked in {evaluation.extractor: evaluation for evaluation in evaluations}.values():
        extractor = extractor_for(dataset, asked.extractor)
        unfit = [kind for kind in measured_metrics(asked.metrics) if kind.needs_classes and extractor.logits is None]
        if unfit:
            raise input_error(
                f"the {extractor.name} features have no classes, of which an {unfit[0].label} is made",
                given=f"evaluation.metrics: [{unfit[0].name}]",
                allowed=", ".join(name for name in measurable() if not _needs_classes(name)),
            )


def _needs_classes(name: str) -> bool:
    return any(kind.needs_classes for kind in measured_metrics([name]))


def evaluate(
    run: Path,
    recipe: Recipe,
    cells: Iterable[Cell],
    report: Report,
    step: int | None = None,
    progress: Progress | None = None,
    keep: bool = False,
    compiled: bool = False,
    drawers: Drawers = ALONE,
) -> None:
    """Score cells of a run or bundle in turn; each result goes to `report` as soon as it is known.

    A result: {"params", "cell", "metric", "value", "stderr", "left_out", "more", "magnitude_drift", "noise_floor",
    "warnings", "picture", "drawn", "scoring_seconds", "sampling_seconds" (of one sample), "provenance"}; a cell with
    samples that are not finite has the value None. `step`: score the averages as they were at an earlier snapshot.
    Stopped and called again, it goes on where it was, and with `keep` the features stay for a later call that asks for
    more samples. compiled: see `compiling_pays`. drawers: processes that all make this call, and share the drawing; the
    first of them writes.
    """
    torch.set_num_threads(int(recipe.runtime.threads))
    dataset = recipe.dataset
    drawer: Drawer | None = None
    for denoiser, same_width in _by_width(run, list(cells), step):
        denoiser.to(recipe.runtime.device)
        drift = magnitude_drift(activation_magnitudes(denoiser, dataset))
        if drawer is None:
            drawer = Drawer(denoiser, dataset.to_pixels, compiled)
        else:
            drawer.take(denoiser)
        for cell in same_width:
            started = time.monotonic()
            extractor = extractor_for(dataset, cell.evaluation.extractor, str(recipe.runtime.device))
            against = reference(dataset, extractor)
            kept = Kept(run / SCORES, _facts(cell, drawer, against, compiled), writing=not drawers.rank)
            drawer.paces.clear()
            before = min(kept.count, cell.evaluation.samples)
            try:
                with kept.whatever_happens(keep):
                    features = _features(run, cell, drawer, against, kept, progress, drawers)
                measured = measure(features, against, dataset, cell.evaluation.metrics)
            except FloatingPointError as problem:
                log.warning("cell %s: %s", cell.params, problem)
                measured = dict.fromkeys(("value", "stderr", "left_out")) | {"more": {}}
            nfe = cell.evaluation.nfe(denoiser.objective.noise_schedule)
            report(
                {
                    "params": cell.params,
                    "cell": cell.key,
                    "metric": metric_name(extractor.name, cell.evaluation.samples),
                    **measured,
                    "magnitude_drift": drift if math.isfinite(drift) else None,
                    "noise_floor": against.floor(cell.evaluation.samples),
                    "warnings": _warnings(cell, against),
                    "picture": _picture(kept),
                    "drawn": cell.evaluation.samples - before,
                    "scoring_seconds": round(time.monotonic() - started, 3),
                    "sampling_seconds": median(drawer.paces) if drawer.paces else None,
                    "provenance": _provenance(against, dataset, drawer, compiled) | {"nfe": nfe},
                }
            )
            if not keep:
                kept.remove()


def _provenance(against: Reference, dataset: Dataset, drawer: Drawer, compiled: bool) -> dict[str, Any]:
    """What a value was measured with, besides its cell: numbers that differ in it cannot be compared."""
    return {
        "extractor": against.extractor.name,
        "extractor_weights": against.extractor.weights,
        "extractor_accuracy": against.extractor.accuracy,
        "reference": against.statistics.fingerprint,
        "reference_count": against.statistics.count,
        "data": dataset.fingerprint,
        "weights": drawer.weights,
        "compiled": compiled,
        "sample_batch": SAMPLE_BATCH,
        "folds": FOLDS,
    }


def forget(run: Path) -> None:
    """Drop the features that an evaluation with `keep` has left in a run: all its results are known."""
    shutil.rmtree(run / SCORES, ignore_errors=True)


def measure(features: Tensor, against: Reference, dataset: Dataset, more: Iterable[str] = ()) -> dict[str, Any]:
    """The distance of samples, by their features (count, dimensions), with its error and what the error is made of."""
    value, left_out = left_out_distances(folds_of(features), against.statistics)
    found: dict[str, float] = {}
    if kinds := measured_metrics(more):
        real = real_features(dataset, against.extractor, REAL_FEATURES)
        both = Features(features.cpu(), real.cpu(), against.extractor)
        for kind in kinds:
            assert kind.measure, "evaluation.metrics names metrics that are measured only"
            found |= kind.measure(both)
    return {"value": value, "stderr": jackknife_error(left_out), "left_out": left_out, "more": found}


def _facts(cell: Cell, drawer: Drawer, against: Reference, compiled: bool) -> dict[str, Any]:
    """What the features of a cell depend on; their number does not, so that more can be drawn later."""
    settings = cell.evaluation.model_dump(mode="json", exclude={"samples", "extractor", "metrics"})
    return {
        **settings,
        "weights": drawer.weights,
        "extractor": against.extractor.weights,
        "batch": SAMPLE_BATCH,
        "device": drawer.device.type,
        "compiled": compiled,
    }


def _features(
    run: Path,
    cell: Cell,
    drawer: Drawer,
    against: Reference,
    kept: Kept,
    progress: Progress | None,
    drawers: Drawers,
) -> Tensor:
    """The features of the cell's samples: (samples, dimensions), on the device; what is kept is not drawn again.

    Raises FloatingPointError, in every process, where one has drawn samples that are not finite.
    """
    wanted = cell.evaluation.samples
    if progress and kept.count:
        progress(min(kept.count, wanted))
    while (first := kept.count) < wanted:
        places = [min(first + at * SAMPLE_BATCH, wanted) for at in range(drawers.count + 1)]
        lengths = [end - start for start, end in itertools.pairwise(places)]
        mine = _drawn(run, cell, drawer, against, kept, places[drawers.rank], lengths[drawers.rank])
        for rows in drawers.gathered(mine, lengths):
            if not rows.isfinite().all():
                raise FloatingPointError("the samples are not finite")
            kept.add(rows)
        if progress:
            progress(sum(lengths))
    return kept.rows(wanted).to(drawer.device)


def _drawn(run: Path, cell: Cell, drawer: Drawer, against: Reference, kept: Kept, first: int, count: int) -> Tensor:
    """The features of some of the cell's samples: (count, dimensions); not finite where the samples are not."""
    dimensions = against.extractor.dimensions
    if not count:
        return torch.empty(0, dimensions, device=drawer.device)
    try:
        images = drawer.batch(cell.evaluation, first, count)
    except FloatingPointError:
        return torch.full((count, dimensions), math.nan, device=drawer.device)
    if first == 0 and not is_bundle(run):
        _write_picture(run / PICTURES / _picture(kept), images, drawer.architecture.classes)
    return against.extractor.features(images)


def _picture(kept: Kept) -> str:
    """The file of a cell's picture, whatever the number of samples that it is scored with."""
    return f"{kept.path.stem}.png"


def _write_picture(path: Path, images: Tensor, classes: int) -> None:
    columns = max(1, min(PICTURED, classes))
    rows = min(8, len(images) // max(1, classes)) or 1
    chosen = [row * max(1, classes) + column for row in range(rows) for column in range(columns)]
    try:
        write_grid(path, images[[index for index in chosen if index < len(images)]], columns)
    except OSError as problem:
        path.unlink(missing_ok=True)
        if disk_is_full(problem):
            raise no_space(path.parent) from None
        raise


def _warnings(cell: Cell, against: Reference) -> list[str]:
    """What makes a number less than it seems; shown with it."""
    samples, dimensions = cell.evaluation.samples, against.extractor.dimensions
    if samples > dimensions:
        return []
    text = f"{samples} samples for {dimensions} features: their covariance has no full rank, and the distance is biased"
    log.warning("cell %s: %s", cell.key, text)
    return [text]


def _by_width(run: Path, cells: list[Cell], step: int | None) -> Iterator[tuple[Denoiser, list[Cell]]]:
    """One denoiser for each EMA width asked for; a run's snapshots are read once for all of them."""
    widths = list(dict.fromkeys(cell.sigma_rel for cell in cells))
    for width, denoiser in zip(widths, _denoisers(run, widths, step), strict=True):
        yield denoiser, [cell for cell in cells if cell.sigma_rel == width]


def _denoisers(run: Path, widths: list[float], step: int | None) -> Iterator[Denoiser]:
    if is_bundle(run):
        yield from (load(run, width)[0] for width in widths)
        return
    raw, last = read_weights(run / EMA / RAW_WEIGHTS)
    averaged = [width for width in widths if width]
    averages = dict(zip(averaged, reconstruct(run / EMA, averaged, step or last), strict=True)) if averaged else {}
    for width in widths:
        denoiser = copy.deepcopy(raw)
        if width:
            set_weights(denoiser, averages.pop(width))
        yield denoiser
