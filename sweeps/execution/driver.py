"""Run a sweep: Ray Tune runs what is missing, this process alone writes the ledger and MLflow."""

import shutil
import time
import uuid
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial

from mpdit.errors import DiskFull, input_error
from pipelines.scoring.evaluation import prepare
from pipelines.yaml_file import write_yaml
from sweeps.execution.cluster import Cluster, RayLost, gpus_per_trial, joined_ray, local_ray, slots, this_machine
from sweeps.execution.driver_sync import DriverSync, driver_sync
from sweeps.execution.ray_tune import Round, TuneJob, tune_trials, wait_for_others
from sweeps.execution.recorder import Listener, Recorder
from sweeps.execution.retention import forget_trial
from sweeps.planning.budget import Spending, affordable, exhausted
from sweeps.planning.known_work import cost_of, unfinished
from sweeps.planning.other_sweeps import OtherSweeps
from sweeps.planning.plan import Plan, Trial, make_plan
from sweeps.planning.reuse import Reuse, fresh_starts
from sweeps.planning.staged_scoring import missing_cells
from sweeps.results.contest import Contest
from sweeps.search.prior import prior_points
from sweeps.search.trial_scheduler import Candidates, Elsewhere, TrialScheduler
from sweeps.spec.consistency import check_shared
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import FIXED, check_unchanged
from sweeps.storage.bucket import BucketLost
from sweeps.storage.events import Event, SweepEnded, SweepStarted, TrialEnded, TrialRetried, TrialStarted
from sweeps.storage.folder_sync import LOCK
from sweeps.storage.layout import Storage, is_locked, locked
from sweeps.storage.lease import is_held, trial_lease
from sweeps.storage.ledger import Ledger, only, trial_statuses, with_void
from sweeps.storage.stop_requests import take_requests
from sweeps.storage.trial_status import TrialStatus
from sweeps.tracking.tracking_thread import TrackingThread
from sweeps.tracking.tracking_view import view_of

