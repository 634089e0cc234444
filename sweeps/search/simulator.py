"""A sweep in virtual time: the chooser of a real one, learning curves for trainings; a ledger in memory comes out.

So a search or a scheduler is tried in milliseconds, on curves that were recorded or made up.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.scoring.rungs import rung_steps
from sweeps.planning.known_work import unfinished
from sweeps.planning.plan import Plan, Trial
from sweeps.planning.staged_scoring import rounds
from sweeps.search.chooser import Chooser
from sweeps.storage.ledger import Event, event

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Curve:
    """What a training would show. rungs: by share, a row a width ("sigma_rel", "value", "left_out", "magnitude_drift").

    cells: what each cell of the plan scores ("value", "stderr", "left_out", "magnitude_drift"), in the plan's order.
    diverges_at: the step at which it does, if it does.
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
    enough: Callable[[Event], bool] = lambda line: False,
) -> list[Event]:
    """The ledger of the sweep, run to its end with so many trials at a time, or until an event is enough.

    past: what an earlier start has left.
    """
    events: list[Event] = list(past)
    order = itertools.count()
    clock = BEGINNING
    running: list[tuple[datetime, int, Event, Iterator[tuple[float, Event]]]] = []

    def record(line: Event) -> None:
        events.append({**line, "time": clock.isoformat()})

    def go_on(future: Iterator[tuple[float, Event]]) -> None:
        ahead = next(future, None)
        if ahead:
            heapq.heappush(running, (clock + timedelta(seconds=ahead[0]), next(order), ahead[1], future))

    record(event("sweep_started", sweep="simulated", max_concurrent=slots, gpus_per_trial=0.0))
    wanted = {planned.cell.with_samples(rounds(plan.spec)[0]).key for planned in plan.cells}
    chooser = Chooser(plan, events, unfinished(plan, events), record, found=lambda trials: [])
    while True:
        while len(running) < slots and (trial := chooser.next()):
            record(event("trial_started", trial.id))
            go_on(_future(plan, trial, curves(trial), wanted))
        if not running or enough(events[-1]):
            break
        clock, _, line, future = heapq.heappop(running)
        reason = chooser.judge(line)
        record(line)
        if reason:
            record(event("trial_ended", line["trial"], outcome="stopped", reason=reason))
        else:
            go_on(future)
    record(event("sweep_ended", outcome="completed"))
    return events


def _future(plan: Plan, trial: Trial, curve: Curve, wanted: set[str]) -> Iterator[tuple[float, Event]]:
    """What a trial will report, each after so many seconds."""
    scheduler, steps, done = plan.spec.scheduler, trial.recipe.steps, 0
    shares = scheduler.rungs if scheduler.kind != "none" else []
    for share, step in zip(shares, rung_steps(steps, shares), strict=True):
        if curve.diverges_at is not None and curve.diverges_at <= step:
            break
        seconds = (step - done) * curve.step_seconds + curve.rung_seconds
        widths = [dict(width) for width in curve.rungs[share]]
        yield seconds, event("rung", trial.id, step, share=share, samples=scheduler.samples, widths=widths)
        done = step
    last = steps if curve.diverges_at is None else curve.diverges_at
    seconds = (last - done) * curve.step_seconds
    if curve.diverges_at is not None:
        yield seconds, event("trial_ended", trial.id, outcome="diverged", training_seconds=last * curve.step_seconds)
        return
    yield seconds, event("progress", trial.id, steps, metrics={})
    for planned, scores in zip(plan.cells, curve.cells, strict=True):
        if planned.cell.key in wanted:
            facts = {"params": planned.cell.params, "cell": planned.cell.key, "metric": "simulated", **scores}
            yield curve.scoring_seconds, event("cell", trial.id, steps, **facts)
    yield 0.0, event("trial_ended", trial.id, outcome="completed", training_seconds=steps * curve.step_seconds)


def steps_taken(plan: Plan, events: Sequence[Event]) -> list[int]:
    """The training steps of all trials together, as they were after each event."""
    reached: dict[str, int] = {}
    total, taken = 0, []
    for line in events:
        if line["event"] in ("rung", "progress"):
            total += line["step"] - reached.get(line["trial"], 0)
            reached[line["trial"]] = line["step"]
        taken.append(total)
    return taken
