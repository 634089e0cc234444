"""What a Ray worker does for one trial: train it to its end, score its cells, report. It writes no ledger."""

import logging
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpdit.errors import disk_is_full, no_space
from mpdit.model.transformer import parameter_count
from mpdit.run_folder import PICTURES
from pipelines.provenance import machine
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import ScoringOptions, evaluate
from pipelines.scoring.rungs import rung_sigma_rels, rung_steps, score_rung
from pipelines.training import checkpoint
from pipelines.training.energy import Counter, Meter, counters
from pipelines.training.measurements import Diverged
from pipelines.training.out_of_memory import OutOfMemory, is_out_of_memory
from pipelines.training.sample_grids import draw_sample_grid, sample_grid_steps
from pipelines.training.trainer import AtSnapshot, Report, no_action, train
from pipelines.training.training_folder import halve_micro_batch, log_to, settle_recipe, training_seconds
from sweeps.planning.plan import scoring_work, training_work
from sweeps.storage.bucket import BucketLost, open_bucket
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
from sweeps.storage.folder_sync import synced
from sweeps.storage.layout import locked
from sweeps.storage.open_storage import local_copy
from sweeps.storage.trial_status import TrialStatus

LOCK_PATIENCE = 60  # seconds that a dead driver's last workers get to let go of the trial

Send = Callable[[Event], None]
Training = Callable[[Recipe, Path, Report, int, AtSnapshot], Recipe]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rungs:
    """Where a trial is scored on its way: at which shares of its training, how, and at which of the sweep's widths."""

    shares: list[float]
    evaluation: dict[str, Any]
    widths: list[float]


def run_in_worker(config: dict[str, Any]) -> None:
    """Ray Tune's trainable: every event goes to the driver as one report."""
    from ray import tune

    def send(event: Event) -> None:
        tune.report({"event": encode(event)})

    run_job(config["job"], send, train_with_room)


def run_job(job: dict[str, Any], send: Send, training: Training) -> None:
    """`run_trial` on the plain values that a worker was sent."""
    run_trial(
        job["trial"],
        Recipe(**job["recipe"]),
        folder_of(job),
        [Cell(sigma_rel, Evaluation(**settings)) for sigma_rel, settings in job["cells"]],
        job["threads"],
        send,
        job["keep"],
        job["compiled"],
        training,
        job["rungs"] and Rungs(**job["rungs"]),
        counters(job["gpus"], job["threads"]) if job["workers"] == 1 else (),  # each of several sees its own card alone
        job["bucket"],
    )


def folder_of(job: dict[str, Any]) -> Path:
    """The trial's folder on this machine."""
    return local_copy(job["bucket"]) / "trials" / job["trial"] if job["bucket"] else Path(job["folder"])


