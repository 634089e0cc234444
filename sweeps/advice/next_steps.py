"""What the next hours are best spent on: advice with what it costs, and a sweep that follows it until it is settled."""

from collections.abc import Iterable
from dataclasses import replace

from sweeps.advice.advise import advise
from sweeps.advice.finalists import SUFFIX
from sweeps.advice.registry import Advice, Situation
from sweeps.planning.budget import Spending
from sweeps.planning.known_work import cost_of, known_events
from sweeps.planning.plan import Plan
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import read

GOES_ON = ("unfinished", "edge", "seeds")  # advice that a sweep can follow under its own name, or its finalists'


def priced(situation: Situation, storage: Storage) -> list[Advice]:
    """The advice for a sweep, each with the seconds that its command is expected to take in this storage."""
    return [replace(advice, cost_seconds=_cost(advice, situation, storage)) for advice in advise(situation)]


def _cost(advice: Advice, situation: Situation, storage: Storage) -> float | None:
    changed = situation.changed(advice.settings) if advice.settings else None
    return None if changed is None else expected_seconds(changed, storage)


def expected_seconds(plan: Plan, storage: Storage) -> float | None:
    """The seconds that what remains of a plan is expected to take; None where nothing was timed in this storage."""
    hours = cost_of(plan, storage, known_events(storage, plan)).hours
    return None if hours is None else round(hours * 3600, 1)


def within(advice: list[Advice], seconds: float | None) -> list[Advice]:
    """The advice that fits the time; what was not priced is kept."""
    return [one for one in advice if seconds is None or one.cost_seconds is None or one.cost_seconds <= seconds]


def first_to_follow(advice: Iterable[Advice], situation: Situation) -> tuple[Advice, Plan] | None:
    """The first advice that the sweep can follow by itself, and the plan that follows it; None where there is none."""
    for one in advice:
        if one.kind in GOES_ON and one.settings and (changed := situation.changed(one.settings)):
            return one, changed
    return None


def why_it_ends(advice: Iterable[Advice]) -> str:
    """One line for a sweep that follows no more of this advice within its hours."""
    for one in advice:
        if one.kind in GOES_ON and one.settings:
            return f"not settled within the hours; it would go on with {one.kind}: {one.text}"
        if one.kind == "unsettled":
            return one.text
    return "nothing is left that is worth it"


def seconds_left(storage: Storage, hours: float, plan: Plan) -> float:
    """How much of the hours the sweep has left, over all its starts, and that of its finalists."""
    names = {plan.spec.name, plan.spec.name.removesuffix(SUFFIX), plan.spec.name.removesuffix(SUFFIX) + SUFFIX}
    return 3600 * (hours - sum(Spending(read(storage.ledger(name))).total()["hours"] for name in names))
