from typing import Any

import pytest
from msgspec import structs

from mpdit.errors import InputError
from mpdit.training.ema import snapshot_bytes
from pipelines.identity import trial_id
from pipelines.recipe import Recipe
from pipelines.scoring.cell import cell_key
from sweeps.planning.faults import PlanError
from sweeps.planning.plan import (
    Estimate,
    Plan,
    Trial,
    Workload,
    axis_factors,
    estimate,
    largest_saving,
    make_plan,
    packed,
    scoring_work,
    training_work,
)
from sweeps.planning.staged_scoring import rounds
from sweeps.results.ranking import rank
from sweeps.spec.reading import read_spec, sweep_file
from sweeps.storage.events import TrialEnded
from sweeps.storage.trial_status import TrialStatus
from tests.sweeps.conftest import ended, plan_of, scored

WIDTHS = [0.01 * number for number in range(2, 11)]


def all_steps(trials: list[Trial]) -> dict[str, int]:
    return {trial.id: trial.recipe.steps for trial in trials}


def test_ema_widths_cost_no_training() -> None:
    plan = plan_of(
        {
            "model.modulation": ["scale", "shift", "rotation", "gate"],
            "optimizer.lr": [0.005, 0.01, 0.02],
            "ema.sigma_rel": WIDTHS,
        }
    )
    assert len(plan.trials) == 12
    assert len(plan.cells) == 9


def test_every_post_hoc_axis_makes_cells() -> None:
    plan = plan_of(
        {"evaluation.guidance": [1.0, 2.0], "evaluation.sampler": ["ddim", "heun"], "evaluation.steps": [4, 8]}
    )
    assert len(plan.trials) == 1
    assert len({planned.cell.key for planned in plan.cells}) == 8


def test_the_parts_of_a_guide_are_post_hoc_axes() -> None:
    axes = {"evaluation.guide.step": [1.0, 0.0625, 40], "evaluation.guide.sigma_rel": [None, 0.13]}
    plan = plan_of({**axes, "evaluation.guidance_interval": [None, [0.3, 5.0]]}, evaluation={"guidance": 2.0})
    assert len(plan.trials) == 1
    assert len({planned.cell.key for planned in plan.cells}) == 12
    assert plan.cells[0].cell.key == plan_of({"seed": [0]}, evaluation={"guidance": 2.0}).cells[0].cell.key  # all off


def test_cells_that_would_draw_the_same_samples_are_one() -> None:
    axes = {"evaluation.guidance": [1.0, 2.0, 3.0], "evaluation.guide.step": [1.0, 0.25]}
    plan = plan_of({**axes, "evaluation.guidance_rule": ["cfg", "apg"], "ema.sigma_rel": [0.05, 0.1]})
    assert len(plan.cells) == 2 * (1 + 2 * 2 * 2)
    unguided = [planned for planned in plan.cells if planned.cell.evaluation.guidance == 1]
    assert [planned.params["evaluation.guide.step"] for planned in unguided] == [1.0, 1.0]
    assert len({planned.cell.key for planned in plan.cells}) == len(plan.cells)


def test_the_shipped_sweep_of_guidance_needs_no_training_beside_that_of_conditioning() -> None:
    guidance, conditioning = (make_plan(read_spec(sweep_file(name))) for name in ("guidance", "conditioning"))
    assert {trial.id for trial in guidance.trials} < {trial.id for trial in conditioning.trials}
    assert len(guidance.trials) * len(guidance.cells) >= 200
    assert rounds(guidance.spec) == [250, 1000, 2000]