def run_trial(
    trial: str,
    recipe: Recipe,
    folder: Path,
    cells: list[Cell],
    threads: int,
    send: Send,
    keep: bool = False,
    compiled: bool = False,
    training: Training | None = None,
    rungs: Rungs | None = None,
    counting: Sequence[Counter] = (),
    bucket: str | None = None,
) -> None:
    """Train and score one trial in its folder; whatever happens ends in one `TrialEnded` event.

    keep: whether the cells' features stay for a later round. training: how it is trained; by default in this process,
    once more with half a batch at a time where memory runs out. rungs: where it is scored on the way. counting: what
    tells its energy. bucket: what the folder is a copy of; it has what a score was made from when the score is told.
    Outcomes here: completed, diverged, out_of_memory, failed; interrupted by a full disk or a lost bucket. Raises
    nothing that the trial itself caused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scored = {"seconds": 0.0, "work": 0.0}
    facts: dict[str, Any] = {}
    meter = Meter(folder, counting)
    at_rung, drawn = at_rungs(trial, recipe, folder, threads, rungs, send), sample_grid_steps(recipe.steps)

    def on_progress(line: dict[str, Any]) -> None:
        send(Progress(trial, line["step"], line["metrics"] | meter.metrics()))
        if line["step"] == 0:
            at_snapshot(0)

    def at_snapshot(step: int) -> None:
        at_rung(step)
        picture = draw_sample_grid(folder, settle_recipe(recipe, folder, threads), step) if step in drawn else None
        if picture is None:
            return
        if bucket:  # before it is told: who shows it takes it from there
            with suppress(BucketLost):
                open_bucket(bucket).send({f"trials/{trial}/{PICTURES}/{picture}": folder / PICTURES / picture})
        send(SamplesDrawn(trial, step, picture))

    try:
        with (
            locked(folder / "lock", f"trial {trial}", patience=LOCK_PATIENCE),
            synced(open_bucket(bucket) if bucket else None, f"trials/{trial}", folder) as push,
            meter.running(),
        ):
            settled = (training or train_with_room)(recipe, folder, on_progress, threads, at_snapshot)
            checkpoint.drop_tensors(folder / "checkpoints")  # a training that has ended needs none
            parameters = _parameters(settled)
            facts = {"runtime": settled.runtime.model_dump(), "machine": machine(settled.runtime.device)}
            work = {cell.key: scoring_work(cell, parameters) for cell in cells}

            def on_cell(result: dict[str, Any]) -> None:
                scored["seconds"] += result["scoring_seconds"]
                scored["work"] += work[result["cell"]] * result["drawn"] / result["params"]["evaluation.samples"]
                push()
                send(CellScored(trial, recipe.steps, **result))

            with log_to(folder / "log.txt"):
                evaluate(folder, settled, cells, on_cell, ScoringOptions(keep=keep, compiled=compiled))
        outcome: dict[str, Any] = {"outcome": TrialStatus.COMPLETED, "training_work": training_work(recipe, parameters)}
    except Diverged as divergence:
        outcome = {"outcome": TrialStatus.DIVERGED, "reason": str(divergence)}
    except OutOfMemory as lack:
        outcome = {"outcome": TrialStatus.OUT_OF_MEMORY, "reason": str(lack)}
    except Exception as error:
        outcome = fault(error, folder)
    totals: dict[str, Any] = {
        "training_seconds": training_seconds(folder),
        "scoring_seconds": round(scored["seconds"], 3),
    }
    totals |= meter.metrics()
    send(TrialEnded(trial, **outcome, **totals, scoring_work=scored["work"], **facts))


def at_rungs(trial: str, recipe: Recipe, folder: Path, threads: int, rungs: Rungs | None, send: Send) -> AtSnapshot:
    """What scores the trial when its training comes to a rung, and reports it."""
    if rungs is None:
        return no_action
    places = dict(zip(rung_steps(recipe.steps, rungs.shares), rungs.shares, strict=True))
    evaluation = Evaluation(**rungs.evaluation)

    def score(step: int) -> None:
        if step not in places:
            return
        settled = settle_recipe(recipe, folder, threads)
        widths = score_rung(folder, settled, step, rung_sigma_rels(recipe.steps, step, rungs.widths), evaluation)
        seconds = sum(width.pop("seconds") for width in widths)
        scored = [RungWidth(**width) for width in widths]
        send(RungScored(trial, step, places[step], evaluation.samples, scored, round(seconds, 3)))

    return score


def _parameters(recipe: Recipe) -> int:
    return parameter_count(recipe.architecture(recipe.dataset))


def train_with_room(
    recipe: Recipe, folder: Path, report: Report, threads: int, at_snapshot: AtSnapshot = no_action
) -> Recipe:
    """Train; where memory runs out and the recipe leaves it open, once more with half a batch at a time."""
    lack: OutOfMemory | None = None
    try:
        settled = train(recipe, folder, report, threads, at_snapshot)
    except OutOfMemory as error:
        lack = error.with_traceback(None)  # whose frames would hold on to what filled the memory
    if lack is not None:
        half = halve_micro_batch(folder)
        if half is None:
            raise lack
        with log_to(folder / "log.txt"):
            log.warning("%s: goes on with %d samples at once", lack, half)
        settled = train(recipe, folder, report, threads, at_snapshot)
    return settled


def fault(error: Exception, folder: Path) -> dict[str, Any]:
    """The outcome of a trial that an exception has ended."""
    if disk_is_full(error):
        return {"outcome": TrialStatus.INTERRUPTED, "reason": str(no_space(folder)), "disk_full": True}
    if isinstance(error, BucketLost):
        return {"outcome": TrialStatus.INTERRUPTED, "reason": str(error), "bucket_lost": True}
    with log_to(folder / "log.txt"):
        log.error("%s", traceback.format_exc())
    outcome = TrialStatus.OUT_OF_MEMORY if is_out_of_memory(error) else TrialStatus.FAILED
    return {"outcome": outcome, "reason": f"{type(error).__name__}: {error}"}
