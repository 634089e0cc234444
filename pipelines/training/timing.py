"""How long a training and its scoring will take, estimated from a few steps and a few samples."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from mpdit.training.cadence import counts
from mpdit.training.ema import TRACKED_SIGMA_RELS
from pipelines.recipe import Recipe, resolve_runtime
from pipelines.scoring.cell import SAMPLE_BATCH, Evaluation
from pipelines.scoring.rungs import score_rung
from pipelines.training.trainer import Trainer, no_action

WARM_UP, TIMED = 4, 32  # steps


@dataclass(frozen=True)
class Timing:
    """Seconds: of a complete training, of a cell without its samples, of one sample, and until the first step."""

    training: float
    cell: float
    sample: float
    start: float
    device: str

    def scoring(self, samples: int) -> float:
        """Seconds of a cell with that many samples."""
        return self.cell + samples * self.sample


def time_training(recipe: Recipe, evaluation: Evaluation, threads: int | None) -> Timing:
    """Train the first steps and score a few samples, in a temporary folder. Raises Diverged where they diverge."""
    settled = resolve_runtime(recipe, threads)
    short = settled.model_copy(update={"steps": min(recipe.steps, WARM_UP + TIMED)})
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(short, Path(folder), no_action, no_action)
        trainer.start()
        start = time.monotonic() - began
        _seconds_of(trainer.step, min(WARM_UP, short.steps - 1))
        steps = short.steps - trainer.state.step
        step = _seconds_of(trainer.step, steps) / steps
        snapshot = _seconds_of(trainer.snapshot, 1)
        report = _seconds_of(trainer.report, 1) + _seconds_of(trainer.checkpoint, 1)
        reports, snapshots = counts(recipe.steps)
        training = recipe.steps * step + reports * report + snapshots * snapshot
        few, more = (_score(Path(folder), short, short.steps, evaluation, batches) for batches in (1, 2))
    sample = max(0.0, more - few) / SAMPLE_BATCH
    cell = max(0.0, few - SAMPLE_BATCH * sample)
    return Timing(training, cell, sample, start, str(settled.runtime.device))


def _seconds_of(part: Callable[[], None], times: int) -> float:
    """Seconds of a part of the training, done so often."""
    began = time.monotonic()
    for _ in range(times):
        part()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic() - began


def _score(run: Path, recipe: Recipe, step: int, evaluation: Evaluation, batches: int) -> float:
    asked = evaluation.model_copy(update={"samples": batches * SAMPLE_BATCH})
    return float(score_rung(run, recipe, step, TRACKED_SIGMA_RELS[:1], asked)[0]["seconds"])
