"""Ray Tune runs the trials; their events go to the recorder."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from mpdit.errors import disk_is_full, no_space
from pipelines.scoring.cell import Cell
from pipelines.scoring.evaluation import compiling_pays
from sweeps.execution.cluster import Cluster, gpus_per_trial
from sweeps.execution.multi_worker import ROOM, TAKEN_BACK, give_back, run_in_group
from sweeps.execution.recorder import Recorder
from sweeps.execution.retention import drop_losers
from sweeps.execution.trial_job import Rungs, TrialJob
from sweeps.execution.worker import run_in_worker
from sweeps.planning.budget import exhausted
from sweeps.planning.continuation import continued_trials, shorter_trials
from sweeps.planning.other_sweeps import OtherSweeps
from sweeps.planning.plan import Plan, Trial
from sweeps.planning.staged_scoring import missing_cells
from sweeps.results.contest import Contest
from sweeps.search.trial_scheduler import TrialScheduler
from sweeps.storage.bucket import BucketLost
from sweeps.storage.events import RungScored, TrialEnded, TrialStarted, WeightsDropped, from_plain
from sweeps.storage.layout import Storage
from sweeps.storage.stop_requests import EVERYTHING, take_requests
from sweeps.storage.trial_status import TrialStatus

RETRIES = 2  # of a trial whose worker died; errors inside a trial are outcomes and are not retried
STOPPED = "by mpdit stop"
OUT_OF_MEMORY = ("low on memory", "memory usage threshold")  # so Ray says that it has killed a worker to free memory
WORKER_STARTS = 5.0  # seconds, about
LOOK_EVERY = 1.0  # seconds between two looks at trials that other processes run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Round:
    """What is to do now: trials as the scheduler hands them out, and the cells that each known one scores."""

    scheduler: TrialScheduler
    cells: dict[str, list[Cell]]
    known: set[str]
    contest: Contest


@dataclass
class TuneJob:
    """What Ray Tune is to do: a round, and those that follow, in the same workers. following: begins the next one."""

    plan: Plan
    storage: Storage
    round: Round
    following: Callable[[], Round | None]
    concurrent: int
    fail_fast: bool
    cluster: Cluster
    others: OtherSweeps

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles what its callbacks refer to, for a restore that is never made."""
        return {}

    def shorter(self, trial: Trial) -> list[str]:
        """The trials that this one may continue: of this sweep, or of others."""
        own = [other.id for other in shorter_trials(trial, self.plan)]
        others = continued_trials(trial, self.others.lengths() if trial.at_any_length else (), self.storage)
        return list(dict.fromkeys([*own, *others.values()]))

    @property
    def scheduler(self) -> TrialScheduler:
        """The round's."""
        return self.round.scheduler

    def advance(self) -> bool:
        """Begin the next round; returns whether there is one."""
        following = self.following()
        self.round = following or self.round
        return following is not None

    def trial_job(self, trial: Trial, gpus: float) -> TrialJob:
        """All that a worker needs to know of one trial."""
        recipe, plan = trial.recipe, self.plan
        is_planned = trial.id in self.round.known and trial.id not in self.scheduler.taken_over
        missing = self.round.cells if is_planned else missing_cells(plan, list(self.scheduler.events))
        cells = missing.get(trial.id, [])
        if not gpus and recipe.runtime.device == "auto":  # a worker that asked for no GPU may still see one
            recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"device": "cpu"})})
        return TrialJob(
            trial=trial.id,
            recipe=recipe,
            folder=self.storage.trial(trial.id),
            shorter=self.shorter(trial),
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
    changes = {"samples": scheduler.samples, "metrics": [], "classes": plan.cells[0].cell.evaluation.classes}
    evaluation = plan.spec.evaluation.model_copy(update=changes)
    return Rungs(scheduler.rungs, evaluation, [planned.cell.sigma_rel for planned in plan.cells])


def must_halt(job: TuneJob, recorder: Recorder) -> bool:
    """Whether no trial may continue, after a look at Ray, the budget and the requests of other terminals.

    Raises RayLost.
    """
    job.cluster.check()
    apply_requests(job, recorder)
    recorder.halt = recorder.halt or exhausted(job.plan.spec, job.scheduler.spending)
    return recorder.halt is not None


def apply_requests(job: TuneJob, recorder: Recorder) -> None:
    """Take up the requests of other terminals."""
    for asked in take_requests(job.storage, job.plan.spec.name):
        if asked == EVERYTHING:
            recorder.halt = STOPPED
        elif recorder.ledger.statuses[asked].is_open:  # else it came too late, and no later round is meant
            recorder.stops[asked] = STOPPED


def wait_for_others(job: TuneJob, recorder: Recorder) -> None:
    """Wait until another process has released a trial that this sweep needs; or until the sweep is to halt."""
    trials = [trial.id for trial in job.scheduler.waiting]
    log.warning("%s waits for trials that other processes run: %s", job.plan.spec.name, ", ".join(trials))
    while not must_halt(job, recorder) and all(map(job.scheduler.must_wait, job.scheduler.waiting)):
        time.sleep(LOOK_EVERY)


def react_to_end(end: TrialEnded, job: TuneJob, recorder: Recorder) -> None:
    """Drop the weights of trials that have lost; halt the sweep where this end is to end it."""
    try:
        for trial in drop_losers(job.round.contest, job.storage, job.others):
            recorder.record(WeightsDropped(trial))
    except BucketLost as loss:
        recorder.halt = recorder.fault = str(loss)
    if end.disk_full or end.bucket_lost:
        recorder.halt = recorder.fault = end.reason
    if job.fail_fast and end.outcome.is_fault:
        recorder.halt = f"trial {end.trial} {end.outcome}, and the sweep was to end with the first that did"


def end_of_dead_worker(trial: str, error: Exception | None) -> TrialEnded:
    """The end of a trial whose worker died, or raised an error outside of the trial, again and again."""
    from ray import exceptions

    tries = f"its worker died {RETRIES + 1} times"
    if isinstance(error, exceptions.OutOfMemoryError):
        return TrialEnded(
            trial, TrialStatus.OUT_OF_MEMORY, f"{tries}, the last time because the machine had no memory left"
        )
    if isinstance(error, exceptions.RayTaskError):
        raised = error.cause if isinstance(error.cause, Exception) else error
        return TrialEnded(
            trial,
            TrialStatus.FAILED,
            f"{type(raised).__name__}: {raised} (its worker could not run it, {RETRIES + 1} times)",
        )
    return TrialEnded(trial, TrialStatus.FAILED, f"{tries}, the last time: {_last_line(error)}" if error else tries)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def last_error(trial: Any) -> Exception | None:
    """What Tune keeps of a trial's last failure: the error, if Ray could send it, or else its text.

    It is read where the driver has written it: Tune itself looks into the storage, which has it only later.
    """
    from ray import cloudpickle, exceptions

    kept, pickled = ((Path(name) if name else None) for name in (trial.error_file, trial.pickled_error_file))
    text = (kept.read_text() if kept else "").rpartition("Failure #")[2].partition("\n")[2]
    error: Exception | None = cloudpickle.loads(pickled.read_bytes()) if pickled else None  # perhaps of one before
    if error is not None and str(error) in text:
        return error
    if any(words in text for words in OUT_OF_MEMORY):
        return exceptions.OutOfMemoryError(text)
    return RuntimeError(text) if text.strip() else None


def preemption(trial: str, error: Exception | None) -> TrialEnded | None:
    """The end of a trial whose machine was taken back, as a spot node is; None where the worker died otherwise."""
    from ray import exceptions

    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    if isinstance(cause, exceptions.RayActorError) and cause.preempted:
        return TrialEnded(trial, TrialStatus.PREEMPTED, TAKEN_BACK)
    return None


def tune_trials(job: TuneJob, recorder: Recorder) -> None:
    """Let Ray Tune run the trials; returns when they have ended or the user has interrupted them.

    Raises what a callback has raised, which Tune itself would wrap or swallow; DiskFull where Tune found no space.
    """
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
    try:
        tuner.fit()
    except Exception as problem:
        if recorder.problem is None and disk_is_full(problem):
            raise no_space(job.storage.root) from problem
        raise recorder.problem or problem from None
    if recorder.problem is not None:
        raise recorder.problem


def _searcher(job: TuneJob, gpus: float) -> Any:
    """Tune's searcher, which asks the trial scheduler for a trial whenever one can start.

    Once a round is over, it begins the next, so that Tune uses the last worker again; others are only started for what
    that one is not done with in the time of a start.
    """
    from ray.tune.search import Searcher

    running: set[str] = set()

    class Next(Searcher):
        alone_until = 0.0  # by the monotonic clock

        def suggest(self, trial_id: str) -> Any:
            if running and (job.scheduler.has_no_other or time.monotonic() < self.alone_until):
                return None
            trial = job.scheduler.next()
            while trial is None and not running and job.scheduler.has_no_other and job.advance():
                self.alone_until = time.monotonic() + WORKER_STARTS
                trial = job.scheduler.next()
            if trial is None:
                return None if running or job.scheduler.is_waiting else Searcher.FINISHED
            running.add(trial_id)
            return {"job": job.trial_job(trial, gpus)}

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            running.discard(trial_id)

        def save(self, checkpoint_path: str) -> None:
            """Do nothing: Tune's state is never restored from."""

        restore = save

    return Next()


def _callback(job: TuneJob, recorder: Recorder) -> Any:
    """Tune's callback, which records events."""
    from ray import tune

    rooms: dict[str, list[str]] = {}  # of the groups that run, by trial

    class Record(tune.Callback):
        @recorder.guarded
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            recorder.record(TrialStarted(trial.config["job"].trial))

        @recorder.guarded
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            event, rooms[trial.trial_id] = from_plain(result["event"]), result.get(ROOM, [])
            if isinstance(event, RungScored):
                event = replace(event, stop=recorder.stops.get(event.trial))
            recorder.record(event)
            if isinstance(event, TrialEnded):
                react_to_end(event, job, recorder)

        @recorder.guarded
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            give_back(rooms.pop(trial.trial_id, []))
            name = trial.config["job"].trial
            if recorder.ledger.statuses[name] is TrialStatus.RUNNING:  # it was stopped
                reason = recorder.stops.get(name, "by the scheduler")
                recorder.record(TrialEnded(name, TrialStatus.STOPPED, reason))

        @recorder.guarded
        def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            give_back(rooms.pop(trial.trial_id, []))
            if end := preemption(trial.config["job"].trial, last_error(trial)):
                recorder.record(end)

        @recorder.guarded
        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            give_back(rooms.pop(trial.trial_id, []))
            job.cluster.check()
            recorder.record(end_of_dead_worker(trial.config["job"].trial, last_error(trial)))

    return Record()


def _stopper(job: TuneJob, recorder: Recorder) -> Any:
    """Tune's stopper: a trial ends at a report when scheduler or user want it, and all when the sweep halts."""
    from ray import tune

    class Stop(tune.Stopper):
        @recorder.guarded
        def __call__(self, trial_id: str, result: Any) -> bool:
            event = from_plain(result["event"])
            if event.trial and (reason := job.scheduler.on_trial_result(event)):
                recorder.stops[event.trial] = reason
            return event.trial in recorder.stops and not isinstance(event, TrialEnded)

        @recorder.guarded
        def stop_all(self) -> bool:
            return must_halt(job, recorder)

    return Stop()
