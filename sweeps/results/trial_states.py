"""The state of each trial of a sweep, from its events."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.scoring.metrics.registry import METRICS, Metric
from sweeps.planning.cell_metrics import CellRecord
from sweeps.planning.plan import Plan, Trial
from sweeps.planning.staged_scoring import keys
from sweeps.storage.events import CellScored, Event, Progress, TrialEnded, TrialStarted
from sweeps.storage.trial_status import TrialStatus


@dataclass
class TrialState:
    """The state of one trial after the events so far."""

    trial: Trial
    objective: Metric  # what `best` is of
    cells: dict[str, tuple[int, bool]]  # each possible result's key: (position of its cell in the plan, is it in full)
    status: TrialStatus = TrialStatus.PENDING
    step: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)  # positions of the cells that have a result, in full or not
    best: float | None = None
    reason: str | None = None

    @property
    def scored(self) -> int:
        """How many cells have a result."""
        return len(self.known)

    @property
    def planned(self) -> int:
        """How many cells there are."""
        return len({at for at, _ in self.cells.values()})

    @property
    def seconds_left(self) -> float | None:
        """How long the training takes at the speed last reported; None where it is not running."""
        rate = self.metrics.get("images_per_second")
        left = (self.trial.recipe.steps - self.step) * self.trial.recipe.batch
        return round(left / rate, 1) if rate and left and self.status is TrialStatus.RUNNING else None

    def as_dict(self) -> dict[str, Any]:
        """As `status --json` shows it."""
        return {
            "trial": self.trial.id,
            "params": self.trial.params,
            "status": self.status,
            "step": self.step,
            "steps": self.trial.recipe.steps,
            "loss": self.metrics.get("loss"),
            "images_per_second": self.metrics.get("images_per_second"),
            "magnitude_drift": self.metrics.get("magnitude_drift"),
            "seconds_left": self.seconds_left,
            "scored": self.scored,
            "cells": self.planned,
            "best": self.best,
            "reason": self.reason,
        }


def new_states(plan: Plan) -> dict[str, TrialState]:
    """The states of all trials of the plan before the first event."""
    return states_of(plan, plan.trials)


def states_of(plan: Plan, trials: Iterable[Trial]) -> dict[str, TrialState]:
    """The states of some trials before the first event."""
    full = plan.spec.evaluation.samples
    cells = {key: (at, samples == full) for at, samples, key in keys(plan)}
    objective = METRICS[plan.spec.metrics[0]]
    return {trial.id: TrialState(trial, objective, cells) for trial in trials}


def fold(states: dict[str, TrialState], event: Event) -> None:
    """Update the states with one event."""
    state = states.get(event.trial or "")
    if state is None:
        return
    match event:
        case TrialStarted():
            state.status, state.reason = TrialStatus.RUNNING, None
        case Progress():
            state.step, state.metrics = max(state.step, event.step), event.metrics
        case CellScored() if event.key in state.cells:
            at, in_full = state.cells[event.key]
            state.known.add(at)
            value = state.objective.of(CellRecord(state.trial, event, None)) if in_full else None
            if value is not None:
                state.best = value if state.best is None else min(state.best, value, key=state.objective.cost)
        case TrialEnded():
            state.status, state.reason = event.outcome, event.reason


def trial_states(plan: Plan, events: list[Event], alive: bool) -> dict[str, TrialState]:
    """The state of every trial; without a living driver, a running trial counts as interrupted."""
    states = new_states(plan)
    for event in events:
        fold(states, event)
    for state in states.values():
        if state.status is TrialStatus.RUNNING and not alive:
            state.status = TrialStatus.INTERRUPTED
    return states
