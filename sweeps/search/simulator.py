"""Simulate a sweep in virtual time: the real trial scheduler on learning curves that were recorded or made up.

The result is a ledger in memory, within milliseconds.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from pipelines.scoring.rungs import rung_steps
from sweeps.planning.continuation import shorter_trials
from sweeps.planning.known_work import unfinished
from sweeps.planning.plan import Plan, Trial
from sweeps.planning.staged_scoring import rounds
from sweeps.search.trial_scheduler import NOTHING_ELSEWHERE, Candidates, TrialScheduler
from sweeps.storage.events import (
    CellScored,
    Event,
    Progress,
    RungScored,
    RungWidth,
    SweepEnded,
    SweepStarted,
    TrialEnded,
    TrialStarted,
)
from sweeps.storage.ledger import only
from sweeps.storage.trial_status import TrialStatus

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Curve:
    """What a training would report.

    rungs: by fraction of the training, a row for each width ("sigma_rel", "value", "left_out", "magnitude_drift").

    cells: what each cell of the plan scores ("value", "stderr", "left_out", "magnitude_drift"), in the plan's order.
    diverges_at: the step at which the training diverges, if it does.
    """

    cells: Sequence[Mapping[str, Any]]
    rungs: Mapping[float, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    step_seconds: float = 1.0
    rung_seconds: float = 0.0
    scoring_seconds: float = 0.0
    diverges_at: int | None = None


Curves = Callable[[Trial], Curve]


def simulate(
    plan: Plan,
    curves: Curves,
    slots: int = 1,
    past: Sequence[Event] = (),
    enough: Callable[[Event], bool] = lambda event: False,
) -> list[Event]:
    """The events of the sweep, run to its end or until an event is enough.

    Args:
        plan: Trials and cells; the trials that a search suggests are added to it.
        curves: The learning curve of each trial.
        slots: How many trials run at a time.
        past: The events of an earlier start, which this one continues.
        enough: Whether the simulation may end after this event.
    """
    events: list[Event] = list(past)
    order = itertools.count()
    clock = BEGINNING
    running: list[tuple[datetime, int, Event, Iterator[tuple[float, Event]]]] = []

    def record(event: Event) -> None:
        events.append(replace(event, time=clock.isoformat()))

    def advance(future: Iterator[tuple[float, Event]]) -> None:
        report = next(future, None)
        if report:
            heapq.heappush(running, (clock + timedelta(seconds=report[0]), next(order), report[1], future))

    def begun(trial: Trial) -> int:
        ended = {event.trial for event in only(events, TrialEnded) if event.outcome is TrialStatus.COMPLETED}
        return next((one.recipe.steps for one in shorter_trials(trial, plan) if one.id in ended), 0)

    record(SweepStarted("simulated", slots, 0.0))
    wanted = {planned.cell.with_samples(rounds(plan.spec)[0]).key for planned in plan.cells}
    candidates = Candidates(unfinished(plan, events), searching=True)
    scheduler = TrialScheduler(plan, events, candidates, record, NOTHING_ELSEWHERE)
    while True:
        while len(running) < slots and (trial := scheduler.next()):
            record(TrialStarted(trial.id))
            advance(_future(plan, trial, curves(trial), wanted, begun(trial)))
        if not running or enough(events[-1]):
            break
        clock, _, event, future = heapq.heappop(running)
        reason = scheduler.on_trial_result(event)
        record(replace(event, stop=reason) if isinstance(event, RungScored) else event)
        if reason and event.trial:
            record(TrialEnded(event.trial, TrialStatus.STOPPED, reason))
        else:
            advance(future)
    record(SweepEnded(TrialStatus.COMPLETED))
    return events


def _future(plan: Plan, trial: Trial, curve: Curve, wanted: set[str], begun: int) -> Iterator[tuple[float, Event]]:
    """The reports of a trial, each with the seconds since the one before. begun: the step that it continues from."""
    scheduler, steps, done = plan.spec.scheduler, trial.recipe.steps, begun
    fractions = scheduler.rungs if scheduler.stops else []
    for fraction, step in zip(fractions, rung_steps(steps, fractions), strict=True):
        if curve.diverges_at is not None and curve.diverges_at <= step:
            break
        seconds = (step - done) * curve.step_seconds + curve.rung_seconds
        widths = [RungWidth(**width) for width in curve.rungs[fraction]]
        yield seconds, RungScored(trial.id, step, fraction, scheduler.samples, widths)
        done = step
    last = steps if curve.diverges_at is None else curve.diverges_at
    seconds = (last - done) * curve.step_seconds
    if curve.diverges_at is not None:
        yield seconds, TrialEnded(trial.id, TrialStatus.DIVERGED, training_seconds=last * curve.step_seconds)
        return
    yield seconds, Progress(trial.id, steps, {})
    for planned, scores in zip(plan.cells, curve.cells, strict=True):
        if planned.cell.key in wanted:
            cell = CellScored(trial.id, steps, planned.cell.params, planned.cell.key, "simulated", **scores)
            yield curve.scoring_seconds, cell
    seconds = steps * curve.step_seconds
    yield 0.0, TrialEnded(trial.id, TrialStatus.COMPLETED, training_seconds=seconds, steps_trained=steps - begun)


def steps_taken(plan: Plan, events: Sequence[Event]) -> list[int]:
    """The training steps of all trials together, as they were after each event."""
    ends = {end.trial: end for end in only(events, TrialEnded)}
    whole = {trial.id: trial.recipe.steps for trial in plan.trials}
    reached = {trial: whole[trial] - end.steps_trained for trial, end in ends.items() if end.steps_trained is not None}
    total, taken = 0, []
    for event in events:
        if isinstance(event, (RungScored, Progress)):
            total += event.step - reached.get(event.trial, 0)
            reached[event.trial] = event.step
        taken.append(total)
    return taken
