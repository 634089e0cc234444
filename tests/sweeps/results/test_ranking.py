import csv
import io
import math
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest

from cli.display.tables import ranking_csv
from mpdit.scoring.intervals import jackknife_error
from pipelines.yaml_file import write_yaml
from sweeps.planning.plan import Plan, make_plan
from sweeps.results.ranking import noise_floor, rank, rank_in
from sweeps.results.seed_spread import PRIOR, storage_spread
from sweeps.spec.model import SweepSpec
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger
from tests.sweeps.conftest import ended, plan_of, scored


def finished(plan: Plan, values: dict[tuple[int, int], float | None], **facts: float) -> list:
    events = [scored(plan, trial, cell, value, **facts) for (trial, cell), value in values.items()]
    return events + [ended(plan, trial) for trial in {trial for trial, _ in values}]


def test_the_best_comes_first_and_what_has_no_value_last() -> None:
    plan = plan_of({"model.modulation": ["scale", "shift", "gate"]})
    rows = rank(plan, finished(plan, {(0, 0): 3.0, (2, 0): 1.0}))
    assert [row.params["model.modulation"] for row in rows] == ["gate", "scale", "shift"]
    assert [row.rank for row in rows] == [1, 2, 3]
    assert [row.status for row in rows] == ["completed", "completed", "pending"]


def test_seeds_are_merged(small_plan: Plan) -> None:
    events = finished(small_plan, {(0, 0): 4.0, (1, 0): 2.0, (0, 1): 5.0, (1, 1): 5.0, (2, 0): 9.0, (2, 1): 9.0})
    best = rank(small_plan, events)[0]
    assert best.value == 3.0
    assert best.stderr == pytest.approx(math.hypot(0.1, stdev([4, 2]) / math.sqrt(2)))  # samples, and training seeds
    assert best.trials == [trial.id for trial in small_plan.trials[:2]]
    assert best.trial == small_plan.trials[1].id
    assert best.seeds == 2
    assert "seed" not in best.params


def test_a_group_with_a_seed_missing_has_no_value_yet(small_plan: Plan) -> None:
    rows = rank(small_plan, finished(small_plan, {(2, 0): 9.0}))
    row = next(row for row in rows if row.params == {"model.modulation": "rotation", "ema.sigma_rel": 0.05})
    assert row.value is None
    assert row.status == "pending"


@pytest.mark.parametrize(("other", "tied"), [(1.5, True), (1.75, False)])
def test_ties_are_what_the_errors_cannot_tell_apart(other: float, tied: bool) -> None:
    """One seed: 0.1·√2 over samples, an assumed 13 % of about 1.3, times √2, over seeds: 0.28; 2.14 of them: 0.60."""
    plan = plan_of({"model.modulation": ["scale", "shift"]})
    rows = rank(plan, finished(plan, {(0, 0): 1.0, (1, 0): other}, stderr=0.1))
    assert [row.tied_with_best for row in rows] == [False, tied]


def folds(value: float, spread: float, own: float = 0.0) -> list[float]:
    """Ten distances without a fold each, whose common part moves by `spread` and the cell's own by `own`."""
    return [value + spread * (at - 4.5) + own * (at % 2 - 0.5) for at in range(10)]


def test_differences_are_taken_in_pairs_of_folds() -> None:
    """Two cells whose noise is common differ surely, though each of them is uncertain by far more."""
    plan = plan_of({"ema.sigma_rel": [0.05, 0.1, 0.2]})
    events = [
        scored(plan, 0, 0, 1.0, left_out=folds(1.0, spread=0.2)),
        scored(plan, 0, 1, 1.1, left_out=folds(1.1, spread=0.2, own=0.01)),
        scored(plan, 0, 2, 1.2, left_out=folds(1.2, spread=-0.2)),
        ended(plan, 0),
    ]
    rows = rank(plan, events)
    assert rows[0].stderr == pytest.approx(jackknife_error(folds(1.0, spread=0.2)))
    assert rows[0].stderr > 1
    assert [row.tied_with_best for row in rows] == [False, False, True]


def test_seeds_are_paired_too() -> None:
    """A seed that is worse for every cell says nothing against one of them."""
    plan = plan_of({"model.modulation": ["scale", "rotation"], "seed": list(range(6))})
    values = [factor * (1 + seed % 3) for factor in (1.0, 1.25) for seed in range(6)]
    events = [scored(plan, at, 0, value, left_out=folds(value, 0.001)) for at, value in enumerate(values)]
    best, other = rank(plan, events + [ended(plan, trial) for trial in range(12)])
    assert (best.value, other.value) == (2.0, 2.5)
    assert best.stderr > 0.3
    assert not other.tied_with_best


