"""What the engine itself costs: `python benchmarks/orchestration.py [--json] [--ledger FILE]`.

200 trials that sleep for a second and report five times, on as many slots as there are cores: by a sweep (ledger and
MLflow with it), by plain Ray Tune, by plain Optuna in threads; and the driver's time per report, tracking on.
--ledger: instead, a finished sweep's wall time against the best packing of its trials' work on its slots.
"""

import heapq
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sweeps.execution.ray_tune
from pipelines.provenance import cores
from sweeps.execution.cluster import local_ray
from sweeps.execution.driver import run
from sweeps.execution.recorder import Recorder
from sweeps.planning.plan import make_plan
from sweeps.spec.model import SweepSpec
from sweeps.storage.events import Event, Progress, SweepStarted, TrialEnded, encode
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only, read
from sweeps.storage.trial_status import TrialStatus

TRIALS, SECONDS, REPORTS, METRICS = 200, 1.0, 5, 40
BAR, BAR_REPORT = 1.10, 0.010


def sleeping(config: dict[str, Any]) -> None:
    """A trial that only takes its time, and reports as a real one does."""
    from ray import tune

    name = config["job"]["trial"]
    for step in range(1, REPORTS + 1):
        time.sleep(SECONDS / REPORTS)
        tune.report({"event": encode(Progress(name, step, {f"m/{i}": i / 7 for i in range(METRICS)}))})
    end = TrialEnded(name, TrialStatus.DIVERGED, training_seconds=SECONDS, scoring_seconds=0.0)  # nothing to score
    tune.report({"event": encode(end)})


def by_a_sweep(folder: Path) -> tuple[float, list[float]]:
    """Wall seconds from the sweep's first event to its last, and the seconds of each report in the driver."""
    rates = [round(0.001 * (1 + i), 4) for i in range(TRIALS)]
    plan = make_plan(
        SweepSpec.model_validate(
            {
                "name": "sleeping",
                "recipe": {"steps": REPORTS},
                "axes": {"optimizer.lr": rates},
                "confirm": {"best": 0},
            }
        )
    )
    times: list[float] = []
    record = Recorder.record

    def timed(self: Recorder, line: Event) -> None:
        started = time.perf_counter()
        record(self, line)
        if isinstance(line, Progress):
            times.append(time.perf_counter() - started)

    sweeps.execution.ray_tune.run_in_worker = sleeping  # type: ignore[assignment]
    Recorder.record = timed  # type: ignore[method-assign]
    storage = Storage(folder)
    run(plan, storage, lambda _: None)
    Recorder.record = record  # type: ignore[method-assign]
    return _wall(read(storage.ledger("sleeping"))), times


def by_ray_tune() -> float:
    """The same trials by Ray Tune alone, started as ours is."""
    from ray import tune

    with local_ray() as cluster:
        started = time.monotonic()
        tune.Tuner(
            tune.with_resources(sleeping, {"CPU": 1}),
            param_space={"job": tune.grid_search([{"trial": str(i)} for i in range(TRIALS)])},
            run_config=tune.RunConfig(storage_path=cluster.scratch, verbose=0),
        ).fit()
        return time.monotonic() - started


def by_optuna() -> float:
    """As many trials by Optuna, on threads: without processes, the least there can be."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        for step in range(REPORTS):
            time.sleep(SECONDS / REPORTS)
            trial.report(0.0, step)
        return trial.suggest_float("lr", 0.001, 0.1)

    started = time.monotonic()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=TRIALS, n_jobs=cores())
    return time.monotonic() - started


def _wall(events: list[Event]) -> float:
    """Seconds from the last start to the last end."""
    when = {line.kind: line.moment for line in events}
    return (when["sweep_ended"] - when["sweep_started"]).total_seconds()


def packed(work: list[float], slots: int) -> float:
    """The wall time of jobs on slots, the longest first: the best packing within a few per cent."""
    free = [0.0] * slots
    for seconds in sorted(work, reverse=True):
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def of_ledger(path: Path) -> dict[str, Any]:
    """A sweep that ran in one go: its wall time against its trials' work."""
    events = read(path)
    work = [(end.training_seconds or 0.0) + (end.scoring_seconds or 0.0) for end in only(events, TrialEnded)]
    slots = only(events, SweepStarted)[0].max_concurrent or 1
    least, wall = packed(work, slots), _wall(events)
    seconds = {"wall": round(wall, 1), "best packing": round(least, 1)}
    return {"ratio": round(least / wall, 3), "bar": round(1 / BAR, 3), "details": {"slots": slots, "seconds": seconds}}


def of_engines() -> dict[str, Any]:
    """The three, one after another."""
    with tempfile.TemporaryDirectory() as folder:
        ours, times = by_a_sweep(Path(folder))
    seconds = {
        "ideal": TRIALS * SECONDS / cores(),
        "a sweep": round(ours, 1),
        "Ray Tune": round(by_ray_tune(), 1),
        "Optuna": round(by_optuna(), 1),
    }
    report = {"median": statistics.median(times), "worst of 100": statistics.quantiles(times, n=100)[-1]}
    details = {"slots": cores(), "seconds": seconds, "driver seconds per report": report, "bar per report": BAR_REPORT}
    return {"ratio": round(seconds["ideal"] / ours, 3), "bar": round(1 / BAR, 3), "details": details}


def main() -> None:
    """Measure and print."""
    found = of_ledger(Path(sys.argv[sys.argv.index("--ledger") + 1])) if "--ledger" in sys.argv else of_engines()
    result = {"name": "orchestration", "device": "cpu", **found}
    if "--json" in sys.argv:
        print(json.dumps(result))
        return
    for name, value in result["details"]["seconds"].items():
        print(f"{name:<16}{value:8.1f} s")
    for name, value in result["details"].get("driver seconds per report", {}).items():
        print(f"a report, {name:<12}{value * 1000:6.2f} ms")


if __name__ == "__main__":
    main()
