"""Score a finished run: sample each cell on shared noise and labels, and measure it against the data.

All cells of one evaluation start from the same noise and ask for the same classes, so they are compared in pairs.
"""

import copy
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from mpdit.datasets import load_dataset, to_bytes
from mpdit.diffusion import Denoiser
from mpdit.ema import reconstruct
from mpdit.errors import refusal
from mpdit.fidelity import (
    CHUNKS,
    Extractor,
    Statistics,
    distance_with_error,
    load_extractor,
    metric_name,
    noise_floor,
    statistics,
)
from mpdit.magnitude import activation_magnitudes, magnitude_drift
from mpdit.randomness import normal
from mpdit.run_folder import EMA, RAW_WEIGHTS, is_bundle, load, read_weights, set_weights
from mpdit.sampling import SAMPLERS, evaluations, sample
from mpdit.schedules import edm_schedule
from pipelines.pictures import write_grid
from pipelines.recipe import Recipe, Settings, known

SAMPLE_BATCH = 250  # samples drawn at a time; part of what a number means, so not a setting

log = logging.getLogger(__name__)


class Evaluation(Settings):
    """How a finished run is scored."""

    samples: int = Field(2000, ge=CHUNKS)
    sampler: Annotated[str, known(SAMPLERS, "sampler")] = "dpm++2m"
    steps: int = Field(12, ge=1)
    guidance: float = Field(1.0, ge=0)
    guidance_interval: tuple[float, float] | None = None  # the levels σ that are guided; all of them
    seed: int = Field(0, ge=0)

    @field_validator("guidance_interval", mode="before")
    @classmethod
    def _ordered(cls, value: Any) -> Any:
        if value is None:
            return None
        numbers = isinstance(value, (list, tuple)) and all(type(bound) in (int, float) for bound in value)
        if not numbers or len(value) != 2 or not 0 <= value[0] < value[1]:
            raise refusal(
                "a guidance interval is two noise levels, the lower one first",
                given=value,
                allowed="[σ low, σ high], as [0.3, 5.0]; null guides at every level",
            )
        return (float(value[0]), float(value[1]))

    @property
    def network_evaluations(self) -> int:
        """NFE of one sample, to weigh the work: where guidance has an interval, as on EDM's levels."""
        return self.nfe(edm_schedule)

    def nfe(self, noise_schedule: Callable[[int], Tensor]) -> int:
        """NFE of one sample on an objective's levels."""
        return evaluations(self.sampler, noise_schedule(self.steps), self.guidance, self.guidance_interval)

    def draw(self, denoiser: Denoiser, first: int, labels: Tensor) -> Tensor:
        """The samples first … first + len(labels) − 1 of these classes: (count, channels, resolution, resolution)."""
        a, count = denoiser.network.architecture, len(labels)
        shape = torch.Size((a.channels, a.resolution, a.resolution))

        def fresh(step: int) -> Tensor:
            return draw_noise(first, count, shape, self.seed, f"sampler noise {step}").to(labels.device)

        noise = draw_noise(first, count, shape, self.seed).to(labels.device)
        return sample(denoiser, noise, labels, self.sampler, self.steps, self.guidance, fresh, self.guidance_interval)


