"""Run a sweep: Ray Tune runs what is missing, this process alone writes the ledger and MLflow."""

import shutil
import uuid
from contextlib import nullcontext
from dataclasses import dataclass

from mpdit.errors import refusal
from pipelines.evaluation import prepare
from pipelines.yaml_file import write_yaml
from sweeps.cluster import cores, local_ray, slots
from sweeps.history import FINAL, cost_of, finished_elsewhere, unfinished
from sweeps.ledger import Event, Ledger, event, trial_statuses
from sweeps.plan import Plan, Trial
from sweeps.recorder import Listener, Recorder, cut_off
from sweeps.screening import missing_cells
from sweeps.spec import FIXED, SweepSpec, check_unchanged
from sweeps.storage import Storage, locked
from sweeps.tracking import Mirror
from sweeps.tuning import Work, tune_trials

LOCK_PATIENCE = 2  # seconds; `mpdit status` holds the lock for a moment to see whether it is free


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended: "completed", "failed" (a trial did) or "interrupted"; how many trials needed a worker."""

    outcome: str
    worked: int
    tracking_problem: Exception | None = None


def run(
    plan: Plan,
    storage: Storage,
    listener: Listener,
    max_concurrent: int | None = None,
    fail_fast: bool = False,
) -> SweepEnd:
    """Bring a sweep to its end: continue what is unfinished, run what is new, reuse what is done.

    listener: called with each event once it is on disk. Raises BadInput for what must not start.
    """
    spec = plan.spec
    storage.prepare()
    _check_resources(spec)
    with locked(storage.lock(spec.name), f"sweep {spec.name}", patience=LOCK_PATIENCE):
        unchanged = check_unchanged(storage.spec(spec.name), spec)
        ledger = Ledger(storage.ledger(spec.name))
        reused = finished_elsewhere(storage, spec.name, unfinished(plan, ledger.events))
        todo = unfinished(plan, ledger.events + reused)
        _check_means(plan, storage, todo, ledger.events + reused)
        write_yaml(
            storage.spec(spec.name), spec.model_dump()
        )  # only now: what is refused leaves nothing under its name
        for line in reused:
            ledger.append(line)
        if not todo and not reused and unchanged and ledger.events[-1].get("outcome") == "completed":
            return SweepEnd("completed", 0)
        return _run(plan, storage, ledger, todo, listener, max_concurrent, fail_fast)


def _run(
    plan: Plan,
    storage: Storage,
    ledger: Ledger,
    todo: list[Trial],
    listener: Listener,
    max_concurrent: int | None,
    fail_fast: bool,
) -> SweepEnd:
    past = list(ledger.events)
    sweep = next((line["sweep"] for line in past if line["event"] == "sweep_started"), uuid.uuid4().hex)
    with local_ray() if todo else nullcontext() as resources:
        concurrent = min(max_concurrent or len(todo), slots(plan.spec, resources())) if resources else 0
        mirror = Mirror(storage, plan, sweep, past)
        recorder = Recorder(ledger, mirror, listener)
        recorder.record(_started(plan, sweep, concurrent))
        mirror.start()  # only now: MLflow's runs are found again by the identity that this line keeps
        try:
            _run_rounds(plan, storage, ledger, todo, recorder, concurrent, fail_fast)
        finally:
            outcome = _close(plan, ledger, recorder)
            problem = mirror.close()
    return SweepEnd(outcome, len(todo), problem)


def _run_rounds(
    plan: Plan,
    storage: Storage,
    ledger: Ledger,
    todo: list[Trial],
    recorder: Recorder,
    concurrent: int,
    fail_fast: bool,
) -> None:
    """Run what is to do; under staged scoring, then what follows from it, until nothing does or the user interrupts."""
    given_up: set[str] = set()
    while todo:
        missing = missing_cells(plan, ledger.events, given_up)
        tune_trials(Work(plan, storage, todo, missing, concurrent, fail_fast), recorder)
        statuses = trial_statuses(ledger.events, alive=True)
        if any(statuses[trial.id] in ("running", "pending", "interrupted") for trial in todo):
            return
        given_up |= {trial.id for trial in todo if statuses[trial.id] not in FINAL}
        following = missing_cells(plan, ledger.events, given_up)
        todo = [trial for trial in plan.trials if following.get(trial.id)] if following != missing else []


def _started(plan: Plan, sweep: str, concurrent: int) -> Event:
    changeable = plan.spec.model_dump(exclude={"name", *FIXED})
    return event("sweep_started", sweep=sweep, max_concurrent=concurrent, **changeable)


def _close(plan: Plan, ledger: Ledger, recorder: Recorder) -> str:
    """Say in the ledger how the sweep and each trial that was cut off ended."""
    for trial, status in trial_statuses(ledger.events, alive=True).items():
        if status == "running":
            recorder.record(cut_off(trial, "interrupted", "the driver was stopped"))
    statuses = trial_statuses(ledger.events)
    if {statuses[trial.id] for trial in plan.trials} & {"failed", "out_of_memory"}:
        outcome = "failed"
    else:
        outcome = "interrupted" if unfinished(plan, ledger.events) else "completed"
    recorder.record(event("sweep_ended", outcome=outcome))
    return outcome


def _check_resources(spec: SweepSpec) -> None:
    if spec.resources.cpus_per_trial > cores():
        raise refusal(
            "no trial could start: it asks for more CPU cores than there are",
            given=f"cpus_per_trial: {spec.resources.cpus_per_trial}",
            allowed=f"1 to {cores()}",
        )


def _check_means(plan: Plan, storage: Storage, todo: list[Trial], events: list[Event]) -> None:
    """See that what is to do can be scored and kept, before anything is trained. Raises BadInput where it cannot."""
    for recipe in {trial.recipe.data: trial.recipe for trial in todo}.values():
        prepare(recipe, [planned.cell.evaluation for planned in plan.cells])
    needed = cost_of(plan, storage, events).disk_gb
    limit, free = plan.spec.budget.disk_gb, shutil.disk_usage(storage.root).free / 1e9
    if todo and needed > min(free, limit or free):
        mend = "fewer trials at a time: leave some values of the training axes for later, or another --storage"
        allowed = f"{free:.1f} GB are free" + (f", budget.disk_gb allows {limit:g}" if limit else "")
        raise refusal(
            "the sweep's snapshots and checkpoints do not fit", given=f"{needed:.1f} GB", allowed=allowed, mend=mend
        )
