"""Real Ray, real training, real MLflow: a very small sweep from its first start to its reuse."""

import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from mpdit.errors import InputError
from pipelines.yaml_file import write_yaml
from sweeps.execution.driver import RunOptions, SweepEnd, run
from sweeps.execution.trial_job import TrialJob
from sweeps.execution.worker import run_trial
from sweeps.planning.known_work import unfinished
from sweeps.planning.plan import Plan
from sweeps.results.ranking import rank
from sweeps.storage.events import CellScored, Event, Progress, RungScored, Suggested, TrialEnded
from sweeps.storage.layout import Storage, locked
from sweeps.storage.ledger import only, read
from tests.sweeps.conftest import plan_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's and MLflow's own

SMALL: dict[str, Any] = {
    "recipe": {"steps": 8, "batch": 16, "runtime": {"device": "cpu"}},
    "evaluation": {"samples": 40, "steps": 3},
}
AXES = {"model.modulation": ["scale", "rotation"], "ema.sigma_rel": [0.05, 0.1]}


def small(axes: dict[str, list[Any]] = AXES, **fields: Any) -> Plan:
    return plan_of(axes, **{**SMALL, **fields})


def ran(plan: Plan, storage: Storage) -> tuple[SweepEnd, list[Event]]:
    """Run a sweep in one worker: another takes seconds to start."""
    events: list[Event] = []
    return run(plan, storage, events.append, RunOptions(max_concurrent=1)), events


