"""How the reading commands grow with a sweep: `python benchmarks/growth.py [--json] [--keep FOLDER] [--trials N]`.

Three storages are made up through the functions that a driver uses: the shipped sweep (6 trials × 5 cells), 500 trials
× 20 cells × 200 reports, and 5,000 trials × 2 cells × 20 reports. Each command is a process of its own, the first time
untimed (it fills the cache of what follows from code and data). --keep: the storages' folder, which stays and is used
again. --trials: of the second storage, for a quick look.
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.yaml_file import write_yaml
from sweeps.planning.plan import Plan, make_plan
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import read_spec, sweep_file
from sweeps.storage.events import (
    CellScored,
    Event,
    Progress,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialStarted,
    encode,
)
from sweeps.storage.layout import Storage
from sweeps.storage.trial_status import TrialStatus

BLOCKS, FOLDS, REPEATS = 4, 10, 3
COMMANDS = ("rank", "best", "status", "plan", "report")
BARS = {"rank": 2.0, "best": 2.0, "status": 1.5, "plan": 4.0, "report": 8.0}  # seconds, at 10,000 cells
SHIPPED_BAR, MEMORY_BAR, PAGE_BAR = 0.6, 400.0, 1.5  # seconds (but for the report), MB, MB
BEGAN = datetime(2030, 1, 1, tzinfo=UTC)


def axes_of(trials: int, cells: int) -> dict[str, list[Any]]:
    """Axes of so many trials and cells."""
    modulations = ["scale+shift+gate", "scale+rotation+gate", "rotation+gate", "scale+gate", "shift+gate"]
    rates = [round(0.001 * (1 + at), 4) for at in range(trials // len(modulations))]
    return {
        "model.modulation": modulations,
        "optimizer.lr": rates,
        "ema.sigma_rel": [round(0.02 + 0.23 * at / cells, 4) for at in range(cells)],
    }


def events_of(plan: Plan, reports: int) -> Iterator[Event]:
    """What a sweep of this plan reports, a second apart; the values are made up."""
    draw = random.Random(0)
    at = 0

    def when() -> str:
        nonlocal at
        at += 1
        return (BEGAN + timedelta(seconds=at)).isoformat(timespec="microseconds")

    yield SweepStarted("made", 2, time=when(), gpus_per_trial=0.0)
    for trial in plan.trials:
        steps = trial.recipe.steps
        yield TrialStarted(trial.id, time=when())
        for number in range(reports):
            step = round(steps * (number + 1) / reports)
            yield Progress(trial.id, step, _metrics(draw, number / reports), time=when())
        level = draw.uniform(1.5, 6.0)
        for planned in plan.cells:
            value = level * (1 + 2 * abs(math.log(planned.cell.sigma_rel / 0.08)) ** 2) + draw.gauss(0, 0.05)
            yield CellScored(
                trial.id,
                steps,
                params=planned.cell.params,
                cell=planned.cell.key,
                metric="fd_digits_2k",
                value=value,
                stderr=0.08,
                left_out=[value + draw.gauss(0, 0.03) for _ in range(FOLDS)],
                magnitude_drift=abs(draw.gauss(0, 0.1)),
                noise_floor=0.213,
                drawn=2000,
                scoring_seconds=1.0,
                sampling_seconds=1e-4,
                provenance={"extractor": "digits", "reference": "0" * 64, "weights": "0" * 64, "nfe": 12},
                time=when(),
            )
        runtime, machine = {"device": "cpu", "threads": 1}, {"device": "cpu", "device_name": "made up"}
        works = {"training_work": 1e10, "scoring_work": 1e9, "training_seconds": 60.0, "scoring_seconds": 20.0}
        yield TrialEnded(
            trial.id, TrialStatus.COMPLETED, **works, runtime=runtime, machine=machine, time=when(), start_seconds=1.0
        )
    yield SweepEnded(TrialStatus.COMPLETED, time=when())


def _metrics(draw: random.Random, done: float) -> dict[str, float]:
    """What a training reports: as many numbers, under the same names."""
    metrics = {"loss": 1 - 0.7 * done + draw.gauss(0, 0.01), "images_per_second": 800.0, "lr": 0.01}
    metrics |= {"magnitude_drift": abs(draw.gauss(0, 0.05)), "magnitude/weights": 1.0, "energy_joules": 1000 * done}
    for block in range(BLOCKS):
        for place in ("attention/input", "attention/residual", "mlp/input", "mlp/residual"):
            metrics[f"magnitude/block{block}/{place}/mean"] = 1 + draw.gauss(0, 0.01)
            metrics[f"magnitude/block{block}/{place}/std"] = abs(draw.gauss(0, 0.02))
    return metrics


def make(folder: Path, spec: SweepSpec, reports: int) -> None:
    """Write the storage of a finished sweep, unless it is there."""
    storage, plan = Storage(folder), make_plan(spec)
    if storage.ledger(spec.name).exists():
        return
    storage.prepare()
    storage.sweep(spec.name).mkdir(exist_ok=True)
    write_yaml(storage.spec(spec.name), spec.model_dump())
    partial = storage.ledger(spec.name).with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for event in events_of(plan, reports):
            file.write(json.dumps(encode(event), allow_nan=False) + "\n")
    partial.replace(storage.ledger(spec.name))


@dataclass(frozen=True)
class Run:
    """What one command took."""

    seconds: float
    megabytes: float
    processor: float  # seconds, which other work on the machine changes less


def timed(arguments: Sequence[str]) -> Run:
    """Run a command as a process of its own."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "cli.main", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    megabytes = usage.ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1)
    return Run(time.perf_counter() - started, megabytes, usage.ru_utime + usage.ru_stime)


