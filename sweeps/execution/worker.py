"""What a Ray worker does for one trial: train it to its end, score its cells, report. It writes no ledger."""

import logging
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from mpdit.errors import disk_is_full, no_space
from mpdit.model.transformer import parameter_count
from mpdit.run_folder import PICTURES
from mpdit.training.cadence import is_sampled
from pipelines.provenance import machine
from pipelines.recipe import Recipe
from pipelines.scoring.evaluation import ScoringOptions, evaluate
from pipelines.scoring.rungs import rung_sigma_rels, rung_steps, score_rung
from pipelines.training import checkpoint
from pipelines.training.continuation import continue_shorter, steps_taken
from pipelines.training.energy import Counter, Meter, counters
from pipelines.training.measurements import Diverged
from pipelines.training.out_of_memory import OutOfMemory, is_out_of_memory
from pipelines.training.sample_grids import draw_sample_grid
from pipelines.training.trainer import AtSnapshot, Report, no_action, train
from pipelines.training.training_folder import (
    CHECKPOINTS,
    LOG,
    halve_micro_batch,
    log_to,
    read_code,
    settle_recipe,
    training_seconds,
)
from sweeps.execution.trial_job import TrialJob
from sweeps.planning.plan import scoring_work, training_work
from sweeps.storage.bucket import Bucket, BucketLost, open_bucket
from sweeps.storage.events import (
    CellScored,
    Event,
    Progress,
    RungScored,
    RungWidth,
    SamplesDrawn,
    TrialEnded,
    encode,
)
from sweeps.storage.folder_sync import pull, synced
from sweeps.storage.layout import locked
from sweeps.storage.lease import Busy
from sweeps.storage.trial_status import TrialStatus

LOCK_PATIENCE = 5  # seconds; the driver lets other trials run while one is locked for longer

Send = Callable[[Event], None]
Training = Callable[[Recipe, Path, Report, int, AtSnapshot], Recipe]

log = logging.getLogger(__name__)


def run_in_worker(config: dict[str, Any]) -> None:
    """Run a trial as Ray Tune's trainable: every event goes to the driver as one report."""
    from ray import tune

    def send(event: Event) -> None:
        tune.report({"event": encode(event)})

    job: TrialJob = config["job"].on_this_machine()
    run_trial(job, send, energy_counters=counters(job.gpus, job.threads))


def train_within_memory(
    recipe: Recipe, folder: Path, report: Report, threads: int, at_snapshot: AtSnapshot = no_action
) -> Recipe:
    """Train; where memory runs out and the recipe sets no micro-batch, train once more with half a batch at once."""
    problem: OutOfMemory | None = None
    try:
        settled = train(recipe, folder, report, threads, at_snapshot)
    except OutOfMemory as error:
        problem = error.with_traceback(None)  # whose frames would keep what filled the memory
    if problem is not None:
        half = halve_micro_batch(folder)
        if half is None:
            raise problem
        with log_to(folder / LOG):
            log.warning("%s: goes on with %d samples at once", problem, half)
        settled = train(recipe, folder, report, threads, at_snapshot)
    return settled


def run_trial(
    job: TrialJob, send: Send, training: Training = train_within_memory, energy_counters: Sequence[Counter] = ()
) -> None:
    """Train and score one trial in its folder; whatever happens ends in one `TrialEnded` event.

    Outcomes here: completed, diverged, out_of_memory, failed; interrupted by a full disk, a lost bucket, or where
    another process runs the trial. Raises nothing that the trial itself caused.
    """
    TrialRun(job, send, energy_counters).run(training)


