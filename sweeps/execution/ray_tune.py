"""Ray Tune runs the trials; their events go to the recorder."""

import signal
from dataclasses import dataclass
from typing import Any

from pipelines.scoring.cell import Cell
from pipelines.scoring.evaluation import compiling_pays
from sweeps.execution.cluster import Cluster, gpus_per_trial
from sweeps.execution.multi_worker import run_in_group
from sweeps.execution.recorder import Recorder
from sweeps.execution.retention import drop_losers
from sweeps.execution.trial_job import Rungs, TrialJob
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
class TuneJob:
    """What Ray Tune is to do: trials as the scheduler hands them out, and the cells that each known one scores."""

    plan: Plan
    storage: Storage
    scheduler: TrialScheduler
    cells: dict[str, list[Cell]]
    known: set[str]
    concurrent: int
    fail_fast: bool
    cluster: Cluster

    def trial_job(self, trial: Trial, gpus: float) -> TrialJob:
        """All that a worker needs to know of one trial."""
        recipe, plan = trial.recipe, self.plan
        missing = self.cells if trial.id in self.known else missing_cells(plan, list(self.scheduler.events))
        cells = missing.get(trial.id, [])
        if not gpus and recipe.runtime.device == "auto":  # a worker that asked for no GPU may still see one
            recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"device": "cpu"})})
        return TrialJob(
            trial=trial.id,
            recipe=recipe,
            folder=self.storage.trial(trial.id),
            threads=plan.spec.resources.cpus_per_trial,
            cells=cells,
            keep=any(cell.evaluation.samples < plan.spec.evaluation.samples for cell in cells),
            compiled=compiling_pays(planned.cell for planned in plan.cells),
            rungs=_rungs(plan),
            bucket=self.storage.bucket.url if self.storage.bucket else None,
            workers=plan.spec.resources.workers_per_trial,
            gpus=gpus,
            scratch=self.cluster.scratch,
        )


def _rungs(plan: Plan) -> Rungs | None:
    scheduler = plan.spec.scheduler
    if not scheduler.stops:
        return None
    evaluation = plan.spec.evaluation.model_copy(update={"samples": scheduler.samples, "metrics": []})
    return Rungs(scheduler.rungs, evaluation, [planned.cell.sigma_rel for planned in plan.cells])


def apply_requests(job: TuneJob, recorder: Recorder) -> None:
    """Take up the requests of other terminals."""
    for asked in take_requests(job.storage, job.plan.spec.name):
        if asked == EVERYTHING:
            recorder.halt = STOPPED
        else:
            recorder.stops[asked] = STOPPED


def react_to_end(end: TrialEnded, job: TuneJob, recorder: Recorder) -> None:
    """Drop the weights of trials that have lost; halt the sweep where this end is to end it."""
    try:
        for trial in drop_losers(job.plan, job.storage, recorder.ledger.events):
            recorder.record(WeightsDropped(trial))
    except BucketLost as loss:
        recorder.halt = recorder.fault = str(loss)
    if end.disk_full or end.bucket_lost:
        recorder.halt = recorder.fault = end.reason
    if job.fail_fast and end.outcome.is_fault:
        recorder.halt = f"trial {end.trial} {end.outcome}, and the sweep was to end with the first that did"


def end_of_dead_worker(trial: str, error: Exception | None) -> TrialEnded:
    """The end of a trial whose worker died again and again."""
    import ray

    tries = f"its worker died {RETRIES + 1} times"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return TrialEnded(
            trial, TrialStatus.OUT_OF_MEMORY, f"{tries}, the last time because the machine had no memory left"
        )
    return TrialEnded(trial, TrialStatus.FAILED, tries)


def tune_trials(job: TuneJob, recorder: Recorder) -> None:
    """Let Ray Tune run the trials; returns when they have ended or the user has interrupted them."""
    from ray import tune

    gpus = gpus_per_trial(job.plan.spec, job.cluster.nodes)
    trainable, resources = run_in_worker, {"CPU": job.plan.spec.resources.cpus_per_trial, "GPU": gpus}
    alone = job.plan.spec.resources.workers_per_trial == 1
    if not alone:  # the group's workers hold the resources; what starts them is kept where the cluster's head is
        trainable, resources = run_in_group, {"node:__internal_head__": 0.001}
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([resources])),
        tune_config=tune.TuneConfig(
            search_alg=_searcher(job, gpus),
            num_samples=-1,  # until the scheduler has no other
            max_concurrent_trials=job.concurrent,
            reuse_actors=alone,  # a group is gone with the worker that has started it, and only then
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=job.cluster.scratch,
            callbacks=[_callback(job, recorder)],
            stop=_stopper(job, recorder),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )
    tuner.fit()


def _searcher(job: TuneJob, gpus: float) -> Any:
    """Tune's searcher, which asks the trial scheduler for a trial whenever one can start."""
    from ray.tune.search import Searcher

    class Next(Searcher):
        def suggest(self, trial_id: str) -> Any:
            trial = job.scheduler.next()
            return {"job": job.trial_job(trial, gpus)} if trial else Searcher.FINISHED

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """Do nothing: the ledger has the end already."""

        def save(self, checkpoint_path: str) -> None:
            """Do nothing: Tune's state is never restored from."""

        restore = save

    return Next()


def _callback(job: TuneJob, recorder: Recorder) -> Any:
    """Tune's callback, which records events, and turns requests to stop the sweep into Tune's interruption."""
    from ray import tune

    halting: list[str] = []

    class Record(tune.Callback):
        def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
            job.cluster.check()
            apply_requests(job, recorder)
            recorder.halt = recorder.halt or exhausted(job.plan.spec, recorder.ledger.events)
            if recorder.halt and not halting:
                halting.append(recorder.halt)
                signal.raise_signal(signal.SIGINT)  # Tune's own way to stop everything

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            recorder.record(TrialStarted(trial.config["job"].trial))

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            event = from_plain(result["event"])
            recorder.record(event)
            if isinstance(event, TrialEnded):
                react_to_end(event, job, recorder)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            name = trial.config["job"].trial
            if trial_statuses(recorder.ledger.events, alive=True)[name] is TrialStatus.RUNNING:  # it was stopped
                reason = recorder.stops.pop(name, "by the scheduler")
                recorder.record(TrialEnded(name, TrialStatus.STOPPED, reason))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            job.cluster.check()
            recorder.record(end_of_dead_worker(trial.config["job"].trial, trial.get_error()))

    return Record()


def _stopper(job: TuneJob, recorder: Recorder) -> Any:
    """Tune's stopper, which ends a trial at a report when the scheduler or the user wants it."""
    from ray import tune

    class Stop(tune.Stopper):
        def __call__(self, trial_id: str, result: Any) -> bool:
            event = from_plain(result["event"])
            if event.trial and (reason := job.scheduler.on_trial_result(event)):
                recorder.stops[event.trial] = reason
            return event.trial in recorder.stops and not isinstance(event, TrialEnded)

        def stop_all(self) -> bool:
            return False

    return Stop()
