"""Score a finished run: sample each cell on shared noise and labels, and measure it against the data.

All cells of one evaluation start from the same noise and ask for the same classes, so they are compared in pairs.
"""

import errno
import itertools
import logging
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mpdit.data.dataset import Dataset
from mpdit.errors import disk_is_full, input_error, no_space
from mpdit.run_folder import PICTURES, is_bundle
from mpdit.scoring.extractor import Extractor
from mpdit.scoring.frechet import folds_of, left_out_distances, metric_name
from mpdit.scoring.intervals import FOLDS, jackknife_error
from mpdit.training.magnitude import activation_magnitudes, magnitude_drift
from pipelines.identity import plugins
from pipelines.recipe import Recipe
from pipelines.scoring.cell import SAMPLE_BATCH, Cell, Evaluation
from pipelines.scoring.feature_cache import FeatureCache
from pipelines.scoring.metrics.registry import Features, measurable, measured_metrics
from pipelines.scoring.networks.asked import GuideWeights, check_networks
from pipelines.scoring.networks.ema_widths import by_sigma_rel
from pipelines.scoring.networks.guides import Guides
from pipelines.scoring.networks.loading import load_networks
from pipelines.scoring.pictures import write_grid
from pipelines.scoring.ranks import ALONE, Ranks
from pipelines.scoring.reference import Reference, chosen_reference, extractor_for, real_features, real_index
from pipelines.scoring.sample_generator import Progress, SampleGenerator, sample_folds, sample_labels

SCORES = "scores"  # the folder in a run for the features of unfinished cells
PICTURED = 10  # columns of a cell's picture, a class each
COMPILE_PAYS_FROM = 200_000  # evaluations of the network for one image; half of what the first compilation costs
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
REAL_FEATURES = 50_000  # real images that the further metrics compare with, at most

Report = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)


def compiling_pays(cells: Iterable[Cell]) -> bool:
    """Whether compiling the network takes less time than it saves on these cells, and there is a compiler.

    It depends on the cells and the machine alone, so that a continued evaluation decides in the same way: samples of
    compiled code differ by rounding.
    """
    work = sum(cell.evaluation.samples * cell.evaluation.network_evaluations for cell in cells)
    return work >= COMPILE_PAYS_FROM and any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def prepare(recipe: Recipe, evaluations: Collection[Evaluation]) -> None:
    """Check before the training that all that an evaluation needs is there. Raises InputError."""
    dataset = recipe.dataset
    for evaluation in evaluations:
        check_networks(recipe, evaluation)
    for asked in {evaluation.extractor: evaluation for evaluation in evaluations}.values():
        extractor = extractor_for(dataset, asked.extractor)
        unfit = [kind for kind in measured_metrics(asked.metrics) if kind.needs_classes and extractor.logits is None]
        if unfit:
            raise input_error(
                f"the {extractor.name} features have no classes, of which an {unfit[0].label} is made",
                given=f"evaluation.metrics: [{unfit[0].name}]",
                allowed=", ".join(name for name in measurable() if not _needs_classes(name)),
            )
        _check_data(asked, dataset)
        _check_features(asked, extractor)
        if asked.reference:
            chosen_reference(dataset, extractor, asked.reference)


def _check_data(asked: Evaluation, dataset: Dataset) -> None:
    """Raise InputError for a metric that needs held-out images or classes, where the data have none."""
    for kind in measured_metrics(asked.metrics):
        if kind.needs_holdout and dataset.held_out is None:
            raise input_error(
                f"{kind.name} compares with images that the training did not see, and all are trained on",
                given="data.holdout: 0",
                hint="data: {holdout: 0.1} keeps a tenth of the images out of training",
            )
        if kind.needs_labels and dataset.classes < 2:
            raise input_error(
                f"{kind.name} compares samples and images class by class, and {dataset.name!r} has no classes",
                given=f"evaluation.metrics: [{kind.name}]",
                hint="leave it out",
            )