def test_guidance_that_a_training_cannot_have_is_refused_before_it() -> None:
    guided: dict[str, Any] = {"evaluation": {"guidance": 2.0}}
    with pytest.raises(InputError, match=r"evaluation\.guide at step .* cannot give the EMA width 0\.28"):
        plan_of({"evaluation.guide.step": [0.01], "evaluation.guide.sigma_rel": [0.28]}, **guided)
    with pytest.raises(InputError, match="the guide's step comes after the end of its run"):
        plan_of({"steps": [600, 100], "evaluation.guide.step": [200]}, **guided)
    with pytest.raises(InputError, match="raw weights are kept of a run's last step only"):
        guide = {"step": 0.1, "sigma_rel": 0.0}
        plan_of({"ema.sigma_rel": [0.1, 0.0]}, evaluation={"guidance": 2.0, "guide": guide})
    with pytest.raises(InputError, match="'cfg_zero' is defined for the objective flow only"):
        plan_of({"objective.name": ["flow", "edm"], "evaluation.guidance_rule": ["cfg", "cfg_zero"]}, **guided)
    assert plan_of({"evaluation.guidance_rule": ["cfg_zero"]}, recipe={"objective": {"name": "flow"}}, **guided).cells


def test_a_trial_is_its_recipe() -> None:
    trial = plan_of({"optimizer.lr": [0.005]}).trials[0]
    assert trial.id == trial_id(Recipe.model_validate({"optimizer": {"lr": 0.005}}))
    assert trial.params == {"optimizer.lr": 0.005}


def test_the_same_training_in_two_sweeps_is_one_trial() -> None:
    one, two = plan_of({"optimizer.lr": [0.005, 0.01]}), plan_of({"seed": [0]}, recipe={"optimizer": {"lr": 0.01}})
    assert one.trials[1].id == two.trials[0].id


def test_a_combination_that_cannot_be_built_is_refused() -> None:
    with pytest.raises(PlanError, match=r"^patch 3 does not divide") as refused:
        plan_of({"model.patch": [2, 3]})
    assert refused.value.where == ("axes", "model.patch", 1)
    together = {"model.size": ["nano", "XS"], "model.width": [64, 80]}  # 80 is a multiple of nano's heads alone
    with pytest.raises(PlanError, match=r"^\{'model.size': 'XS', 'model.width': 80\}: width 80") as refused:
        plan_of(together)
    assert refused.value.where == ("axes",)


def test_the_estimate_follows_the_work() -> None:
    plan = plan_of({"steps": [100, 200], "ema.sigma_rel": [0.05, 0.1]})
    small = plan.trials[0]
    seen = TrialEnded(
        "another",
        TrialStatus.COMPLETED,
        training_seconds=10.0,
        training_work=training_work(small.recipe, small.parameters),
        scoring_seconds=2.0,
        scoring_work=scoring_work(plan.cells[0].cell, small.parameters),
    )
    cells = [(trial, [planned.cell for planned in plan.cells]) for trial in plan.trials]
    cost = estimate([seen], Workload(plan.trials, cells, all_steps(plan.trials)), concurrent=1, gpus=0)
    assert cost.hours == pytest.approx((10 + 20 + 4 * 2) / 3600, abs=1e-4)
    longest = (20 + 2 * 2) / 3600  # two at a time: as long as the longer of the two
    assert estimate(
        [seen], Workload(plan.trials, cells, all_steps(plan.trials)), concurrent=2, gpus=0
    ).hours == pytest.approx(longest, abs=1e-4)
    assert cost.gpu_hours == 0
    only_scoring = estimate([seen], Workload([], cells[:1], {}), concurrent=1, gpus=0)
    assert only_scoring.hours == pytest.approx(2 * 2 / 3600, abs=1e-4)
    assert only_scoring.disk_gb == 0


