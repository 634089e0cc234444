"""Searches and schedulers on made-up curves, in virtual time: the trial scheduler is the real one."""

from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from sweeps.planning.plan import Plan, Trial
from sweeps.results.ranking import rank
from sweeps.search.observations import observations
from sweeps.search.optuna_search import encoded, read_point, suggest, tell
from sweeps.search.simulator import Curve, simulate, steps_taken
from sweeps.search.trial_scheduler import Candidates, Elsewhere, TrialScheduler
from sweeps.spec.scheduler_kind import SCHEDULERS
from sweeps.spec.search_algorithm import SEARCHES
from sweeps.storage.events import Event, RungScored, Suggested, TrialEnded, TrialRetried
from sweeps.storage.ledger import only
from sweeps.storage.trial_status import TrialStatus
from tests.sweeps.conftest import ended, plan_of, scored

LR = {"log_uniform": [0.001, 1.0]}


def valley(trial: Trial, worst: float = 0.0) -> float:
    """A distance with its minimum 1 at lr 0.03 and decay_from 0.5."""
    import math

    recipe = trial.recipe
    away = math.log10(recipe.optimizer.lr / 0.03) ** 2 + (recipe.optimizer.decay_from - 0.5) ** 2
    return 1 + away + worst


def scores(value: float | None, spread: float = 0.01, drift: float = 0.1) -> dict[str, Any]:
    left_out = None if value is None else [value + spread * (fold - 4.5) for fold in range(10)]
    stderr = None if value is None else spread
    return {"value": value, "stderr": stderr, "left_out": left_out, "magnitude_drift": drift}


def curve(trial: Trial, shares: tuple[float, ...] = (0.125, 0.25, 0.5), **changes: Any) -> Curve:
    value = valley(trial)
    rungs = {share: [{"sigma_rel": 0.1, **scores(value / share)}] for share in shares}
    return Curve([scores(value)], rungs, **changes)


def outcomes(events: list[Event]) -> Counter[str]:
    return Counter(line.outcome for line in events if isinstance(line, TrialEnded))


def searched(algorithm: str, trials: int = 24, **fields: Any) -> Plan:
    axes = {"optimizer.lr": LR, "optimizer.decay_from": {"uniform": [0.1, 1.0]}}
    return plan_of(fields.pop("axes", axes), search={"algorithm": algorithm, "trials": trials}, **fields)


@pytest.mark.parametrize("algorithm", [kind.name for kind in SEARCHES if not kind.exhaustive])
def test_every_search_ends_with_as_many_points_as_asked_for(algorithm: str) -> None:
    plan = searched(algorithm, 12)
    events = simulate(plan, curve, slots=2)
    assert outcomes(events) == {"completed": 12}
    assert len({trial.id for trial in plan.trials}) == 12
    assert rank(plan, events)[0].value is not None


def test_a_search_that_learns_comes_nearer_than_random_draws() -> None:
    learnt, drawn = (searched(name, 24) for name in ("tpe", "random"))
    best = [rank(plan, simulate(plan, curve))[0].value for plan in (learnt, drawn)]
    assert best[0] < best[1]


def test_a_suggestion_is_a_function_of_the_ledger() -> None:
    plan = searched("tpe", 10)
    events = simulate(plan, curve)
    suggested = [line.params for line in events if isinstance(line, Suggested)]
    for number in (3, 7, 9):
        cut = next(
            at for at, line in enumerate(events) if isinstance(line, Suggested) and line.params == suggested[number]
        )
        before = searched("tpe", 10)
        before.trials.extend(plan.trials[:number])
        assert suggest(plan.spec, observations(before, events[:cut])) == suggested[number]


def test_a_search_goes_on_where_its_ledger_ends() -> None:
    whole = simulate(searched("tpe", 10), curve)
    cut = [at for at, line in enumerate(whole) if isinstance(line, TrialEnded)][5]
    from sweeps.planning.plan import make_plan

    plan = make_plan(searched("tpe", 10).spec, whole[: cut + 1])
    assert len(plan.trials) == 6
    again = simulate(plan, curve, past=whole[: cut + 1])
    told = [[line.params for line in events if isinstance(line, Suggested)] for events in (whole, again)]
    assert told[0] == told[1]


def test_a_finite_space_is_exhausted_and_no_point_comes_twice() -> None:
    plan = plan_of(
        {"optimizer.lr": [0.01, 0.02, 0.04], "model.modulation": ["scale", "gate"]},
        search={"algorithm": "tpe", "trials": 50},
    )
    assert plan.open == 6
    assert outcomes(simulate(plan, curve)) == {"completed": 6}
    assert plan.open == 0