def _check_features(asked: Evaluation, extractor: Extractor) -> None:
    """Raise InputError for a metric of features that are not this extractor's; other weights of it will do."""
    for kind in measured_metrics(asked.metrics):
        if kind.needs_features and extractor.name.partition("-")[0] != kind.needs_features:
            raise input_error(
                f"{kind.label} is measured in the features of {kind.needs_features!r}",
                given=f"extractor: {asked.extractor}",
                hint=f"evaluation: {{extractor: {kind.needs_features}, metrics: [{kind.name}]}}",
            )


def _needs_classes(name: str) -> bool:
    return any(kind.needs_classes for kind in measured_metrics([name]))


@dataclass(frozen=True)
class ScoringOptions:
    """How the cells of a run are scored, beside what each cell says.

    Args:
        step: the snapshot whose EMAs are scored; the last one by default.
        progress: called as samples are drawn.
        keep: whether a cell's features stay on disk for a later call that asks for more samples.
        compiled: whether the network is compiled; see `compiling_pays`.
        ranks: the processes that all make this call and share the drawing; the first of them writes.
    """

    step: int | None = None
    progress: Progress | None = None
    keep: bool = False
    compiled: bool = False
    ranks: Ranks = ALONE


DEFAULT = ScoringOptions()


@dataclass(frozen=True)
class CellScoring:
    """What the scoring of one cell needs.

    magnitude_drift: of the network with the cell's weights. plugins: {distribution: version} of those that it uses.
    guide: the weights that guide it, where others than its own do.
    """

    run: Path
    cell: Cell
    dataset: Dataset
    generator: SampleGenerator
    magnitude_drift: float
    real: Reference
    cache: FeatureCache
    options: ScoringOptions
    plugins: dict[str, str]
    guide: GuideWeights | None

    @property
    def picture(self) -> str:
        """The file of the cell's picture, the same for every number of samples."""
        return f"{self.cache.path.stem}.png"


def evaluate(
    run: Path, recipe: Recipe, cells: Iterable[Cell], report: Report, options: ScoringOptions = DEFAULT
) -> None:
    """Score cells of a run or bundle in turn; each result goes to `report` as soon as it is known.

    A result: {"params", "cell", "metric", "value", "stderr", "left_out", "more", "magnitude_drift", "noise_floor",
    "warnings", "picture", "drawn", "scoring_seconds", "sampling_seconds" (of one sample), "provenance"}; a cell with
    samples that are not finite has the value None. Stopped and called again, it continues where it was.
    """
    torch.set_num_threads(int(recipe.runtime.threads))
    dataset = recipe.dataset
    generator: SampleGenerator | None = None
    cells = list(cells)
    guides = Guides(run, cells, options.step)
    for denoiser, cells_of_sigma_rel in by_sigma_rel(run, cells, options.step):
        denoiser.to(recipe.runtime.device)
        drift = magnitude_drift(activation_magnitudes(denoiser, dataset))
        if generator is None:
            generator = SampleGenerator(denoiser, dataset.to_pixels, options.compiled)
        for cell in cells_of_sigma_rel:
            started = time.monotonic()
            extractor = extractor_for(dataset, cell.evaluation.extractor, str(recipe.runtime.device))
            real = chosen_reference(dataset, extractor, cell.evaluation.reference)
            guide = guides.of(cell)
            load_networks(generator, cell.evaluation, denoiser, guide.denoiser if guide else None, lambda: dataset)
            cache = FeatureCache(run / SCORES, _facts(cell, generator, real), writing=options.ranks.is_first)
            generator.seconds_per_sample.clear()
            used = plugins(recipe) | plugins(cell.evaluation)
            weights = guide.weights if guide else None
            scoring = CellScoring(run, cell, dataset, generator, drift, real, cache, options, used, weights)
            report(_score(scoring, started))
            if not options.keep:
                cache.remove()