def priced(training: float, scoring: float, axes: dict[str, list[Any]], **fields: Any) -> Estimate:
    """The cost of a whole sweep where a training of 600 steps takes `training` hours and a cell `scoring` hours."""
    plan, usual = plan_of(axes, **fields), plan_of({"seed": [0]})
    trial = usual.trials[0]
    works = training_work(trial.recipe, trial.parameters), scoring_work(usual.cells[0].cell, trial.parameters)
    seen = TrialEnded(
        "another",
        TrialStatus.COMPLETED,
        training_seconds=training * 3600,
        training_work=works[0],
        scoring_seconds=scoring * 3600,
        scoring_work=works[1],
    )
    cells = [(trial, [planned.cell for planned in plan.cells]) for trial in plan.trials]
    return estimate([seen], Workload(plan.trials, cells, all_steps(plan.trials)), concurrent=1, gpus=0)


@pytest.mark.parametrize(("training", "scoring"), [(1.0, 1.0), (5.0, 1.0), (1.0, 3.0)])
def test_what_an_axis_costs_is_the_cost_with_it_over_the_cost_without(training: float, scoring: float) -> None:
    axes = {"optimizer.lr": [0.05, 0.1, 0.2], "seed": [0, 1], "ema.sigma_rel": [0, 0.05, 0.1, 0.15]}
    whole = priced(training, scoring, axes)
    assert whole.training_hours == pytest.approx(6 * training)
    assert whole.scoring_hours == pytest.approx(24 * scoring)
    factors = axis_factors(plan_of(axes).spec, whole.scoring_share or 0.0)
    assert list(factors) == list(axes)
    for axis, factor in factors.items():
        without = priced(training, scoring, {**axes, axis: axes[axis][:1]})
        assert factor == pytest.approx((whole.hours or 0.0) / (without.hours or 1.0), rel=1e-3)
    assert axis_factors(plan_of({"steps": [100, 200]}).spec, 0.5) == {}  # the longer training goes on from the shorter
    random = plan_of({"optimizer.lr": [0.05, 0.1, 0.2]}, search={"algorithm": "random", "trials": 2}).spec
    assert axis_factors(random, 0.5) == {}  # its values do not multiply the trials


@pytest.mark.parametrize(
    ("training", "scoring", "setting"), [(5.0, 1.0, "recipe.steps=300"), (1.0, 3.0, "evaluation.samples=1000")]
)
def test_what_saves_most_saves_what_is_said(training: float, scoring: float, setting: str) -> None:
    axes: dict[str, list[Any]] = {"optimizer.lr": [0.05, 0.1]}
    whole = priced(training, scoring, axes)
    said, saved = largest_saving(plan_of(axes).spec, whole.scoring_share or 0.0)
    assert said == setting
    path, value = setting.split("=")
    section, field = path.split(".")
    less = priced(training, scoring, axes, **{section: {field: int(value)}})
    assert saved == pytest.approx(1 - (less.hours or 0.0) / (whole.hours or 1.0), abs=1e-3)


def test_without_anything_timed_the_hours_are_not_known() -> None:
    plan = plan_of({"seed": [0]})
    cells = [(trial, [planned.cell for planned in plan.cells]) for trial in plan.trials]
    cost = estimate([], Workload(plan.trials, cells, all_steps(plan.trials)), concurrent=1, gpus=0)
    assert cost.hours is None
    assert cost.gpu_hours is None
    assert cost.disk_gb > 0


def test_checkpoints_take_disk_while_a_trial_runs_and_weights_as_long_as_they_are_kept(small_plan: Plan) -> None:
    def disk(concurrent: int, kept: int | None = None) -> float:
        work = Workload(
            small_plan.trials, [(t, []) for t in small_plan.trials], all_steps(small_plan.trials), kept=kept
        )
        return estimate([], work, concurrent=concurrent, gpus=0.0).disk_gb

    parameters = small_plan.trials[0].parameters
    weights = (snapshot_bytes(600, parameters) + 4 * parameters) / 1e9
    checkpoints = 4 * 2 * 5 * parameters / 1e9  # two of them; weights, two moments of Adam, two averages
    assert disk(1) == pytest.approx(4 * weights + checkpoints, rel=0.05)
    assert disk(2) == pytest.approx(4 * weights + 2 * checkpoints, rel=0.05)
    assert disk(1, kept=1) == pytest.approx(2 * weights + checkpoints, rel=0.05)
    assert disk(4, kept=1) == disk(4)