def test_a_suggestion_runs_all_seeds_and_is_judged_by_their_mean() -> None:
    axes = {"optimizer.lr": LR, "seed": [0, 1, 2]}
    plan = searched("tpe", 5, axes=axes)

    def noisy(trial: Trial) -> Curve:
        return Curve([scores(valley(trial) + trial.recipe.seed)])

    events = simulate(plan, noisy)
    assert outcomes(events) == {"completed": 15}
    known = observations(plan, events)
    assert len(known) == 5
    assert all("seed" not in one.point for one in known)
    first = plan.trials[0]
    assert known[0].values == [pytest.approx(valley(first) + 1)]
    assert {row.seeds for row in rank(plan, events)} == {3}


def test_a_trial_is_worth_its_best_cell() -> None:
    plan = searched("tpe", 3, axes={"optimizer.lr": LR, "ema.sigma_rel": [0.05, 0.1]})
    events = simulate(plan, lambda trial: Curve([scores(5.0), scores(valley(trial))]))
    assert [one.values for one in observations(plan, events)] == [
        [pytest.approx(valley(trial))] for trial in plan.trials
    ]


def test_what_diverges_is_told_as_failed_and_what_is_stopped_as_pruned() -> None:
    import optuna

    plan = searched("tpe", 16, scheduler={"kind": "asha", "rungs": [0.125, 0.5]})
    told: list[optuna.trial.TrialState] = []
    events = simulate(plan, lambda t: curve(t, diverges_at=40 if t.recipe.optimizer.lr > 0.3 else None))
    study = optuna.create_study()
    for one in observations(plan, events):
        study.enqueue_trial(encoded(plan.spec, one.point))
        trial = study.ask()
        read_point(plan.spec, trial)
        tell(study, trial, one)
    told = [trial.state for trial in study.trials]
    state = optuna.trial.TrialState
    assert Counter(told) == {
        state.COMPLETE: outcomes(events)["completed"],
        state.PRUNED: outcomes(events)["stopped"],
        state.FAIL: outcomes(events)["diverged"],
    }
    assert outcomes(events)["diverged"] and outcomes(events)["stopped"]
    pruned = next(trial for trial in study.trials if trial.state == state.PRUNED)
    assert pruned.intermediate_values


@pytest.mark.parametrize("kind", [kind.name for kind in SCHEDULERS if kind.rule])
def test_schedulers_save_steps_and_keep_the_best(kind: str) -> None:
    whole = searched("random", 40)
    plan = searched("random", 40, scheduler={"kind": kind, "rungs": [0.125, 0.25, 0.5], "reduction": 3})
    events, every = simulate(plan, curve, slots=4), simulate(whole, curve, slots=4)
    assert steps_taken(plan, events)[-1] < 0.8 * steps_taken(whole, every)[-1]
    assert rank(plan, events)[0].trial == rank(whole, every)[0].trial
    assert outcomes(events)["stopped"] > 8


@pytest.mark.parametrize("kind", [kind.name for kind in SCHEDULERS if kind.rule])
def test_a_score_that_is_not_finite_judges_nobody(kind: str) -> None:
    def broken(trial: Trial) -> Curve:
        rungs = {share: [{"sigma_rel": 0.1, **scores(None)}] for share in (0.125, 0.25, 0.5)}
        return Curve([scores(valley(trial))], rungs)

    plan = searched("random", 12, scheduler={"kind": kind})
    assert outcomes(simulate(plan, broken)) == {"completed": 12}
    odd = searched("random", 12, scheduler={"kind": kind})
    first = odd.trials[0].id
    events = simulate(odd, lambda trial: broken(trial) if trial.id == first else curve(trial))
    assert next(line for line in events if line.trial == first and isinstance(line, TrialEnded)).outcome == "completed"


def test_a_close_call_is_left_open_by_the_paired_stop() -> None:
    """Half of the trials are worse by 0.05: with a paired error of 0 they stop, with one of 0.1 they go on."""

    def close(spread: float) -> Any:
        def made(trial: Trial) -> Curve:
            value = 2.0 + 0.05 * (trial.recipe.seed % 2)
            jitter = [spread * (1 if (fold + trial.recipe.seed) % 2 else -1) for fold in range(10)]
            row = {
                "sigma_rel": 0.1,
                "value": value,
                "left_out": [value + one for one in jitter],
                "magnitude_drift": 0.0,
            }
            return Curve([scores(value)], {0.5: [row]})

        return made

    def plan() -> Plan:
        return plan_of(
            {"optimizer.beta1": {"uniform": [0.1, 0.9]}, "seed": [0]},
            search={"algorithm": "random", "trials": 20},
            scheduler={"kind": "paired", "rungs": [0.5]},
        )

    def by_parity(spread: float) -> Any:
        make, one = close(spread), plan()
        parity = {trial.id: at % 2 for at, trial in enumerate(one.trials)}

        def made(trial: Trial) -> Curve:
            recipe = trial.recipe.model_copy(update={"seed": parity[trial.id]})
            return make(Trial(trial.id, trial.params, recipe))

        return one, made

    sure, open_ = by_parity(0.0), by_parity(0.1)
    assert outcomes(simulate(*sure))["stopped"] >= 7
    assert outcomes(simulate(*open_)) == {"completed": 20}


