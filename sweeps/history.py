"""What a storage already knows of a plan: the sweep's own ledger, and finished trials of other sweeps."""

from collections.abc import Iterable

from sweeps.ledger import Event, read, trial_statuses
from sweeps.plan import Estimate, Plan, PlannedCell, Trial, estimate
from sweeps.storage import Storage

FINAL = ("completed", "diverged")  # outcomes that the same recipe would reach again


def finished_elsewhere(storage: Storage, name: str, trials: Iterable[Trial]) -> list[Event]:
    """What other sweeps' ledgers tell of these trials where they were trained to the end, marked with their origin."""
    wanted = {trial.id for trial in trials}
    found: list[Event] = []
    for other in storage.sweep_names():
        if other == name or not wanted:
            continue
        events = read(storage.ledger(other))
        statuses = trial_statuses(events)
        here = {trial for trial in wanted if statuses[trial] in FINAL}
        kinds = ("trial_started", "progress", "cell", "trial_ended")
        found += [{**line, "from": other} for line in events if line["trial"] in here and line["event"] in kinds]
        wanted -= here
    return found


def known_events(storage: Storage, plan: Plan) -> list[Event]:
    """The sweep's own events, and those of its trials that other sweeps have finished."""
    path = storage.ledger(plan.spec.name)
    own = read(path) if path.exists() else []
    return own + finished_elsewhere(storage, plan.spec.name, unfinished(plan, own))


def missing_cells(plan: Plan, events: list[Event], trial: Trial) -> list[PlannedCell]:
    """The cells of a trial that have no result yet; none for one that is known to diverge."""
    if trial_statuses(events)[trial.id] == "diverged":
        return []
    scored = {line["cell"] for line in events if line["event"] == "cell" and line["trial"] == trial.id}
    return [planned for planned in plan.cells if planned.cell.key not in scored]


def untrained(plan: Plan, events: list[Event]) -> list[Trial]:
    """The trials that have not been trained to their end."""
    statuses = trial_statuses(events)
    trained = {line["trial"] for line in events if line["event"] == "cell"}
    return [trial for trial in plan.trials if statuses[trial.id] not in FINAL and trial.id not in trained]


def unfinished(plan: Plan, events: list[Event]) -> list[Trial]:
    """The trials that need a worker: not trained to the end, or with cells to score."""
    statuses = trial_statuses(events)
    return [trial for trial in plan.trials if statuses[trial.id] not in FINAL or missing_cells(plan, events, trial)]


def timed(storage: Storage) -> list[Event]:
    """The end of every trial that was trained here, with its times."""
    everything = [line for name in storage.sweep_names() for line in read(storage.ledger(name))]
    return [line for line in everything if line["event"] == "trial_ended" and "from" not in line]


def cost_of(plan: Plan, storage: Storage, events: list[Event]) -> Estimate:
    """What is still to do will cost, judged by every trial that has been timed in this storage."""
    everything = [line for name in storage.sweep_names() for line in read(storage.ledger(name))]
    ended = timed(storage)
    slots = [
        line["max_concurrent"] for line in everything if line["event"] == "sweep_started" and line["max_concurrent"]
    ]
    on_gpu = any(line.get("runtime", {}).get("device") == "cuda" for line in ended)
    cells = [(trial, missing_cells(plan, events, trial)) for trial in unfinished(plan, events)]
    return estimate(ended, untrained(plan, events), cells, slots[-1] if slots else 1, 1.0 if on_gpu else 0.0)
