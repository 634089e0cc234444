"""What a ledger says was spent."""

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from sweeps.planning.budget import Spending, affordable, exhausted
from sweeps.storage.events import Event, Progress, SweepEnded, SweepStarted, TrialEnded, TrialStarted
from sweeps.storage.trial_status import TrialStatus
from tests.sweeps.conftest import plan_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours: float, event: Event) -> Event:
    return replace(event, time=(START + timedelta(hours=hours)).isoformat())


LEDGER = [
    at(0, SweepStarted("s", gpus_per_trial=0.5)),
    at(0, TrialStarted("a")),
    at(1, TrialStarted("b")),
    at(2, TrialEnded("a", TrialStatus.COMPLETED)),
    at(3, Progress("b", 1, {})),  # then the driver was killed, and away for seven hours
    at(10, SweepStarted("s", gpus_per_trial=1.0)),
    at(10, TrialStarted("b")),
    at(11, TrialEnded("b", TrialStatus.COMPLETED)),
    at(11, SweepEnded(TrialStatus.COMPLETED)),
    at(50, TrialEnded("c", TrialStatus.COMPLETED, origin="another")),
]


def test_hours_are_those_while_the_sweep_ran_and_gpus_those_that_were_held() -> None:
    assert Spending(LEDGER).total() == {"hours": 4.0, "gpu_hours": 0.5 * 2 + 0.5 * 2 + 1.0}


def test_a_budget_of_time_is_reached_or_not() -> None:
    def told(**budget: float) -> str | None:
        return exhausted(plan_of({"seed": [0]}, budget=budget).spec, Spending(LEDGER))

    assert told() is None
    assert told(hours=4.5, gpu_hours=3.5) is None
    assert told(hours=4.0) == "budget.hours: 4 is reached"
    assert told(gpu_hours=3.0) == "budget.gpu_hours: 3 is reached"


def test_a_budget_of_trials_lets_those_go_on_that_have_begun() -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02, 0.03, 0.04]}, budget={"trials": 2})
    fourth = plan.trials[3]
    assert affordable(plan.spec, [], plan.trials) == (plan.trials[:2], "budget.trials: 2 is reached")
    allowed, cut = affordable(plan.spec, [TrialStarted(fourth.id)], plan.trials)
    assert [trial.id for trial in allowed] == [plan.trials[0].id, fourth.id]
    assert cut
    assert affordable(plan.spec, [], plan.trials[:2])[1] is None


def test_what_is_spent_is_kept_up_to_date_with_a_ledger_that_grows() -> None:
    events: list[Event] = []
    spending = Spending(events)
    for event in LEDGER:
        events.append(event)
        assert spending.total() == Spending(events).total() == spending.total()
