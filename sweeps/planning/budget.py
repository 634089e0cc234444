"""Compare what a sweep has spent, by its ledger, with its budget."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sweeps.planning.plan import Trial
from sweeps.spec.model import SweepSpec
from sweeps.storage.events import Event, SweepEnded, SweepStarted, TrialEnded, TrialStarted
from sweeps.storage.ledger import only


class Spending:
    """Hours while a sweep ran, and GPU-hours that its trials held, over all its starts.

    Nothing is spent between a kill and the next start. `events` may grow: each is taken in once.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self.events, self._taken = events, 0
        self._clock = self._gpu = self._gpus = 0.0
        self._began: datetime | None = None
        self._last: datetime | None = None
        self._held: dict[str, datetime] = {}  # since when a trial holds its GPUs

    def total(self) -> dict[str, float]:
        """The hours and GPU-hours up to the last event."""
        for at in range(self._taken, len(self.events)):
            self._take(self.events[at])
        self._taken = len(self.events)
        clock = self._clock + _hours(self._began, self._last)
        return {"hours": clock, "gpu_hours": self._gpu + self._gpus * self._held_hours()}

    def _held_hours(self) -> float:
        return sum(_hours(since, self._last) for since in self._held.values())

    def _take(self, event: Event) -> None:
        if event.origin is not None:
            return
        now = event.moment
        if isinstance(event, SweepStarted):
            self._clock += _hours(self._began, self._last)
            self._gpu += self._gpus * self._held_hours()
            self._held, self._began, self._gpus = {}, now, event.gpus_per_trial or 0.0
        self._last = now
        if isinstance(event, TrialStarted):
            self._held.setdefault(event.trial, now)
        elif isinstance(event, TrialEnded) and event.trial in self._held:
            self._gpu += self._gpus * _hours(self._held.pop(event.trial), now)
        elif isinstance(event, SweepEnded):
            self._clock, self._began = self._clock + _hours(self._began, now), None


def _hours(since: datetime | None, until: datetime | None) -> float:
    return (until - since).total_seconds() / 3600 if since and until else 0.0


def exhausted(spec: SweepSpec, spending: Spending) -> str | None:
    """The budget of time that is reached, as text, or None."""
    limits = {"hours": spec.budget.hours, "gpu_hours": spec.budget.gpu_hours}
    if not any(limits.values()):
        return None
    used = spending.total()
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
