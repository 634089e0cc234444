"""Whether a trial that the storage has is taken as it is, where other code may have trained it."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from mpdit.errors import input_error, nearest
from pipelines.training.training_folder import read_code
from pipelines.training_code import kind_modules, training_code
from sweeps.planning.plan import Plan, Trial
from sweeps.storage.events import Event, TrialEnded, TrialRetried
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only


class Reuse(StrEnum):
    """What is reused: whatever the storage has, what today's code has trained, or nothing."""

    ANY = "any"
    SAME_CODE = "same-code"
    NONE = "none"

    @classmethod
    def _missing_(cls, value: object) -> "Reuse":
        near, allowed = nearest(value, cls), ", ".join(cls)
        raise input_error(f"reuse cannot be {value!r}", given=value, nearest=near, allowed=allowed)

    def takes(self, trial: Trial, code: str | None) -> bool:
        """Whether a trial that this code has trained (None: not known) is reused."""
        return self is Reuse.ANY or (self is Reuse.SAME_CODE and code == training_code(trial.recipe))


def recorded_codes(events: Iterable[Event]) -> dict[str, str | None]:
    """The code of each trial that has ended; None where an earlier version of mpdit did not record it."""
    codes: dict[str, str | None] = {}
    for end in only(events, TrialEnded):
        codes[end.trial] = end.code or codes.get(end.trial)
    return codes


def kinds_of_trials(plan: Plan, codes: Mapping[str, str | None]) -> dict[str, frozenset[str]]:
    """The modules of the kinds that each trial uses, where there are different codes; else all are taken as alike."""
    is_one = len({codes.get(trial.id) for trial in plan.trials}) < 2
    return {trial.id: frozenset(() if is_one else kind_modules(trial.recipe)) for trial in plan.trials}


def other_code(plan: Plan, events: Iterable[Event]) -> list[str]:
    """The trials of a plan whose code is known and is not today's."""
    codes = recorded_codes(events)
    return [t.id for t in plan.trials if (code := codes.get(t.id)) and code != training_code(t.recipe)]


def reuse_warning(plan: Plan, events: Iterable[Event]) -> str | None:
    """Say that other code than today's has trained some of what is reused; None where that is not so."""
    events = list(events)
    trials = other_code(plan, events)
    if not trials:
        return None
    shown = ", ".join(trials[:3]) + (", …" if len(trials) > 3 else "")
    return (
        f"other code than today's has trained {len(trials)} of the trials that are reused: {shown}\n"
        f"  mpdit sweep {plan.spec.name} --reuse same-code trains them again"
    )


def fresh_starts(plan: Plan, storage: Storage, events: Iterable[Event], reuse: Reuse) -> list[TrialRetried]:
    """Ask for a fresh start of each trial that the storage has, finished or begun, and that is not to be reused."""
    if reuse is Reuse.ANY:
        return []
    events = list(events)
    codes, told = recorded_codes(events), {event.trial for event in events}
    here = set(storage.trial_names())
    return [
        TrialRetried(trial.id, afresh=True)
        for trial in plan.trials
        if (trial.id in told or trial.id in here) and not reuse.takes(trial, _code(storage, trial.id, codes))
    ]


def _code(storage: Storage, trial: str, codes: Mapping[str, str | None]) -> str | None:
    if trial in codes:
        return codes[trial]
    storage.bring(trial, small=True)
    return read_code(storage.trial(trial))