def equal_sweeps(seeds: int, spread: float, uneven: float) -> int:
    """In how many of 300 sweeps of points that are equal `rank` tells one from the best.

    spread: between training seeds, as a share. uneven: by how much points differ in it, as a share of it.
    """
    plan = plan_of({"optimizer.lr": [0.01, 0.02, 0.03, 0.04, 0.05], "seed": list(range(seeds))})
    random, told = np.random.default_rng(0), 0
    for _ in range(300):
        of_point = spread * np.exp(uneven * random.standard_normal(5)).repeat(seeds)
        true = 3 * np.exp(of_point * random.standard_normal(5 * seeds))
        noise = 0.02 * true[:, None] * random.standard_normal((5 * seeds, 10))  # of each fold
        left_out = true[:, None] + (noise.sum(1, keepdims=True) - noise) / 9
        values = true + noise.mean(1)
        events = [scored(plan, at, 0, values[at], left_out=left_out[at].tolist()) for at in range(5 * seeds)]
        rows = rank(plan, events + [ended(plan, at) for at in range(5 * seeds)])
        told += not all(row.tied_with_best for row in rows[1:])
    return told


@pytest.mark.parametrize(
    ("seeds", "spread", "uneven"),
    [
        (1, 0.13, 0.0),  # as the prior says
        pytest.param(1, 0.13, 0.3, marks=pytest.mark.slow),
        (2, 0.3, 0.0),  # the sweep's own seeds say more than the prior
        pytest.param(3, 0.05, 0.0, marks=pytest.mark.slow),
        pytest.param(3, 0.3, 0.3, marks=pytest.mark.slow),
        (5, 0.3, 0.3),
    ],
)
def test_of_300_sweeps_of_equal_points_at_most_5_percent_tell_two_apart(
    seeds: int, spread: float, uneven: float
) -> None:
    assert equal_sweeps(seeds, spread, uneven) <= 15


def test_the_interval_has_the_freedom_of_what_made_the_error() -> None:
    """Ten folds: t(9) = 2.262. Three seeds beside which the folds say little: t(2) = 4.303."""
    alone, several = plan_of({"seed": [0]}), plan_of({"seed": [0, 1, 2]})
    of_folds = rank(alone, [scored(alone, 0, 0, 3.0, left_out=folds(3.0, 0.01)), ended(alone, 0)])[0]
    assert of_folds.freedom == 9
    assert of_folds.interval == pytest.approx(2.2622 * of_folds.stderr, rel=1e-4)
    events = [scored(several, at, 0, 60.0 + 3 * at, left_out=folds(60.0, 1e-4)) for at in range(3)]
    of_seeds = rank(several, events + [ended(several, at) for at in range(3)])[0]
    assert of_seeds.freedom == pytest.approx(2, abs=0.01)
    assert of_seeds.interval == pytest.approx(4.3027 * 3 / math.sqrt(3), rel=1e-3)


def test_the_spread_of_seeds_is_the_sweeps_own_before_the_storages_before_the_prior(tmp_path: Path) -> None:
    alone = plan_of({"model.modulation": ["scale", "rotation"]})
    events = finished(alone, {(0, 0): 3.0, (1, 0): 3.2})
    storage = Storage(tmp_path)
    assert rank_in(storage, alone, events)[0].seed_spread_from == "prior"
    other = make_plan(SweepSpec.model_validate({"name": "other", "axes": {"seed": [0, 1, 2]}}))
    storage.prepare()
    storage.sweep("other").mkdir()
    write_yaml(storage.spec("other"), other.spec.model_dump())
    ledger = Ledger(storage.ledger("other"))
    for at in range(3):
        ledger.append(scored(other, at, 0, 3.0 * 1.5**at))
    spread = math.sqrt((2 * math.log(1.5) ** 2 + 0.13**2) / 3)  # two degrees of freedom, and one of the prior
    best, second = rank_in(storage, alone, events)
    assert (best.seed_spread, best.seed_spread_from, second.tied_with_best) == (pytest.approx(spread), "storage", True)
    own = plan_of({"model.modulation": ["scale", "rotation"], "seed": [0, 1]})
    events = finished(own, {(0, 0): 3.0, (1, 0): 3.0, (2, 0): 4.0, (3, 0): 4.1})
    assert rank_in(storage, own, events)[0].seed_spread_from == "sweep"


