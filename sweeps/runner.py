"""Run a sweep: Ray Tune runs what is missing, this process alone writes the ledger and MLflow."""

import logging
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpdit.errors import refusal
from pipelines.cell import Cell
from pipelines.evaluation import compiling_pays, prepare
from pipelines.yaml_file import write_yaml
from sweeps.history import FINAL, cost_of, finished_elsewhere, unfinished
from sweeps.ledger import Event, Ledger, event, trial_statuses
from sweeps.plan import Plan, Trial
from sweeps.screening import missing_cells
from sweeps.spec import FIXED, SweepSpec, check_unchanged
from sweeps.storage import Storage, locked
from sweeps.tracking import Mirror
from sweeps.trial import run_in_worker

Listener = Callable[[Event], None]
OBJECT_STORE_BYTES = 100_000_000  # reports are small; Ray would take a third of the memory
LOCK_PATIENCE = 2  # seconds; `mpdit status` holds the lock for a moment to see whether it is free
RETRIES = 2  # of a trial whose worker died; errors inside a trial are outcomes and are not retried

log = logging.getLogger(__name__)


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
        concurrent = min(max_concurrent or len(todo), _slots(plan.spec, resources())) if resources else 0
        mirror = Mirror(storage, plan, sweep, past)
        recorder = _Recorder(ledger, mirror, listener)
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
    recorder: "_Recorder",
    concurrent: int,
    fail_fast: bool,
) -> None:
    """Run what is to do; under staged scoring, then what follows from it, until nothing does or the user interrupts."""
    given_up: set[str] = set()
    while todo:
        missing = missing_cells(plan, ledger.events, given_up)
        _tune(plan, storage, ledger, todo, missing, recorder, concurrent, fail_fast)
        statuses = trial_statuses(ledger.events, alive=True)
        if any(statuses[trial.id] in ("running", "pending", "interrupted") for trial in todo):
            return
        given_up |= {trial.id for trial in todo if statuses[trial.id] not in FINAL}
        following = missing_cells(plan, ledger.events, given_up)
        todo = [trial for trial in plan.trials if following.get(trial.id)] if following != missing else []


def _started(plan: Plan, sweep: str, concurrent: int) -> Event:
    changeable = plan.spec.model_dump(exclude={"name", *FIXED})
    return event("sweep_started", sweep=sweep, max_concurrent=concurrent, **changeable)


def _cut_off(trial: str, outcome: str, reason: str) -> Event:
    """The end of a trial that could not tell it itself."""
    return event("trial_ended", trial, outcome=outcome, reason=reason, training_seconds=None, scoring_seconds=None)


