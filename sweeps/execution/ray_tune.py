"""Ray Tune runs trials; what they report goes to the recorder."""

import signal
from dataclasses import dataclass
from typing import Any

from pipelines.scoring.cell import Cell
from pipelines.scoring.evaluation import compiling_pays
from sweeps.execution.cluster import Cluster, gpus_per_trial
from sweeps.execution.multi_worker import run_in_group
from sweeps.execution.recorder import Recorder
from sweeps.execution.retention import drop_losers
from sweeps.execution.worker import run_in_worker
from sweeps.planning.budget import exhausted
from sweeps.planning.plan import Plan, Trial
from sweeps.planning.staged_scoring import missing_cells
from sweeps.search.trial_scheduler import TrialScheduler
from sweeps.storage.bucket import BucketLost
from sweeps.storage.events import TrialEnded, TrialStarted, WeightsDropped, from_plain
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import trial_statuses
from sweeps.storage.stop_requests import EVERYTHING, take_requests
from sweeps.storage.trial_status import TrialStatus

RETRIES = 2  # of a trial whose worker died; errors inside a trial are outcomes and are not retried
STOPPED = "by mpdit stop"


@dataclass(frozen=True)
class Work:
    """Trials to bring to their end as the scheduler hands them out, and the cells that each known one is to score."""

    plan: Plan
    storage: Storage
    scheduler: TrialScheduler
    cells: dict[str, list[Cell]]
    known: set[str]
    concurrent: int
    fail_fast: bool
    cluster: Cluster


def _job(work: Work, trial: Trial, gpus: float) -> dict[str, Any]:
    """All that a worker needs to know of one trial, in plain values."""
    recipe, plan = trial.recipe, work.plan
    missing = work.cells if trial.id in work.known else missing_cells(plan, list(work.scheduler.events))
    cells = missing.get(trial.id, [])
    if not gpus and recipe.runtime.device == "auto":  # a worker that asked for no GPU may still see one
        recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"device": "cpu"})})
    return {
        "trial": trial.id,
        "recipe": recipe.model_dump(),
        "folder": str(work.storage.trial(trial.id)),
        "bucket": work.storage.bucket.url if work.storage.bucket else None,
        "cells": [(cell.sigma_rel, cell.evaluation.model_dump()) for cell in cells],
        "keep": any(cell.evaluation.samples < plan.spec.evaluation.samples for cell in cells),
        "compiled": compiling_pays(planned.cell for planned in plan.cells),
        "threads": plan.spec.resources.cpus_per_trial,
        "workers": plan.spec.resources.workers_per_trial,
        "gpus": gpus,
        "scratch": work.cluster.scratch,
        "rungs": _rungs(plan),
    }


def _rungs(plan: Plan) -> dict[str, Any] | None:
    scheduler = plan.spec.scheduler
    if not scheduler.stops:
        return None
    evaluation = plan.spec.evaluation.model_copy(update={"samples": scheduler.samples, "metrics": []})
    widths = [planned.cell.sigma_rel for planned in plan.cells]
    return {"shares": scheduler.rungs, "evaluation": evaluation.model_dump(), "widths": widths}


def heed_requests(work: Work, recorder: Recorder) -> None:
    """Take up what another terminal asks."""
    for asked in take_requests(work.storage, work.plan.spec.name):
        if asked == EVERYTHING:
            recorder.halt = STOPPED
        else:
            recorder.stops[asked] = STOPPED


def heed_outcome(end: TrialEnded, work: Work, recorder: Recorder) -> None:
    """End the sweep where a trial's end is to be its own; let go of what has lost."""
    try:
        for trial in drop_losers(work.plan, work.storage, recorder.ledger.events):
            recorder.record(WeightsDropped(trial))
    except BucketLost as loss:
        recorder.halt = recorder.fault = str(loss)
    if end.disk_full or end.bucket_lost:
        recorder.halt = recorder.fault = end.reason
    if work.fail_fast and end.outcome.is_fault:
        recorder.halt = f"trial {end.trial} {end.outcome}, and the sweep was to end with the first that did"


def death(trial: str, error: Exception | None) -> TrialEnded:
    """The end of a trial whose worker died again and again."""
    import ray

    tries = f"its worker died {RETRIES + 1} times"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return TrialEnded(
            trial, TrialStatus.OUT_OF_MEMORY, f"{tries}, the last time because the machine had no memory left"
        )
    return TrialEnded(trial, TrialStatus.FAILED, tries)


def tune_trials(work: Work, recorder: Recorder) -> None:
    """Let Ray Tune run the trials; returns when they have ended or the user has interrupted them."""
    from ray import tune
    from ray.tune.search import Searcher

    gpus = gpus_per_trial(work.plan.spec, work.cluster.nodes)
    trainable, resources = run_in_worker, {"CPU": work.plan.spec.resources.cpus_per_trial, "GPU": gpus}
    alone = work.plan.spec.resources.workers_per_trial == 1
    if not alone:  # the group's workers hold the resources; what starts them is kept where the cluster's head is
        trainable, resources = run_in_group, {"node:__internal_head__": 0.001}
    halting: list[str] = []

    class Next(Searcher):
        """Asks the trial scheduler for a trial whenever one can start."""

        def suggest(self, trial_id: str) -> Any:
            trial = work.scheduler.next()
            return {"job": _job(work, trial, gpus)} if trial else Searcher.FINISHED

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """The ledger has told already."""

        def save(self, checkpoint_path: str) -> None:
            """Tune's state is never restored from."""

        restore = save

    class Record(tune.Callback):
        """Tune's events, as ledger lines; what is asked of the sweep, as Tune's interruption."""

        def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
            work.cluster.check()
            heed_requests(work, recorder)
            recorder.halt = recorder.halt or exhausted(work.plan.spec, recorder.ledger.events)
            if recorder.halt and not halting:
                halting.append(recorder.halt)
                signal.raise_signal(signal.SIGINT)  # Tune's own way to stop everything

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            recorder.record(TrialStarted(trial.config["job"]["trial"]))

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            event = from_plain(result["event"])
            recorder.record(event)
            if isinstance(event, TrialEnded):
                heed_outcome(event, work, recorder)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            name = trial.config["job"]["trial"]
            if trial_statuses(recorder.ledger.events, alive=True)[name] is TrialStatus.RUNNING:  # it was stopped
                reason = recorder.stops.pop(name, "by the scheduler")
                recorder.record(TrialEnded(name, TrialStatus.STOPPED, reason))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            work.cluster.check()
            recorder.record(death(trial.config["job"]["trial"], trial.get_error()))

    class Stop(tune.Stopper):
        """Ends a trial at a report when that was asked for."""

        def __call__(self, trial_id: str, result: Any) -> bool:
            event = from_plain(result["event"])
            if event.trial and (reason := work.scheduler.on_trial_result(event)):
                recorder.stops[event.trial] = reason
            return event.trial in recorder.stops and not isinstance(event, TrialEnded)

        def stop_all(self) -> bool:
            return False

    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([resources])),
        tune_config=tune.TuneConfig(
            search_alg=Next(),
            num_samples=-1,  # until the scheduler has no other
            max_concurrent_trials=work.concurrent,
            reuse_actors=alone,  # a group is gone with the worker that has started it, and only then
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=work.cluster.scratch,
            callbacks=[Record()],
            stop=Stop(),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )
    tuner.fit()