def test_the_spread_of_seeds_is_not_that_of_another_folder_of_images(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    storage.prepare()
    storage.sweep("other").mkdir()
    fields = {"axes": {"seed": [0, 1, 2]}, "recipe": {"data": {"name": "folder", "path": "/there/faces"}}}
    write_yaml(storage.spec("other"), {"name": "other", **fields})
    fields = {"name": "mine", "recipe": {"data": {"name": "folder", "path": "/there/letters"}}}
    assert storage_spread(storage, Plan(SweepSpec.model_validate(fields), [], [])) == PRIOR


def test_the_spread_of_seeds_does_not_shrink_with_more_samples() -> None:
    """One seed each, 5 % apart: no number of samples shows which recipe is better."""
    plan = plan_of({"model.modulation": ["scale", "shift"]})
    rows = rank(plan, finished(plan, {(0, 0): 1.0, (1, 0): 1.05}, stderr=1e-9))
    assert (rows[1].tied_with_best, rows[1].to_tell_apart) == (True, "more seeds")


def test_the_more_rows_are_compared_the_more_a_difference_has_to_be() -> None:
    def is_tied(points: int) -> bool:
        rates = [0.01 * (at + 1) for at in range(points)]
        plan = plan_of({"optimizer.lr": rates})
        values = {(at, 0): 1.7 if at else 1.0 for at in range(points)}
        return rank(plan, finished(plan, values))[1].tied_with_best  # type: ignore[arg-type]

    assert [is_tied(points) for points in (2, 20)] == [False, True]


def test_what_is_far_behind_does_not_count_as_a_comparison() -> None:
    """Step-down: nineteen rows that are told apart without a doubt leave two to compare."""
    plan = plan_of({"optimizer.lr": [0.01 * (at + 1) for at in range(21)]})
    values = {(at, 0): 1.0 if at == 0 else 1.7 if at == 1 else 1000.0 for at in range(21)}
    assert not any(row.tied_with_best for row in rank(plan, finished(plan, values)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"model.modulation": ["scale", "shift"]}, "more seeds"),  # one seed cannot show what another would do
        ({"ema.sigma_rel": [0.05, 0.1]}, "about 84,000 samples"),  # 2,000·(2.262·0.2/0.07)²
    ],
)
def test_a_tie_is_told_with_what_would_end_it(axes: dict, says: str) -> None:
    plan = plan_of(axes)
    second = (1, 0) if len(plan.trials) == 2 else (0, 1)
    error = folds(1.07, 0.0, own=0.4 / 3)
    assert jackknife_error(error) == pytest.approx(0.2)
    events = [
        scored(plan, 0, 0, 1.0, left_out=folds(1.0, 0.0)),
        scored(plan, *second, 1.07, left_out=error),
        *[ended(plan, trial) for trial in range(len(plan.trials))],
    ]
    tied = rank(plan, events)[1]
    assert (tied.tied_with_best, tied.to_tell_apart) == (True, says)


def test_a_difference_of_seeds_asks_for_seeds(small_plan: Plan) -> None:
    values = {(0, 0): 1.0, (1, 0): 2.0, (2, 0): 2.1, (3, 0): 1.2}
    events = [scored(small_plan, trial, 0, value, left_out=folds(value, 0.001)) for (trial, _), value in values.items()]
    tied = rank(small_plan, events + [ended(small_plan, trial) for trial in range(4)])[1]
    assert tied.tied_with_best
    assert tied.to_tell_apart == "more than 100 seeds"


def test_screened_cells_are_never_among_the_fully_scored() -> None:
    plan = plan_of({"ema.sigma_rel": [0.05, 0.1, 0.2]}, screening={"samples": 250})
    events = [
        *[scored(plan, 0, cell, value, samples=250) for cell, value in enumerate((0.5, 0.2, 0.9))],
        scored(plan, 0, 1, 3.0),
        ended(plan, 0),
    ]
    rows = rank(plan, events)
    assert [row.status for row in rows] == ["completed", "screened", "screened"]
    assert [row.value for row in rows] == [3.0, 0.5, 0.9]
    assert not any(row.tied_with_best for row in rows)


@pytest.mark.parametrize("outcome", ["diverged", "failed", "out_of_memory", "interrupted"])
def test_an_outcome_without_a_value_is_told(outcome: str) -> None:
    plan = plan_of({"model.modulation": ["scale", "shift"]})
    rows = rank(plan, [*finished(plan, {(0, 0): 3.0}), ended(plan, 1, outcome)])
    assert rows[-1].status == outcome
    assert rows[-1].value is None