def _score(scoring: CellScoring, started: float) -> dict[str, Any]:
    """Draw what is missing of a cell's samples and return the cell's result."""
    cell, real, cache = scoring.cell, scoring.real, scoring.cache
    samples, cached = cell.evaluation.samples, min(cache.count, cell.evaluation.samples)
    try:
        with cache.written_on_interrupt(scoring.options.keep):
            fake = _features(scoring)
        metrics = measure(fake, real, scoring.dataset, cell.evaluation)
    except FloatingPointError as problem:
        log.warning("cell %s: %s", cell.params, problem)
        metrics = dict.fromkeys(("value", "stderr", "left_out")) | {"more": {}}
    return {
        "params": cell.params,
        "cell": cell.key,
        "metric": metric_name(real.extractor.name, samples),
        **metrics,
        "magnitude_drift": scoring.magnitude_drift if math.isfinite(scoring.magnitude_drift) else None,
        "noise_floor": real.floor(samples),
        "warnings": _warnings(cell, real),
        "picture": scoring.picture,
        "drawn": samples - cached,
        "scoring_seconds": round(time.monotonic() - started, 3),
        "sampling_seconds": median(paces) if (paces := scoring.generator.seconds_per_sample) else None,
        "provenance": _provenance(scoring),
    }


def _provenance(scoring: CellScoring) -> dict[str, Any]:
    """What a value was measured with, besides its cell: values that differ in it cannot be compared."""
    real, generator = scoring.real, scoring.generator
    return {
        "extractor": real.extractor.name,
        "extractor_weights": real.extractor.weights,
        "extractor_accuracy": real.extractor.accuracy,
        "reference": real.statistics.fingerprint,
        "reference_count": real.count,
        "data": scoring.dataset.fingerprint,
        "weights": generator.weights,
        "compiled": generator.compiled,
        "sample_batch": SAMPLE_BATCH,
        "folds": FOLDS,
        "nfe": scoring.cell.evaluation.nfe(generator.denoiser.objective.noise_schedule),
        **({"plugins": scoring.plugins} if scoring.plugins else {}),
        **({"blocks_left_out": generator.left_out} if generator.left_out else {}),
        **({"guide": {**scoring.guide._asdict(), "weights": generator.guide_weights}} if scoring.guide else {}),
    }


def forget(run: Path) -> None:
    """Delete the features that an evaluation with `keep` has left in a run."""
    shutil.rmtree(run / SCORES, ignore_errors=True)


def measure(fake: Tensor, real: Reference, dataset: Dataset, evaluation: Evaluation | None = None) -> dict[str, Any]:
    """Measure generated images against the real ones.

    Args:
        fake: the features of the generated images, (count, dimensions).
        real: the statistics of the data.
        dataset: the data, whose features the further metrics need.
        evaluation: that the images are all the samples of, with its further metrics; None for other images.

    Returns:
        {"value", "stderr", "left_out", "more"}: the Fréchet distance, its standard error, the distances without each
        fold, and the further metrics by name.
    """
    folds = sample_folds(fake, dataset, evaluation, real.class_means) if evaluation else folds_of(fake)
    value, left_out = left_out_distances(folds, real.statistics)
    more: dict[str, float] = {}
    if kinds := measured_metrics(evaluation.metrics if evaluation else (), has_holdout=dataset.held_out is not None):
        labels = sample_labels(dataset, evaluation, 0, len(fake)) if evaluation else None
        features = replace(_real(dataset, real.extractor), fake=fake.cpu(), shared={}, fake_labels=labels)
        for kind in kinds:
            assert kind.measure, "evaluation.metrics names metrics that are measured only"
            more |= kind.measure(features)
    return {"value": value, "stderr": jackknife_error(left_out), "left_out": left_out, "more": more}