LOCK_PATIENCE = 2  # seconds; `mpdit status` holds the lock for a moment to see whether it is free
LEASE_LOOK_EVERY = 5.0  # seconds between two looks at a lease of another machine


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended: completed, failed (a trial did) or interrupted; how many trials needed a worker.

    fault: what ended it from outside (a full disk, a dead Ray), where neither the user nor a trial did. cut: the budget
    that ended it with what it has.
    """

    outcome: TrialStatus
    worked: int
    tracking_problem: Exception | None = None
    fault: str | None = None
    cut: str | None = None


@dataclass(frozen=True)
class RunOptions:
    """How a sweep is started.

    max_concurrent: trials at a time; None: as many as there is room for. fail_fast: whether the first trial that
    fails ends the sweep. only: the trials to run; None: all that are unfinished. again: trials to take up again that
    have ended. address: of a Ray cluster that runs already; None: one of our own, for this sweep. reuse: what of
    the storage is taken as it is.
    """

    max_concurrent: int | None = None
    fail_fast: bool = False
    only: Collection[str] | None = None
    again: Collection[str] = ()
    address: str | None = None
    reuse: Reuse = Reuse.ANY


def run(plan: Plan, storage: Storage, listener: Listener, options: RunOptions | None = None) -> SweepEnd:
    """Bring a sweep to its end: continue what is unfinished, run what is new, reuse what is done.

    listener: called with each event once it is on disk. Raises InputError for what must not start.
    """
    spec, options = plan.spec, options or RunOptions()
    view_of(plan).check(storage, spec.tracking.uri)
    storage.prepare()
    with (
        locked(storage.lock(spec.name), f"sweep {spec.name}", patience=LOCK_PATIENCE),
        driver_sync(storage, spec.name) as link,
    ):
        take_requests(storage, spec.name)  # what was asked of a driver that died is not asked of this one
        unchanged = check_unchanged(storage.spec(spec.name), spec)
        ledger = Ledger(storage.ledger(spec.name))
        made = make_plan(spec, ledger.events, storage.trial_names())
        plan.trials[:], plan.cells[:] = made.trials, made.cells
        afresh = fresh_starts(plan, storage, ledger.events, options.reuse)
        again: list[Event] = [*(TrialRetried(trial) for trial in options.again), *afresh]
        known = with_void(ledger.events + again)
        others = OtherSweeps(storage, spec.name, options.reuse)
        reused = others.finished(unfinished(plan, known))
        todo = unfinished(plan, known + reused)
        todo = [trial for trial in todo if options.only is None or trial.id in options.only]
        _check_means(plan, storage, todo, known + reused)
        remaining = _affordable(plan, known + reused, todo, searching=options.only is None)
        with _cluster(plan, storage, options) if remaining.is_work else nullcontext() as cluster:
            most = options.max_concurrent or len(remaining.trials) + remaining.open
            concurrent = min(most, slots(spec, cluster.nodes)) if cluster else 0
            write_yaml(storage.spec(spec.name), spec.model_dump())  # only now: what is refused leaves nothing behind
            for start in afresh:
                forget_trial(storage, start.trial)
            for event in again + reused:
                ledger.append(event)
            last = ledger.events[-1] if ledger.events else None
            ended = isinstance(last, (TrialEnded, SweepEnded)) and last.outcome is TrialStatus.COMPLETED
            if not remaining.is_work and not reused and unchanged and ended:
                return SweepEnd(TrialStatus.COMPLETED, 0, cut=remaining.cut)
            sweep = RunningSweep(plan, storage, ledger, options, cluster, concurrent, others)
            return _run(sweep, remaining, listener, link)


@dataclass(frozen=True)
class Remaining:
    """What is to do: trials, and how many others a search may suggest; cut: the budget that leaves some undone."""

    trials: list[Trial]
    open: int
    cut: str | None

    @property
    def is_work(self) -> bool:
        """Whether a worker is needed."""
        return bool(self.trials) or self.open > 0


def _affordable(plan: Plan, events: list[Event], todo: list[Trial], searching: bool) -> Remaining:
    """What the budget allows of what is to do."""
    if over := exhausted(plan.spec, Spending(events)):
        return Remaining([], 0, over)
    allowed, cut = affordable(plan.spec, events, todo)
    open_ = max(plan.open, bool(allowed and plan.spec.scheduler.promotes))  # a killed driver may have told of some only
    return Remaining(allowed, open_ if searching else 0, cut)


def _cluster(plan: Plan, storage: Storage, options: RunOptions) -> AbstractContextManager[Cluster]:
    """The Ray that the sweep runs on. Raises InputError where not even one trial would find room."""
    if options.address:
        scratch = storage.sweep(plan.spec.name) / "ray"
        there = f"{storage.name}/{scratch.relative_to(storage.root).as_posix()}"
        return joined_ray(options.address, there, partial(storage.remove, scratch))
    slots(plan.spec, this_machine())
    return local_ray()


@dataclass(frozen=True)
class RunningSweep:
    """A sweep while its driver runs it. cluster: None where nothing needs a worker."""

    plan: Plan
    storage: Storage
    ledger: Ledger
    options: RunOptions
    cluster: Cluster | None
    concurrent: int
    others: OtherSweeps

    @property
    def gpus_per_trial(self) -> float:
        """The GPUs that all workers of a trial hold together."""
        if self.cluster is None:
            return 0.0
        return gpus_per_trial(self.plan.spec, self.cluster.nodes) * self.plan.spec.resources.workers_per_trial


def _run(sweep: RunningSweep, remaining: Remaining, listener: Listener, link: DriverSync | None) -> SweepEnd:
    plan, ledger = sweep.plan, sweep.ledger
    past, complete = list(ledger.events), sweep.cluster is None
    identity = next((start.sweep for start in only(past, SweepStarted)), uuid.uuid4().hex)
    tracking = TrackingThread(sweep.storage, plan, identity, past)
    recorder = Recorder(ledger, tracking, listener)
    changeable = plan.spec.model_dump(exclude={"name", *FIXED})
    recorder.record(SweepStarted(identity, sweep.concurrent, sweep.gpus_per_trial, changeable))
    if link:
        link.follow(recorder)
    tracking.start()  # only now: what it shows is found again by the identity that this line keeps
    try:
        if sweep.cluster:
            complete = _run_rounds(sweep, sweep.cluster, remaining, recorder)
    except (RayLost, DiskFull) as loss:
        recorder.halt = recorder.fault = str(loss)
    finally:
        cut = exhausted(plan.spec, Spending(ledger.events)) or remaining.cut
        outcome = _close(plan, recorder, complete, cut)
        problem = tracking.close()
        if link and (unsent := link.finish()):
            recorder.fault = recorder.fault or unsent
    started = {start.trial for start in only(ledger.events[len(past) :], TrialStarted)}
    return SweepEnd(outcome, len(started), problem, recorder.fault, cut)


def _run_rounds(sweep: RunningSweep, cluster: Cluster, remaining: Remaining, recorder: Recorder) -> bool:
    """Run what is to do; under staged scoring, then what follows from it, until nothing does or the user interrupts.

    Returns:
        Whether nothing is left to do.
    """
    rounds = Rounds(sweep, remaining, recorder)
    job = TuneJob(
        plan=sweep.plan,
        storage=sweep.storage,
        round=rounds.last,
        following=rounds.following,
        concurrent=sweep.concurrent,
        fail_fast=sweep.options.fail_fast,
        cluster=cluster,
        others=sweep.others,
    )
    while True:
        tune_trials(job, recorder)
        if job.scheduler.waiting and job.scheduler.is_done and not recorder.halt:
            wait_for_others(job, recorder)
            if not recorder.halt:
                continue
        if not job.advance():
            return rounds.are_complete


class Rounds:
    """The rounds of a sweep: each begins when every trial has finished the one before.

    are_complete: whether nothing is left to do, once `following` has returned None.
    """

    def __init__(self, sweep: RunningSweep, remaining: Remaining, recorder: Recorder) -> None:
        self.sweep, self.recorder = sweep, recorder
        self.todo, self.are_complete = remaining.trials, False
        self._given_up = set[str]()
        self.last = self._begun(searching=remaining.open > 0)

    def _begun(self, searching: bool) -> Round:
        plan, storage, events = self.sweep.plan, self.sweep.storage, self.sweep.ledger.events
        candidates, elsewhere = Candidates(self.todo, searching), _elsewhere(plan.spec, storage, self.sweep.others)
        return Round(
            scheduler=TrialScheduler(plan, events, candidates, self.recorder.record, elsewhere),
            cells=missing_cells(plan, events, self._given_up),
            known={trial.id for trial in plan.trials},
            contest=Contest(plan, events),
        )

    def following(self) -> Round | None:
        """Begin the next round; None where nothing follows, or the last one was not brought to its end."""
        plan, ledger, only_these = self.sweep.plan, self.sweep.ledger, self.sweep.options.only
        self.are_complete = False
        self.todo = [trial for trial in plan.trials if trial in self.todo or trial.id not in self.last.known]
        open_ends = any(ledger.statuses[trial.id].is_open for trial in self.todo)
        if self.recorder.halt or open_ends or not self.last.scheduler.is_done:
            return None
        self._given_up |= {trial.id for trial in self.todo if not ledger.statuses[trial.id].is_final}
        cells = missing_cells(plan, ledger.events, self._given_up)
        todo = [trial for trial in plan.trials if cells.get(trial.id)] if cells != self.last.cells else []
        todo = [trial for trial in todo if only_these is None or trial.id in only_these]
        self.are_complete = not todo
        if not todo:
            return None
        self.todo = todo
        self.last = self._begun(searching=False)
        return self.last


def _elsewhere(spec: SweepSpec, storage: Storage, others: OtherSweeps) -> Elsewhere:
    """What the scheduler is to know of other sweeps, on this machine and, for a bucket, on others."""
    leased: dict[str, tuple[float, bool]] = {}  # when we looked, and what was there

    def is_locked_here(trial: str) -> bool:
        return is_locked(storage.trial(trial) / LOCK)

    def is_leased(trial: str) -> bool:
        if storage.bucket is None:
            return False
        if trial not in leased or time.monotonic() - leased[trial][0] > LEASE_LOOK_EVERY:
            there = True  # where the bucket does not answer, a worker could not get the trial either
            with suppress(BucketLost):
                there = is_held(storage.bucket, trial_lease(trial))
            leased[trial] = (time.monotonic(), there)
        return leased[trial][1]

    return Elsewhere(others.finished, is_locked_here, is_leased, partial(prior_points, spec, storage))


def _close(plan: Plan, recorder: Recorder, complete: bool, cut: str | None) -> TrialStatus:
    """Record how the sweep and each trial that was cut off ended; a full disk may not take it.

    complete: whether nothing was left to do. cut: the budget that ended the sweep, if one did.
    """
    ledger = recorder.ledger
    try:
        for trial, status in list(ledger.statuses.items()):
            if status is TrialStatus.RUNNING:
                recorder.record(TrialEnded(trial, TrialStatus.INTERRUPTED, recorder.halt or "the driver was stopped"))
        statuses = trial_statuses(ledger.events)
        if any(statuses[trial.id].is_fault for trial in plan.trials):
            outcome = TrialStatus.FAILED
        else:
            is_done = complete and (cut is not None or not unfinished(plan, ledger.events))
            is_over = exhausted(plan.spec, Spending(ledger.events)) is not None
            outcome = TrialStatus.COMPLETED if is_done or is_over else TrialStatus.INTERRUPTED
        recorder.record(SweepEnded(outcome, cut))
    except DiskFull:
        return TrialStatus.INTERRUPTED
    return outcome


def _check_means(plan: Plan, storage: Storage, todo: list[Trial], events: list[Event]) -> None:
    """See that what is to do can be scored and kept, before anything is trained. Raises InputError where it cannot."""
    for recipe in {trial.recipe.data: trial.recipe for trial in todo}.values():
        prepare(recipe, [planned.cell.evaluation for planned in plan.cells])
    workers = plan.spec.resources.workers_per_trial
    for trial in todo:
        check_shared(trial.recipe.batch, workers)
    needed = cost_of(plan, storage, events).disk_gb
    limit, free = plan.spec.budget.disk_gb, shutil.disk_usage(storage.root).free / 1e9
    if todo and needed > min(free, limit or free):
        hint = "retention: {best: 3}, fewer trials at a time, mpdit clean, or another --storage"
        allowed = f"{free:.1f} GB are free" + (f", budget.disk_gb allows {limit:g}" if limit else "")
        raise input_error(
            "the sweep's snapshots and checkpoints do not fit", given=f"{needed:.1f} GB", allowed=allowed, hint=hint
        )