@pytest.mark.slow
def test_a_sweep_is_run_extended_and_reused(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    end, events = ran(small(), storage)
    assert end == SweepEnd("completed", worked=2)
    assert events == read(storage.ledger("made"))
    kinds = Counter(line.kind for line in events)
    assert kinds == {
        "sweep_started": 1,
        "trial_started": 2,
        "progress": 2 * 5,  # at the steps 0, 1, 2, 4 and 8
        "growth": 2 * 2,  # before the first step and after the last
        "cell": 4,
        "trial_ended": 2,
        "sweep_ended": 1,
    }
    first = {tuple(row.params.values()): row.value for row in rank(small(), events)}
    assert all(value is not None for value in first.values())

    # again: finishes at once and writes nothing
    before = storage.ledger("made").read_bytes()
    assert ran(small(), storage) == (SweepEnd("completed", worked=0), [])
    assert storage.ledger("made").read_bytes() == before

    # a new value of a training axis and a new width: trains and scores only what is new
    wider = small({"model.modulation": ["scale", "rotation", "gate"], "ema.sigma_rel": [0.05, 0.1, 0.2]})
    end, events = ran(wider, storage)
    new = wider.trials[2].id
    assert end.outcome == "completed"
    assert {line.trial for line in events if isinstance(line, Progress)} == {new}
    scored = Counter(line.trial for line in events if isinstance(line, CellScored))
    assert scored == {wider.trials[0].id: 1, wider.trials[1].id: 1, new: 3}
    second = {tuple(row.params.values()): row.value for row in rank(wider, read(storage.ledger("made")))}
    assert second.items() >= first.items()

    # another tracking store: nothing is trained, and the store shows the whole sweep
    elsewhere = {"uri": f"sqlite:///{tmp_path / 'elsewhere.db'}"}
    moved = plan_of(wider.spec.axes, **SMALL, tracking=elsewhere)
    assert ran(moved, storage)[0] == SweepEnd("completed", worked=0)
    client = MlflowClient(tracking_uri=elsewhere["uri"])
    experiment = client.get_experiment_by_name("made")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1 + 3 + 9

    # another sweep over the same training: nothing is trained
    other = small(name="other")
    end, events = ran(other, storage)
    assert end == SweepEnd("completed", worked=0)
    copied = [line for line in read(storage.ledger("other")) if isinstance(line, CellScored)]
    assert {line.origin for line in copied} == {"made"}
    assert not unfinished(other, read(storage.ledger("other")))


@pytest.mark.slow
def test_a_warm_worker_gives_a_fresh_one_s_results(tmp_path: Path) -> None:
    """Four trials of two shapes, one after another in one worker: each as it is when nothing came before."""
    plan = small({"model.modulation": ["scale", "gate"], "model.patch": [2, 1], "ema.sigma_rel": [0.1]})
    workers: set[int] = set()
    warm: dict[str, Any] = {}

    def look(line: Event) -> None:
        if isinstance(line, CellScored):
            warm[line.trial] = (line.value, line.left_out)
            below = psutil.Process().children(recursive=True)
            workers.update(process.pid for process in below if "ImplicitFunc" in " ".join(process.cmdline()))

    run(plan, Storage(tmp_path / "warm"), look, RunOptions(max_concurrent=1))
    assert len(workers) == 1
    for trial in plan.trials:
        fresh: list[Event] = []
        cells = [planned.cell for planned in plan.cells]
        run_trial(
            TrialJob(trial=trial.id, recipe=trial.recipe, folder=tmp_path / trial.id, cells=cells, threads=1),
            fresh.append,
        )
        assert [(line.value, line.left_out) for line in fresh if isinstance(line, CellScored)] == [warm[trial.id]]


@pytest.mark.slow
def test_a_trial_that_diverges_is_an_outcome_and_one_that_fails_an_error(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    wild = small({"objective.p_mean": [0.0, 300.0], "ema.sigma_rel": [0.1]})
    (storage.trial(wild.trials[0].id) / "ema").mkdir(parents=True)
    (
        storage.trial(wild.trials[0].id) / "ema" / "step-00000001.safetensors"
    ).mkdir()  # its first snapshot cannot be written
    end, events = ran(wild, storage)
    ended = {line.trial: line for line in events if isinstance(line, TrialEnded)}
    assert end.outcome == "failed"
    assert ended[wild.trials[1].id].outcome == "diverged"
    assert ended[wild.trials[0].id].outcome == "failed"
    assert "IsADirectoryError" in str(ended[wild.trials[0].id].reason)
    assert "Traceback" in (storage.trial(wild.trials[0].id) / "log.txt").read_text()
    assert [row.status for row in rank(wild, events)] == ["failed", "diverged"]


def test_another_recipe_under_the_same_name_is_refused(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.prepare()
    storage.sweep("made").mkdir()
    write_yaml(storage.sweep("made") / "sweep.yaml", small().spec.model_dump())
    changed = small(recipe={**SMALL["recipe"], "batch": 32})
    with pytest.raises(InputError, match=r"recipe\.batch was 16, is 32"):
        ran(changed, storage)
    with pytest.raises(InputError, match=r"evaluation\.samples was 40, is 50"):
        ran(small(evaluation={"samples": 50, "steps": 3}), storage)


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.prepare()
    with locked(storage.lock("made"), "sweep made"), pytest.raises(InputError, match="is being run by another process"):
        ran(small(), storage)


def test_more_cores_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cpus_per_trial: 4000"):
        ran(small(resources={"cpus_per_trial": 4_000}), Storage(tmp_path))


def test_a_batch_that_the_workers_cannot_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a batch of 16 cannot be shared by 3 workers"):
        ran(small(resources={"workers_per_trial": 3}), Storage(tmp_path))
    assert not Storage(tmp_path).ledger("made").exists()


@pytest.mark.slow
def test_a_search_learns_stops_trials_at_a_rung_and_keeps_to_its_budget(tmp_path: Path) -> None:
    """One Ray for all: TPE suggests, the paired rule judges, a budget cuts and a larger one goes on."""
    storage = Storage(tmp_path)

    def plan(**fields: Any) -> Plan:
        search = {"algorithm": "tpe", "trials": 4, "first": [{"optimizer.lr": 0.02}]}
        scheduler = {"kind": "asha", "rungs": [0.5], "reduction": 4, "samples": 40}
        axes = {"optimizer.lr": {"log_uniform": [0.001, 0.1]}, "ema.sigma_rel": [0.1]}
        return small(axes, search=search, scheduler=scheduler, **fields)

    spent = plan(budget={"hours": 1e-9})
    end, events = ran(spent, storage)
    assert end.outcome == "completed"
    assert end.cut == "budget.hours: 1e-09 is reached"
    assert not [line for line in events if isinstance(line, CellScored)]

    end, events = ran(plan(), storage)
    assert (end.outcome, end.cut) == ("completed", None)
    whole = read(storage.ledger("made"))
    assert len([line for line in whole if isinstance(line, Suggested)]) == 3  # the first point was given
    ends = {line.trial: line.outcome for line in whole if isinstance(line, TrialEnded)}
    assert Counter(ends.values())["completed"] >= 1
    assert set(ends.values()) <= {"completed", "stopped"}
    rungs = [line for line in whole if isinstance(line, RungScored)]
    assert {line.trial for line in rungs} == set(ends)
    assert {line.step for line in rungs} == {4}
    stopped = {line.trial: line for line in only(whole, TrialEnded) if line.outcome == "stopped"}
    assert all("others are better at this rung" in str(line.reason) for line in stopped.values())
    assert ran(plan(), storage) == (SweepEnd("completed", worked=0), [])


@pytest.mark.slow
def test_the_first_cells_are_scored_again_on_fresh_noise_by_the_same_start(tmp_path: Path) -> None:
    """Nothing is trained for it, in the same worker; the next start has nothing to do. Ray starts what is needed."""
    storage, plan = Storage(tmp_path), small(confirm={"best": 2})
    events, processes = list[Event](), dict[int, str]()

    def look(event: Event) -> None:
        events.append(event)
        if isinstance(event, CellScored):
            for one in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it has ended
                    processes[one.pid] = " ".join(one.cmdline())

    end = run(plan, storage, look, RunOptions(max_concurrent=1))
    assert end == SweepEnd("completed", worked=2)
    assert sum("ImplicitFunc" in line for line in processes.values()) == 1
    assert not [line for line in processes.values() if re.search(r"IDLE|dashboard\.py|monitor\.py", line)]
    cells = only(events, CellScored)
    assert Counter(cell.params["evaluation.seed"] for cell in cells) == {0: 4, 1: 2}
    assert len(only(events, Progress)) == 10
    rows = rank(plan, events)
    assert [row.confirmed is not None for row in rows] == [True, True, False, False]
    assert ran(plan, storage) == (SweepEnd("completed", worked=0), [])