def measured(folder: Path, name: str, repeats: int) -> dict[str, Run]:
    """The median run of each command in a storage."""
    found: dict[str, Run] = {}
    for command in COMMANDS:
        subject = str(Storage(folder).spec(name)) if command == "plan" else name
        more = ["-o", str(folder / "report.html")] if command == "report" else []
        arguments = [command, subject, "--storage", str(folder), *more]
        runs = [timed(arguments) for _ in range(repeats + 1)][1:]
        found[command] = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    return found


def result(base: Path, trials: int) -> dict[str, Any]:
    """Make the storages and time the commands."""
    shapes = {"large": (trials, 20, 200), "wide": (10 * trials, 2, 20)}
    specs = {"conditioning": (read_spec(sweep_file("conditioning")), 20)} | {
        name: (SweepSpec.model_validate({"name": name, "axes": axes_of(many, cells)}), reports)
        for name, (many, cells, reports) in shapes.items()
    }
    found = {}
    for name, (spec, reports) in specs.items():
        make(base / name, spec, reports)
        found[name] = measured(base / name, name, REPEATS)
    seconds = {name: {command: round(run.seconds, 2) for command, run in runs.items()} for name, runs in found.items()}
    memory = {name: {command: round(run.megabytes) for command, run in runs.items()} for name, runs in found.items()}
    processor = {name: {command: round(r.processor, 2) for command, r in runs.items()} for name, runs in found.items()}
    pages = {name: round((base / name / "report.html").stat().st_size / 1e6, 2) for name in found}
    ratios = [BARS[command] / seconds[name][command] for name in shapes for command in COMMANDS]
    ratios += [SHIPPED_BAR / seconds["conditioning"][command] for command in COMMANDS if command != "report"]
    ratios += [MEMORY_BAR / value for name in shapes for value in memory[name].values()]
    ratios += [PAGE_BAR / pages[name] for name in shapes]
    details = {
        "trials": trials,
        "seconds": seconds,
        "processor seconds": processor,
        "megabytes": memory,
        "report, MB": pages,
        "bars": BARS,
    }
    return {"name": "growth", "device": "cpu", "ratio": round(min(ratios), 2), "bar": 1.0, "details": details}


def main() -> None:
    """Measure and print; the ratio is that of the figure that is farthest from its bar."""
    arguments = sys.argv[1:]
    trials = int(arguments[arguments.index("--trials") + 1]) if "--trials" in arguments else 500
    if "--keep" in arguments:
        found = result(Path(arguments[arguments.index("--keep") + 1]), trials)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = result(Path(folder), trials)
    if "--json" in arguments:
        print(json.dumps(found))
        return
    details = found["details"]
    for name, runs in details["seconds"].items():
        for command, value in runs.items():
            spent = details["processor seconds"][name][command]
            print(
                f"{name:<14}{command:<8}{value:7.2f} s, {spent:6.2f} s of the processor",
                f"{details['megabytes'][name][command]:6.0f} MB",
            )
        print(f"{name:<14}its report is {details['report, MB'][name]} MB")


if __name__ == "__main__":
    main()