class TrialRun:
    """One run of a trial in its worker, which sends an event for everything that happens."""

    def __init__(self, job: TrialJob, send: Send, energy_counters: Sequence[Counter]) -> None:
        self.job, self.send, self.folder = job, send, job.folder
        self.bucket: Bucket | None = None
        self.meter = Meter(job.folder, energy_counters)
        fractions = job.rungs.fractions if job.rungs else ()
        self.rung_fractions = dict(zip(rung_steps(job.recipe.steps, fractions), fractions, strict=True))
        self.scoring_seconds = self.scoring_work = 0.0
        self.facts: dict[str, Any] = {}  # of the runtime, once it is known

    def run(self, training: Training) -> None:
        """Train, score, and send the trial's end; the trial is locked until the driver has recorded it."""
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(self.folder / "lock", f"trial {self.job.trial}", patience=LOCK_PATIENCE))
                outcome = self.train_and_score(training)
            except Busy as other:  # what its folder tells is of another run
                self.send(TrialEnded(self.job.trial, TrialStatus.INTERRUPTED, str(other), held=True))
                return
            except Diverged as divergence:
                outcome = {"outcome": TrialStatus.DIVERGED, "reason": str(divergence)}
            except OutOfMemory as problem:
                outcome = {"outcome": TrialStatus.OUT_OF_MEMORY, "reason": str(problem)}
            except Exception as error:
                outcome = outcome_of_error(error, self.folder)
            self.send_end(outcome)

    def train_and_score(self, training: Training) -> dict[str, Any]:
        """Train and score the trial, which is locked; returns the outcome."""
        job = self.job
        self.bucket = open_bucket(job.bucket) if job.bucket else None
        with synced(self.bucket, f"trials/{job.trial}", self.folder) as push, self.meter.running():
            continue_shorter(job.recipe, self.folder, self.shorter())
            settled = training(job.recipe, self.folder, self.on_report, job.threads, self.on_snapshot)
            goes_on = job.recipe.steps if job.recipe.can_go_on else None
            checkpoint.drop_tensors(self.folder / CHECKPOINTS, keep=goes_on)  # a finished training needs none itself
            return self.score(settled, push)

    def shorter(self) -> list[Path]:
        """The folders of the shorter trainings that this one may continue, fetched from the bucket if it is in one."""
        folders = [self.folder.parent / trial for trial in self.job.shorter]
        if self.bucket and not checkpoint.steps(self.folder / CHECKPOINTS):
            for folder in folders:
                pull(self.bucket, f"trials/{folder.name}", folder)
        return folders

    def send_end(self, outcome: dict[str, Any]) -> None:
        """Send how the trial ended, and what it took."""
        job = self.job
        totals: dict[str, Any] = {
            "training_seconds": training_seconds(self.folder),
            "scoring_seconds": round(self.scoring_seconds, 3),
            "scoring_work": self.scoring_work,
            "code": read_code(self.folder),
            **self.meter.metrics(),
        }
        self.send(TrialEnded(job.trial, **outcome, **totals, **self.facts))

    def score(self, settled: Recipe, push: Callable[[], None]) -> dict[str, Any]:
        """Score the cells; returns the outcome. push: sends the folder's new files to the bucket."""
        job, parameters = self.job, parameter_count(settled.architecture(settled.dataset))
        self.facts = {"runtime": settled.runtime.model_dump(), "machine": machine(settled.runtime.device)}
        work = {cell.key: scoring_work(cell, parameters) for cell in job.cells}

        def on_cell(result: dict[str, Any]) -> None:
            self.scoring_seconds += result["scoring_seconds"]
            self.scoring_work += work[result["cell"]] * result["drawn"] / result["params"]["evaluation.samples"]
            push()
            self.send(CellScored(job.trial, job.recipe.steps, **result))

        with log_to(self.folder / LOG):
            options = ScoringOptions(keep=job.keep, compiled=job.compiled)
            evaluate(self.folder, settled, job.cells, on_cell, options)
        return {
            "outcome": TrialStatus.COMPLETED,
            "training_work": training_work(job.recipe, parameters),
            "steps_trained": steps_taken(self.folder, job.recipe.steps),
        }

    def on_report(self, line: dict[str, Any]) -> None:
        """Send a report of the training; before the first step, draw the first grid of samples."""
        self.send(Progress(self.job.trial, line["step"], line["metrics"] | self.meter.metrics()))
        if line["step"] == 0:
            self.on_snapshot(0)

    def on_snapshot(self, step: int) -> None:
        """Score a rung and draw a grid of samples, where the step has them."""
        if step in self.rung_fractions:
            self._score_rung(step)
        if is_sampled(step) or step == self.job.recipe.steps:
            self._draw_samples(step)

    def _score_rung(self, step: int) -> None:
        rungs, recipe = self.job.rungs, self._settled()
        assert rungs is not None
        sigma_rels = rung_sigma_rels(step, rungs.sigma_rels)
        results = score_rung(self.folder, recipe, step, sigma_rels, rungs.evaluation)
        seconds = round(sum(result.pop("seconds") for result in results), 3)
        widths, samples = [RungWidth(**result) for result in results], rungs.evaluation.samples
        self.send(RungScored(self.job.trial, step, self.rung_fractions[step], samples, widths, seconds))

    def _draw_samples(self, step: int) -> None:
        picture, trial = draw_sample_grid(self.folder, self._settled(), step), self.job.trial
        if picture is None:
            return
        if self.bucket:  # before the event: who shows it takes the picture from there
            with suppress(BucketLost):
                self.bucket.send({f"trials/{trial}/{PICTURES}/{picture}": self.folder / PICTURES / picture})
        self.send(SamplesDrawn(trial, step, picture))

    def _settled(self) -> Recipe:
        return settle_recipe(self.job.recipe, self.folder, self.job.threads)


def outcome_of_error(error: Exception, folder: Path) -> dict[str, Any]:
    """The outcome of a trial that an exception has ended."""
    if disk_is_full(error):
        return {"outcome": TrialStatus.INTERRUPTED, "reason": str(no_space(folder)), "disk_full": True}
    if isinstance(error, BucketLost):
        return {"outcome": TrialStatus.INTERRUPTED, "reason": str(error), "bucket_lost": True}
    with suppress(OSError), log_to(folder / LOG):  # which may be what the error is about
        log.error("%s", traceback.format_exc())
    outcome = TrialStatus.OUT_OF_MEMORY if is_out_of_memory(error) else TrialStatus.FAILED
    return {"outcome": outcome, "reason": f"{type(error).__name__}: {error}"}