def test_a_point_is_stopped_with_all_its_seeds() -> None:
    axes = {"optimizer.lr": [0.03, 0.031, 0.029, 0.032, 0.9], "seed": [0, 1]}
    plan = plan_of(axes, scheduler={"kind": "asha", "rungs": [0.5], "reduction": 2})
    events = simulate(plan, curve)
    ends = {line.trial: line for line in events if isinstance(line, TrialEnded)}
    last = [trial.id for trial in plan.trials if trial.params["optimizer.lr"] == 0.9]
    assert [ends[trial].outcome for trial in last] == ["stopped", "stopped"]
    assert "another seed" in str(ends[last[1]].reason)


def test_several_objectives_and_constraints_are_told() -> None:
    plan = searched(
        "nsga2",
        12,
        objective=[{"metric": "frechet"}, {"metric": "magnitude_drift"}],
        constraints=["magnitude_drift <= 0.2"],
    )
    events = simulate(plan, lambda trial: Curve([scores(valley(trial), drift=trial.recipe.optimizer.decay_from)]))
    known = observations(plan, events)
    assert all(one.values is not None and len(one.values) == 2 for one in known)
    assert all(one.limits == {"magnitude_drift": pytest.approx(one.values[1] - 0.2)} for one in known if one.values)


def test_the_same_ledger_comes_out_of_the_same_sweep() -> None:
    runs = [
        simulate(searched("tpe", 8, scheduler={"kind": "paired", "rungs": [0.125, 0.5]}), curve, slots=2)
        for _ in range(2)
    ]
    assert [replace(line, time="") for line in runs[0]] == [replace(line, time="") for line in runs[1]]


def test_wherever_a_driver_is_killed_a_trial_that_was_to_stop_at_a_rung_stops_there() -> None:
    """A kill may come between the line of a rung and that of the end which follows from it."""
    plan = searched("random", 9, scheduler={"kind": "asha", "rungs": [0.125, 0.25, 0.5]})
    whole = simulate(plan, curve)
    verdicts = {line.trial: line.stop for line in only(whole, RungScored) if line.stop}
    assert len(verdicts) >= 3
    for trial, reason in verdicts.items():
        verdict = next(line for line in only(whole, RungScored) if line.trial == trial and line.stop)
        cut = whole.index(verdict)
        after = simulate(plan, curve, past=whole[: cut + 1])
        (end,) = [line for line in only(after, TrialEnded) if line.trial == trial]
        assert (end.outcome, end.reason) == ("stopped", reason)
        assert [line.step for line in only(after, RungScored) if line.trial == trial][-1] == verdict.step
        again = simulate(plan, curve, past=[*after, TrialRetried(trial)])  # a person wants it all the same
        own = [line for line in again if line.trial == trial]
        assert only(own, TrialEnded)[-1].outcome == "completed" or only(own, RungScored)[-1].step > verdict.step


def test_a_trial_that_another_process_runs_is_not_waited_for_and_its_result_is_taken_over() -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02, 0.03]})
    first, second, third = plan.trials
    events: list[Event] = []
    held, finished = {first.id, second.id}, list[Event]()

    def record(event: Event) -> None:
        events.append(event)

    def found(trials: list[Trial]) -> list[Event]:
        return [event for event in finished if event.trial in {trial.id for trial in trials}]

    scheduler = TrialScheduler(
        plan, events, Candidates(plan.trials, False), record, Elsewhere(found, held.__contains__)
    )
    assert scheduler.next() is third
    assert scheduler.next() is None
    assert scheduler.is_waiting  # while the third runs, the others may become free
    assert not scheduler.is_done
    held.remove(first.id)
    finished += [scored(plan, 0, 0, 1.0), ended(plan, 0)]
    assert scheduler.next() is None
    assert [event.trial for event in events] == [first.id, first.id]
    record(TrialEnded(third.id, TrialStatus.INTERRUPTED, held=True))  # another process was quicker
    held.add(third.id)
    assert scheduler.next() is None
    assert scheduler.is_done  # nothing of ours runs
    assert list(scheduler.waiting) == [second, third]
    held.clear()
    assert [scheduler.next(), scheduler.next(), scheduler.next()] == [second, third, None]
    assert not scheduler.waiting