def _close(plan: Plan, ledger: Ledger, recorder: "_Recorder") -> str:
    """Say in the ledger how the sweep and each trial that was cut off ended."""
    for trial, status in trial_statuses(ledger.events, alive=True).items():
        if status == "running":
            recorder.record(_cut_off(trial, "interrupted", "the driver was stopped"))
    statuses = trial_statuses(ledger.events)
    if {statuses[trial.id] for trial in plan.trials} & {"failed", "out_of_memory"}:
        outcome = "failed"
    else:
        outcome = "interrupted" if unfinished(plan, ledger.events) else "completed"
    recorder.record(event("sweep_ended", outcome=outcome))
    return outcome


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_resources(spec: SweepSpec) -> None:
    if spec.resources.cpus_per_trial > _cores():
        raise refusal(
            "no trial could start: it asks for more CPU cores than there are",
            given=f"cpus_per_trial: {spec.resources.cpus_per_trial}",
            allowed=f"1 to {_cores()}",
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


class _Recorder:
    """The one way into the record: ledger first, then MLflow and the screen."""

    def __init__(self, ledger: Ledger, mirror: Mirror, listener: Listener) -> None:
        self.ledger, self.mirror, self.listener = ledger, mirror, listener

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks, for a restore that is never made."""
        return {}

    def record(self, line: Event) -> None:
        """Append one event and show it; what is already known is dropped."""
        if self.ledger.append(line):
            self.mirror.show(line)
            self.listener(line)


def _short_temporary_folder() -> Path:
    """A folder for Ray's sockets, whose paths may have 107 bytes; those of dead drivers are removed."""
    base = Path(tempfile.gettempdir())
    base = base if len(str(base)) <= 20 else Path("/tmp")
    for old in base.glob("mpdit-ray-*"):
        owner = int(old.name.rsplit("-", 1)[1])
        if not _alive(owner):
            shutil.rmtree(old, ignore_errors=True)
    return base / f"mpdit-ray-{os.getpid()}"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _quiet_ray() -> None:
    """Ray without telemetry, loggers of its own, or a changed working directory."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's own snapshots are never restored from
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # a pool of compilers would outlive a killed worker
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.ERROR)


@contextmanager
def local_ray() -> Iterator[Callable[[], dict[str, float]]]:
    """A Ray of our own while this is open; yields what tells its resources."""
    _quiet_ray()
    import ray

    folder = _short_temporary_folder()
    on_termination = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            num_cpus=_cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
    except SystemExit:  # SIGTERM while Ray had the signal: to us it is an interruption like any other
        raise KeyboardInterrupt from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_termination)  # ray.init takes it, and ends the driver by abort
    try:
        yield ray.cluster_resources
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def gpus_per_trial(spec: SweepSpec, available: float) -> float:
    """The GPUs that one trial gets: `auto` is one if there is one."""
    asked = spec.resources.gpus_per_trial
    return min(1.0, available) if asked == "auto" else asked


def _slots(spec: SweepSpec, resources: dict[str, float]) -> int:
    gpus = resources.get("GPU", 0.0)
    each = gpus_per_trial(spec, gpus)
    if each > gpus:
        raise refusal(
            "no trial could start: it asks for more GPUs than there are",
            given=f"gpus_per_trial: {each:g}",
            allowed=f"0 to {gpus:g}, or auto",
        )
    slots = resources["CPU"] // spec.resources.cpus_per_trial
    return int(min(slots, gpus // each)) if each else int(slots)


def _job(plan: Plan, storage: Storage, trial: Trial, cells: list[Cell], gpus: float) -> dict[str, Any]:
    """All that a worker needs to know of one trial, in plain values."""
    recipe = trial.recipe
    if not gpus and recipe.runtime.device == "auto":  # a worker that asked for no GPU may still see one
        recipe = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"device": "cpu"})})
    return {
        "trial": trial.id,
        "recipe": recipe.model_dump(),
        "folder": str(storage.trial(trial.id)),
        "cells": [(cell.sigma_rel, cell.evaluation.model_dump()) for cell in cells],
        "keep": any(cell.evaluation.samples < plan.spec.evaluation.samples for cell in cells),
        "compiled": compiling_pays(planned.cell for planned in plan.cells),
        "threads": plan.spec.resources.cpus_per_trial,
    }


def _tune(
    plan: Plan,
    storage: Storage,
    ledger: Ledger,
    todo: list[Trial],
    missing: dict[str, list[Cell]],
    recorder: _Recorder,
    concurrent: int,
    fail_fast: bool,
) -> None:
    """Let Ray Tune run the trials; returns when they have ended or the user has interrupted them."""
    import ray
    from ray import tune

    gpus = gpus_per_trial(plan.spec, ray.cluster_resources().get("GPU", 0.0))
    jobs = [_job(plan, storage, trial, missing.get(trial.id, []), gpus) for trial in todo]
    resources = {"CPU": plan.spec.resources.cpus_per_trial, "GPU": gpus}

    class Record(tune.Callback):
        """Tune's events, as ledger lines."""

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            recorder.record(event("trial_started", trial.config["job"]["trial"]))

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            line = result["event"]
            recorder.record(line)
            if fail_fast and line["event"] == "trial_ended" and line["outcome"] in ("failed", "out_of_memory"):
                signal.raise_signal(signal.SIGINT)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            recorder.record(_cut_off(trial.config["job"]["trial"], "failed", f"its worker died {RETRIES + 1} times"))

    tuner = tune.Tuner(
        tune.with_resources(run_in_worker, resources),
        param_space={"job": tune.grid_search(jobs)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=concurrent,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(_short_temporary_folder()),
            callbacks=[Record()],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    )
    tuner.fit()