def test_work_is_packed_on_slots_in_its_order() -> None:
    assert packed([3, 1, 1, 4], 2) == 6
    assert packed([3, 1, 1, 4], 1) == 9
    assert packed([3, 1], 8) == 3
    assert packed([], 2) == 0


def test_a_search_that_learns_is_planned_with_points_in_the_place_of_its_own() -> None:
    axes = {"optimizer.lr": {"log_uniform": [0.001, 0.1]}, "seed": [0, 1]}
    plan = plan_of(axes, search={"algorithm": "tpe", "trials": 3, "first": [{}]})
    assert (len(plan.trials), plan.open) == (2, 4)
    assert len({trial.id for trial in plan.expected.trials}) == 6
    drawn = plan_of(axes, search={"algorithm": "random", "trials": 3})
    assert (len(drawn.trials), drawn.open) == (6, 0)


def test_a_search_draws_the_same_points_again_and_the_first_ones_come_first() -> None:
    axes = {"optimizer.lr": {"log_uniform": [0.001, 0.1]}, "model.modulation": ["scale", "gate"]}
    search = {"algorithm": "quasi_random", "trials": 6, "first": [{"optimizer.lr": 0.05, "model.modulation": "gate"}]}
    ids = [[trial.id for trial in plan_of(axes, search=search).trials] for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 6
    assert plan_of(axes, search=search).trials[0].params == {"optimizer.lr": 0.05, "model.modulation": "gate"}


def test_an_axis_without_effect_makes_no_second_training() -> None:
    beta = {"values": [0.9, 0.95], "when": {"model.modulation": ["gate"]}}
    plan = plan_of({"model.modulation": ["scale", "gate"], "optimizer.beta1": beta})
    assert [trial.params for trial in plan.trials] == [
        {"model.modulation": "scale", "optimizer.beta1": 0.9},
        {"model.modulation": "gate", "optimizer.beta1": 0.9},
        {"model.modulation": "gate", "optimizer.beta1": 0.95},
    ]


def test_a_sweep_that_scored_classes_in_turn_goes_on_so() -> None:
    """Cells scored before there was a choice name no classes; copies from other sweeps do not count."""
    plan = plan_of({"ema.sigma_rel": [0.05, 0.1]})
    today = scored(plan, 0, 0, 1.0)
    params = {path: value for path, value in today.params.items() if path != "evaluation.classes"}
    old = structs.replace(today, params=params, cell=cell_key(params))
    goes_on = make_plan(plan.spec, [old])
    assert [planned.cell.evaluation.classes for planned in goes_on.cells] == ["in_turn"] * 2
    assert rank(goes_on, [old, ended(plan, 0)])[0].value == 1.0
    for events in ([], [today], [structs.replace(old, origin="another"), today]):
        assert make_plan(plan.spec, events).cells == plan.cells
    assert rank(plan, [old, ended(plan, 0)])[0].value is None  # not mixed


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        (
            {"model.attention": ["softmax", "conv"], "model.positions": ["table", "rope2d"]},
            "attention: conv, positions: rope2d",
        ),
        ({"model.attention": ["linear"], "model.positions": ["rope2d"]}, "attention: linear, positions: rope2d"),
        ({"model.design": ["A", "F"], "model.norm": ["rms"]}, "norm: rms, in a design without layer_norm"),
        ({"model.renormalized": [True], "model.mp_residual": [False]}, "renormalized: true, mp_residual: false"),
        ({"model.variant": ["map-dit"], "model.renormalized": [True]}, "variant map-dit sets renormalized itself"),
    ],
)
def test_layers_that_do_not_go_together_are_found_before_anything_trains(axes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        plan_of(axes)
