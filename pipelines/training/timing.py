"""How long a training and its scoring will take, estimated from a few steps and a few samples."""

import contextlib
import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpdit.training.ema import TRACKED_SIGMA_RELS, snapshot_steps
from pipelines.recipe import REPORTS, Recipe, resolve_runtime
from pipelines.scoring.cell import SAMPLE_BATCH, Evaluation
from pipelines.scoring.rungs import score_rung
from pipelines.training.trainer import train

SHORT = 20 * REPORTS  # steps of the training whose beginning is timed, so that it reports every 20
MEASURED = 3  # reports until that training is ended


class _Enough(Exception):
    """Ends a training whose steps have been timed."""


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
    """Train the first steps and score a few samples, in a temporary folder.

    Non-negative least squares over the intervals between reports and snapshots gives the seconds of a step, of a
    report with its checkpoint and of a snapshot. Raises Diverged where the first steps diverge.
    """
    settled = resolve_runtime(recipe, threads)
    short = settled.model_copy(update={"steps": min(recipe.steps, SHORT)})
    marks: list[tuple[float, int, bool]] = []  # (time, step, whether it is a report)
    began = time.monotonic()

    def at_report(line: dict[str, Any]) -> None:
        marks.append((time.monotonic(), line["step"], True))
        if sum(report for _, _, report in marks) == MEASURED:
            raise _Enough

    def at_snapshot(step: int) -> None:
        marks.append((time.monotonic(), step, False))

    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(_Enough):
            train(short, Path(folder), at_report, threads, at_snapshot)
        step, report, snapshot = _parts(marks)
        training = recipe.steps * step + recipe.steps // recipe.report_every * report
        training += len(snapshot_steps(recipe.steps)) * snapshot
        last = max(at for _, at, is_report in marks if not is_report)
        few, more = (_score(Path(folder), short, last, evaluation, batches) for batches in (1, 2))
    sample = max(0.0, more - few) / SAMPLE_BATCH
    cell = max(0.0, few - SAMPLE_BATCH * sample)
    return Timing(training, cell, sample, marks[0][0] - began, str(settled.runtime.device))


def _score(run: Path, recipe: Recipe, step: int, evaluation: Evaluation, batches: int) -> float:
    asked = evaluation.model_copy(update={"samples": batches * SAMPLE_BATCH})
    return float(score_rung(run, recipe, step, TRACKED_SIGMA_RELS[:1], asked)[0]["seconds"])


def _parts(marks: list[tuple[float, int, bool]]) -> tuple[float, float, float]:
    """Seconds of a step, of a report and of a snapshot; what comes before the first mark is left out as warm-up."""
    from scipy.optimize import nnls

    rows, seconds = [], []
    for (since, first, was_report), (until, last, is_report) in itertools.pairwise(marks):
        rows.append([last - first, (was_report + is_report) / 2, float(not is_report)])
        seconds.append(until - since)
    step, report, snapshot = nnls(np.array(rows), np.array(seconds))[0]
    return float(step), float(report), float(snapshot)