@lru_cache(maxsize=1)
def _real(dataset: Dataset, extractor: Extractor) -> Features:
    """The real side of the further metrics, the same for all cells; its `fake` is empty."""
    rows, held_out = real_features(dataset, extractor, REAL_FEATURES).cpu(), None
    if dataset.held_out is not None:
        held_out = real_features(dataset.held_out, extractor, REAL_FEATURES).cpu()
    return Features(rows[:0], rows, extractor, {}, dataset.labels[real_index(dataset, REAL_FEATURES)], held_out)


def _facts(cell: Cell, generator: SampleGenerator, real: Reference) -> dict[str, Any]:
    """What the features of a cell depend on; their number is left out, so that more can be drawn later."""
    settings = cell.evaluation.as_drawn.model_dump(
        mode="json", exclude={"samples", "extractor", "metrics", "reference"}
    )
    return {
        **settings,
        "weights": generator.weights,
        "guide_weights": generator.guide_weights,
        "extractor": real.extractor.weights,
        "batch": SAMPLE_BATCH,
        "device": generator.device.type,
        "compiled": generator.compiled,
    }


def _features(scoring: CellScoring) -> Tensor:
    """The features of the cell's samples: (samples, dimensions), on the device; those in the cache are not drawn again.

    Raises FloatingPointError, in every process, where one has drawn samples that are not finite.
    """
    cache, ranks, progress = scoring.cache, scoring.options.ranks, scoring.options.progress
    samples = scoring.cell.evaluation.samples
    if progress and cache.count:
        progress(min(cache.count, samples))
    while (first := cache.count) < samples:
        bounds = [min(first + at * SAMPLE_BATCH, samples) for at in range(ranks.count + 1)]
        lengths = [end - start for start, end in itertools.pairwise(bounds)]
        batch = _batch_features(scoring, bounds[ranks.rank], lengths[ranks.rank])
        for rows in ranks.gather(batch, lengths):
            if not rows.isfinite().all():
                raise FloatingPointError("the samples are not finite")
            cache.add(rows)
        if progress:
            progress(sum(lengths))
    return cache.rows(samples).to(scoring.generator.device)


def _batch_features(scoring: CellScoring, first: int, count: int) -> Tensor:
    """Draw some of the cell's samples: their features (count, dimensions), not finite where the samples are not."""
    generator, extractor = scoring.generator, scoring.real.extractor
    if not count:
        return torch.empty(0, extractor.dimensions, device=generator.device)
    try:
        labels = sample_labels(scoring.dataset, scoring.cell.evaluation, first, count)
        images = generator.draw(scoring.cell.evaluation, first, labels)
    except FloatingPointError:
        return torch.full((count, extractor.dimensions), math.nan, device=generator.device)
    if first == 0 and not is_bundle(scoring.run):
        _write_picture(scoring.run / PICTURES / scoring.picture, images, labels, scoring.dataset.class_names)
    return extractor.features(images)


def _write_picture(path: Path, images: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """Write a picture with a column for each of the first classes; as many rows as all of them have."""
    sizes = labels.bincount()
    shown = sizes.nonzero()[:PICTURED, 0].tolist()
    rows = min(8, int(sizes[shown].min()))
    of_class = [(labels == label).nonzero()[:rows, 0].tolist() for label in shown]
    chosen = images[[column[row] for row in range(rows) for column in of_class]]
    try:
        write_grid(path, chosen, len(shown), [names[label] for label in shown] if names else ())
    except OSError as problem:
        if problem.errno in READ_ONLY:  # another person's storage, which we only read
            log.warning("the samples of the cell are not shown in %s: %s", path.parent, problem.strerror)
            return
        path.unlink(missing_ok=True)
        if disk_is_full(problem):
            raise no_space(path.parent) from None
        raise


def _warnings(cell: Cell, real: Reference) -> list[str]:
    """Why a value is less reliable than it looks; shown with it."""
    samples, dimensions = cell.evaluation.samples, real.extractor.dimensions
    if samples > dimensions:
        return []
    text = f"{samples} samples for {dimensions} features: their covariance has no full rank, and the distance is biased"
    log.warning("cell %s: %s", cell.key, text)
    return [text]