def test_a_cell_without_finite_samples_is_last() -> None:
    plan = plan_of({"ema.sigma_rel": [0.05, 0.1]})
    rows = rank(plan, finished(plan, {(0, 0): None, (0, 1): 3.0}))
    assert [row.status for row in rows] == ["completed", "diverged"]


def test_a_running_trial_is_running_only_while_its_driver_lives() -> None:
    from sweeps.storage.events import TrialStarted

    plan = plan_of({"seed": [0]})
    started = [TrialStarted(plan.trials[0].id)]
    assert rank(plan, started, alive=True)[0].status == "running"
    assert rank(plan, started)[0].status == "interrupted"


def test_ranking_by_magnitude_drift() -> None:
    plan = plan_of({"model.modulation": ["scale", "shift"]})
    events = [scored(plan, 0, 0, 1.0, drift=0.5), scored(plan, 1, 0, 2.0, drift=0.1), ended(plan, 0), ended(plan, 1)]
    best = rank(plan, events, by="magnitude_drift")[0]
    assert (best.params["model.modulation"], best.value, best.metric) == ("shift", 0.1, "magnitude_drift")


def test_the_row_has_the_fields_of_the_contract(small_plan: Plan) -> None:
    assert list(rank(small_plan, [])[0].as_dict()) == [
        "rank",
        "trial",
        "status",
        "params",
        "metric",
        "value",
        "stderr",
        "seeds",
        "trials",
        "tied_with_best",
        "magnitude_drift",
        "to_tell_apart",
        "freedom",
        "interval",
    ]


def test_comma_separated_values_have_a_column_an_axis(small_plan: Plan) -> None:
    rows = list(csv.DictReader(io.StringIO(ranking_csv(rank(small_plan, [])))))
    assert len(rows) == 4
    assert rows[0]["model.modulation"] == "scale"


def test_the_noise_floor_is_the_one_that_was_measured(small_plan: Plan) -> None:
    assert noise_floor([]) is None
    assert noise_floor(finished(small_plan, {(0, 0): 1.0})) == 0.2


def test_several_objectives_have_a_front_and_constraints_come_first() -> None:
    plan = plan_of(
        {"optimizer.lr": [0.01, 0.02, 0.03, 0.04]},
        objective=[{"metric": "frechet"}, {"metric": "magnitude_drift"}],
        constraints=["magnitude_drift <= 0.5"],
    )
    found = [(1.0, 0.9), (2.0, 0.4), (3.0, 0.1), (4.0, 0.2)]  # the first breaks the constraint, the last is beaten
    events = [scored(plan, at, 0, value, drift=drift) for at, (value, drift) in enumerate(found)]
    events += [ended(plan, at) for at in range(4)]
    rows = rank(plan, events)
    assert [row.params["optimizer.lr"] for row in rows] == [0.02, 0.03, 0.04, 0.01]
    assert [row.pareto for row in rows] == [True, True, False, False]
    assert [row.feasible for row in rows] == [True, True, True, False]
    assert rows[0].as_dict()["values"] == {"frechet": 2.0, "magnitude_drift": 0.4}
    by_drift = rank(plan, events, by="magnitude_drift")
    assert [row.params["optimizer.lr"] for row in by_drift] == [0.03, 0.04, 0.02, 0.01]


def test_parameters_and_step_time_are_metrics() -> None:
    plan = plan_of({"model.modulation": ["scale+shift+gate", "none"]})
    events = [scored(plan, at, 0, 1.0) for at in range(2)]
    events += [ended(plan, at, training_seconds=seconds) for at, seconds in enumerate((60.0, 90.0))]
    by_size, by_time = rank(plan, events, by="parameters"), rank(plan, events, by="step_time")
    assert by_size[0].params == {"model.modulation": "none"}
    assert by_size[0].value == plan.trials[1].parameters
    assert [row.value for row in by_time] == [pytest.approx(0.1), pytest.approx(0.15)]
    assert "pareto" not in by_size[0].as_dict()


def test_no_point_on_the_front_is_beaten_and_each_other_is() -> None:
    import itertools
    import random

    from sweeps.results.pareto import dominates, front

    source = random.Random(0)
    points = [[source.random() for _ in range(3)] for _ in range(60)]
    best = [point for point, is_best in zip(points, front(points), strict=True) if is_best]
    assert not any(dominates(a, b) for a, b in itertools.permutations(best, 2))
    assert all(point in best or any(dominates(other, point) for other in best) for point in points)
    assert front([[1.0], None]) == [True, False]
