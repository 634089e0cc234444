"""Find what is done of a plan and what remains, in the sweep's ledger and in those of other sweeps; and its cost."""

from collections.abc import Iterable, Iterator, Sequence

from pipelines.scoring.cell import SIGMA_RELS_AT_A_RUNG
from sweeps.planning.confirmation import confirming_samples, will_confirm
from sweeps.planning.continuation import steps_to_train
from sweeps.planning.other_sweeps import OtherSweeps
from sweeps.planning.plan import Estimate, Plan, Trial, Workload, estimate, scoring_work
from sweeps.planning.staged_scoring import missing_cells, planned_samples, rounds, seed_groups
from sweeps.storage.events import CellScored, Event, SweepStarted, TrialEnded
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only, read, trial_statuses


def known_events(storage: Storage, plan: Plan) -> list[Event]:
    """The sweep's own events, and those of its trials that other sweeps have finished."""
    own = read(storage.ledger(plan.spec.name))
    return own + OtherSweeps(storage, plan.spec.name).finished(unfinished(plan, own))


def untrained(plan: Plan, storage: Storage, events: list[Event]) -> list[Trial]:
    """The unfinished trials whose trained weights are not kept."""
    return [trial for trial in unfinished(plan, events) if not storage.is_trained(trial.id)]


def unfinished(plan: Plan, events: list[Event]) -> list[Trial]:
    """The trials that need a worker: those not trained to the end, and those with cells to score."""
    statuses, missing = trial_statuses(events), missing_cells(plan, events)
    return [trial for trial in plan.trials if not statuses[trial.id].is_ended or missing.get(trial.id)]


def timed(storage: Storage) -> list[TrialEnded]:
    """The end of every trial that was trained in this storage, with its times."""
    return _timed(_all_events(storage))


def cost_of(
    plan: Plan, storage: Storage, events: list[Event], slots: int = 1, measured: list[TrialEnded] | None = None
) -> Estimate:
    """Estimate the cost of what remains of a plan.

    A search that learns counts with all its trials, a scheduler as if it stopped none.

    Args:
        plan: Trials and cells.
        storage: Its timed trials give the pace.
        events: The sweep's events.
        slots: How many trials run at a time, where no sweep of this storage has recorded it.
        measured: Timed trials to use in place of the storage's.
    """
    plan = plan.expected
    known = list(_all_events(storage, plan.spec.name, events))
    ran = [event.max_concurrent for event in only(known, SweepStarted) if event.max_concurrent]
    ended = measured or _timed(known)
    on_gpu = any(event.runtime.get("device") == "cuda" for event in ended)
    asked = plan.spec.resources.gpus_per_trial
    gpus = (1.0 if asked == "auto" else asked) if on_gpu else 0.0
    missing = missing_cells(plan, events)
    cells = [(trial, missing.get(trial.id, [])) for trial in unfinished(plan, events)]
    train = untrained(plan, storage, events)
    steps = steps_to_train(Plan(plan.spec, train, plan.cells), {cell.step for cell in only(known, CellScored)}, storage)
    more = _later_rounds(plan, train) + _rungs(plan, train) + _confirming(plan, train)
    work = Workload(train, cells, steps, more, _kept(plan))
    return estimate(ended, work, concurrent=ran[-1] if ran else slots, gpus=gpus)


def _all_events(storage: Storage, known: str = "", events: Sequence[Event] = ()) -> Iterator[Event]:
    """The events of every sweep; those of the known one are not read again."""
    for name in storage.sweep_names():
        yield from events if events and name == known else read(storage.ledger(name))


def _timed(events: Iterable[Event]) -> list[TrialEnded]:
    return [event for event in only(events, TrialEnded) if event.origin is None]


def _kept(plan: Plan) -> int | None:
    """How many trials keep their weights; None means all."""
    best = plan.spec.retention.best
    if best is None or len(rounds(plan.spec)) > 1:
        return None
    to_confirm = plan.spec.confirm.best if will_confirm(plan) else 0
    return max(best, to_confirm) * max(map(len, seed_groups(plan)))


def _rungs(plan: Plan, train: list[Trial]) -> float:
    """The scoring work at the rungs, as if no trial were stopped."""
    scheduler = plan.spec.scheduler
    if not scheduler.stops:
        return 0.0
    cell = plan.cells[0].cell.with_samples(scheduler.samples)
    widths = min(SIGMA_RELS_AT_A_RUNG, len({planned.cell.sigma_rel for planned in plan.cells}))
    return len(scheduler.rungs) * widths * sum(scoring_work(cell, trial.parameters) for trial in train)


def _confirming(plan: Plan, train: list[Trial]) -> float:
    """The scoring work of the first cells on fresh noise, where trainings are still to come."""
    if not train or not plan.trials:
        return 0.0
    each = sum(scoring_work(plan.cells[0].cell, trial.parameters) for trial in train) / len(train)
    return confirming_samples(plan) / plan.spec.evaluation.samples * each


def _later_rounds(plan: Plan, train: list[Trial]) -> float:
    """The scoring work of untrained trials in the rounds after the first."""
    first = rounds(plan.spec)[0]
    later = planned_samples(plan) - first * len(plan.trials) * len(plan.cells)
    if not later or not train:
        return 0.0
    each = later / (len(plan.trials) * len(plan.cells) * plan.spec.evaluation.samples)
    return each * sum(scoring_work(planned.cell, trial.parameters) for trial in train for planned in plan.cells)
