"""The rules that stop a trial at a rung, in small numbers."""

import pytest

from sweeps.search.rung_decisions import decide
from sweeps.search.schedulers.asha import asha
from sweeps.search.schedulers.median import worse_than_median
from sweeps.search.schedulers.paired import paired
from sweeps.spec.scheduler_kind import Score
from sweeps.storage.events import RungScored, RungWidth, TrialStarted
from tests.sweeps.conftest import plan_of

HALF, THIRD = 2.0, 3.0


def scores(*values: float) -> list[Score]:
    return [Score(str(at), value, [value] * 10) for at, value in enumerate(values)]


def rung(trial: str, value: float | None, share: float = 0.5, samples: int = 250, width: float = 0.1) -> RungScored:
    left_out = None if value is None else [value] * 10
    return RungScored(trial, 10, share, samples, [RungWidth(width, value, left_out=left_out, magnitude_drift=0.1)])


@pytest.mark.parametrize(("mine", "goes_on"), [(1.0, True), (2.5, True), (3.5, False), (9.0, False)])
def test_asha_lets_the_best_share_of_those_so_far_go_on(mine: float, goes_on: bool) -> None:
    others = scores(2.0, 3.0, 4.0, 5.0, 6.0)  # with mine six: the best two pass
    assert (asha(Score("x", mine, None), others, THIRD) is None) == goes_on


def test_the_first_at_a_rung_goes_on() -> None:
    for rule in (asha, worse_than_median, paired):
        assert rule(Score("x", 100.0, [100.0] * 10), [], THIRD) is None


def test_the_median_of_too_few_stops_nobody() -> None:
    mine = Score("x", 100.0, [100.0] * 10)
    assert worse_than_median(mine, scores(1.0, 2.0), HALF) is None
    assert "median 2" in str(worse_than_median(mine, scores(1.0, 2.0, 3.0), HALF))


def test_a_paired_difference_within_its_error_stops_nobody() -> None:
    others = [Score(str(at), 1.0, [1.0 + 0.1 * (-1) ** fold for fold in range(10)]) for at in range(4)]
    same_noise = Score("x", 1.2, [1.2 + 0.1 * (-1) ** fold for fold in range(10)])
    other_noise = Score("x", 1.2, [1.2 - 0.1 * (-1) ** fold for fold in range(10)])
    assert paired(same_noise, others, HALF) is not None  # each fold is worse by 0.2: the difference has no error
    assert paired(other_noise, others, HALF) is None  # the same distance, 0.2 ± 0.6


def test_only_like_is_judged_by_like() -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]}, scheduler={"kind": "asha", "rungs": [0.25, 0.5]})
    better = [rung(str(at), 1.0) for at in range(4)]
    assert decide(plan.spec, better, rung("x", 2.0)) is not None
    assert decide(plan.spec, better, rung("x", 2.0, share=0.25)) is None
    assert decide(plan.spec, better, rung("x", 2.0, samples=500)) is None
    assert decide(plan.spec, better, rung("x", 2.0, width=0.05)) is None
    assert decide(plan.spec, better, rung("x", None)) is None
    assert decide(plan.spec, [rung(str(at), None) for at in range(4)], rung("x", 2.0)) is None


def test_hyperband_spares_its_brackets_their_first_rungs() -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]}, scheduler={"kind": "hyperband", "rungs": [0.25, 0.5]})
    started = [TrialStarted(str(at)) for at in range(9)]  # brackets 0, 1, 2, 0, 1, 2, …
    better = [rung(str(at), 1.0, share=share) for at in range(6) for share in (0.25, 0.5)]

    def stops(trial: str, share: float) -> bool:
        return decide(plan.spec, [*started, *better], rung(trial, 2.0, share=share)) is not None

    assert [stops("6", share) for share in (0.25, 0.5)] == [True, True]
    assert [stops("7", share) for share in (0.25, 0.5)] == [False, True]
    assert [stops("8", share) for share in (0.25, 0.5)] == [False, False]
