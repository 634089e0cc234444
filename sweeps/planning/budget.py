"""Compare what a sweep has spent, by its ledger, with its budget."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sweeps.planning.plan import Trial
from sweeps.spec.model import SweepSpec
from sweeps.storage.events import Event, SweepEnded, SweepStarted, TrialEnded, TrialStarted
from sweeps.storage.ledger import only


def spent(events: Iterable[Event]) -> dict[str, float]:
    """Hours while the sweep ran, and GPU-hours that its trials held, over all its starts.

    Nothing is spent between a kill and the next start.
    """
    clock = gpu = gpus = 0.0
    began, last = None, None
    held: dict[str, datetime] = {}  # since when a trial holds its GPUs
    for event in events:
        if event.origin is not None:
            continue
        now = event.moment
        if isinstance(event, SweepStarted):
            clock += _hours(began, last)
            gpu += gpus * sum(_hours(since, last) for since in held.values())
            held, began, gpus = {}, now, event.gpus_per_trial or 0.0
        last = now
        if isinstance(event, TrialStarted):
            held.setdefault(event.trial, now)
        elif isinstance(event, TrialEnded) and event.trial in held:
            gpu += gpus * _hours(held.pop(event.trial), now)
        elif isinstance(event, SweepEnded):
            clock, began = clock + _hours(began, now), None
    clock += _hours(began, last)
    gpu += gpus * sum(_hours(since, last) for since in held.values())
    return {"hours": clock, "gpu_hours": gpu}


def _hours(since: datetime | None, until: datetime | None) -> float:
    return (until - since).total_seconds() / 3600 if since and until else 0.0


def exhausted(spec: SweepSpec, events: Iterable[Event]) -> str | None:
    """The budget of time that is reached, as text, or None."""
    limits = {"hours": spec.budget.hours, "gpu_hours": spec.budget.gpu_hours}
    if not any(limits.values()):
        return None
    used = spent(events)
    reached = (
        f"budget.{name}: {limit:g} is reached" for name, limit in limits.items() if limit and used[name] >= limit
    )
    return next(reached, None)


def affordable(spec: SweepSpec, events: Iterable[Event], todo: Sequence[Trial]) -> tuple[list[Trial], str | None]:
    """The trials that the budget lets run (always those that have begun), and the budget that forbids others."""
    limit = spec.budget.trials
    if limit is None:
        return list(todo), None
    begun = {event.trial for event in only(events, TrialStarted) if event.origin is None}
    new = [trial for trial in todo if trial.id not in begun][: max(0, limit - len(begun))]
    allowed = [trial for trial in todo if trial.id in begun or trial in new]
    return allowed, f"budget.trials: {limit} is reached" if len(allowed) < len(todo) else None