@dataclass(frozen=True)
class Cell:
    """One point to score: an EMA width and an evaluation."""

    sigma_rel: float
    evaluation: Evaluation

    @property
    def params(self) -> dict[str, Any]:
        """Its settings by axis path."""
        given = self.evaluation.model_dump(mode="json", exclude_none=True)
        settings = {f"evaluation.{name}": value for name, value in given.items()}
        return {"ema.sigma_rel": self.sigma_rel, **settings}

    @property
    def key(self) -> str:
        """The same settings always have the same key."""
        return hashlib.sha256(json.dumps(self.params, sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Reference:
    """What distances are measured against: the real data's statistics and a perfect model's score."""

    statistics: Statistics
    floor: float


@cache
def reference(dataset: str, extractor: str, samples: int) -> Reference:
    """The whole data set's features, and the noise floor at this number of samples."""
    features = load_extractor(extractor).features(to_bytes(load_dataset(dataset).images))
    return Reference(statistics(features), noise_floor(features, samples))


def draw_noise(first: int, count: int, shape: torch.Size, seed: int, purpose: str = "sample noise") -> Tensor:
    """Noise of the samples first … first + count − 1, the same however they are batched: (count, *shape)."""
    return torch.cat([normal((1, *shape), seed, index, purpose) for index in range(first, first + count)])


def balanced_labels(first: int, count: int, classes: int) -> Tensor:
    """Classes in turn, so that every class is asked for equally often: (count,) int64."""
    return torch.arange(first, first + count) % classes


def sample_images(denoiser: Denoiser, evaluation: Evaluation, progress: Callable[[int], None] | None = None) -> Tensor:
    """The evaluation's samples, uint8 (samples, channels, resolution, resolution), on the CPU."""
    architecture = denoiser.network.architecture
    device = next(denoiser.parameters()).device
    parts = []
    for first in range(0, evaluation.samples, SAMPLE_BATCH):
        count = min(SAMPLE_BATCH, evaluation.samples - first)
        images = evaluation.draw(denoiser, first, balanced_labels(first, count, architecture.classes).to(device))
        if not images.isfinite().all():
            raise FloatingPointError("the samples are not finite")
        parts.append(to_bytes(images).cpu())
        if progress:
            progress(first + count)
    return torch.cat(parts)


def sample_grid(denoiser: Denoiser, classes: list[int], rows: int, guidance: float, seed: int) -> Tensor:
    """Samples for a picture, a column a class: uint8 (rows·classes, channels, resolution, resolution)."""
    settings = Evaluation(guidance=guidance, seed=seed)
    labels = torch.tensor(classes).repeat(rows)
    starts = range(0, len(labels), SAMPLE_BATCH)
    return to_bytes(
        torch.cat([settings.draw(denoiser, first, labels[first : first + SAMPLE_BATCH]) for first in starts])
    )


def measure(images: Tensor, extractor: Extractor, against: Reference) -> tuple[float, float]:
    """The distance of uint8 samples to the reference, and its standard error over the samples."""
    return distance_with_error(
        [statistics(part) for part in extractor.features(images).chunk(CHUNKS)], against.statistics
    )


def evaluate(
    run: Path, recipe: Recipe, cells: Iterable[Cell], report: Callable[[dict[str, Any]], None], step: int | None = None
) -> None:
    """Score cells of a run or bundle in turn; each result goes to `report` as soon as it is known.

    A result: {"params", "metric", "value", "stderr", "magnitude_drift", "provenance", "scoring_seconds"}; a cell with
    samples that are not finite has the value None. `step`: score the averages as they were at an earlier snapshot.
    """
    torch.set_num_threads(int(recipe.runtime.threads))
    dataset, extractor = load_dataset(recipe.data.name), load_extractor(recipe.data.name)
    cells = list(cells)
    for denoiser, same_width in _by_width(run, cells, step):
        denoiser.to(recipe.runtime.device)
        drift = magnitude_drift(activation_magnitudes(denoiser, dataset))
        for cell in same_width:
            started = time.monotonic()
            against = reference(dataset.name, extractor.name, cell.evaluation.samples)
            value = error = None
            try:
                images = sample_images(denoiser, cell.evaluation)
                value, error = measure(images, extractor, against)
                if not is_bundle(run):
                    write_grid(run / "samples" / f"{cell.key}.png", images[: 8 * dataset.classes], dataset.classes)
            except FloatingPointError as problem:
                log.warning("cell %s: %s", cell.params, problem)
            result = {
                "params": cell.params,
                "cell": cell.key,
                "metric": metric_name(extractor.name, cell.evaluation.samples),
                "value": value,
                "stderr": error,
                "magnitude_drift": drift if math.isfinite(drift) else None,
                "noise_floor": against.floor,
                "scoring_seconds": round(time.monotonic() - started, 3),
                "provenance": {
                    "extractor": extractor.name,
                    "extractor_weights": extractor.weights,
                    "reference": against.statistics.fingerprint,
                    "reference_count": against.statistics.count,
                    "data": dataset.fingerprint,
                    "nfe": cell.evaluation.nfe(denoiser.objective.noise_schedule),
                    "sample_batch": SAMPLE_BATCH,
                },
            }
            report(result)


def _by_width(run: Path, cells: list[Cell], step: int | None) -> Iterable[tuple[Denoiser, list[Cell]]]:
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
