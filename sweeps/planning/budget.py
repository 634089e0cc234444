"""What a sweep has spent, told by its ledger, against what it may."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sweeps.planning.plan import Trial
from sweeps.spec.model import SweepSpec
from sweeps.storage.ledger import Event


def spent(events: Iterable[Event]) -> dict[str, float]:
    """Hours of the clock while the sweep ran, and of GPUs that its trials held.

    Over all its starts; between a kill and the next start nothing is spent.
    """
    clock = gpu = gpus = 0.0
    began, last = None, None
    held: dict[str, datetime] = {}  # since when a trial holds its GPUs
    for line in events:
        if "from" in line:
            continue
        now = datetime.fromisoformat(line["time"])
        if line["event"] == "sweep_started":
            clock += _hours(began, last)
            gpu += gpus * sum(_hours(since, last) for since in held.values())
            held, began, gpus = {}, now, float(line.get("gpus_per_trial") or 0)
        last = now
        if line["event"] == "trial_started":
            held.setdefault(line["trial"], now)
        elif line["event"] == "trial_ended" and line["trial"] in held:
            gpu += gpus * _hours(held.pop(line["trial"]), now)
        elif line["event"] == "sweep_ended":
            clock, began = clock + _hours(began, now), None
    clock += _hours(began, last)
    gpu += gpus * sum(_hours(since, last) for since in held.values())
    return {"hours": clock, "gpu_hours": gpu}


def _hours(since: datetime | None, until: datetime | None) -> float:
    return (until - since).total_seconds() / 3600 if since and until else 0.0


def exhausted(spec: SweepSpec, events: Iterable[Event]) -> str | None:
    """Which budget of time is reached, or None."""
    limits = {"hours": spec.budget.hours, "gpu_hours": spec.budget.gpu_hours}
    if not any(limits.values()):
        return None
    used = spent(events)
    reached = (
        f"budget.{name}: {limit:g} is reached" for name, limit in limits.items() if limit and used[name] >= limit
    )
    return next(reached, None)


def affordable(spec: SweepSpec, events: Iterable[Event], todo: Sequence[Trial]) -> tuple[list[Trial], str | None]:
    """The trials that may still be trained, those that have begun in any case; and the budget that forbids others."""
    limit = spec.budget.trials
    if limit is None:
        return list(todo), None
    begun = {line["trial"] for line in events if line["event"] == "trial_started" and "from" not in line}
    new = [trial for trial in todo if trial.id not in begun][: max(0, limit - len(begun))]
    allowed = [trial for trial in todo if trial.id in begun or trial in new]
    return allowed, f"budget.trials: {limit} is reached" if len(allowed) < len(todo) else None
