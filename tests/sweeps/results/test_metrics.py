"""A metric as objective, `--by`, constraint and column; metrics that are better the larger; one that is added."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cli.display.tables import ranking_csv
from mpdit.errors import InputError
from pipelines.scoring.metrics.registry import METRICS
from pipelines.yaml_file import read_yaml
from sweeps.planning.plan import Plan
from sweeps.report.figures import sweep_data
from sweeps.report.page import answer, question
from sweeps.results.importance import study_of
from sweeps.results.ranking import rank
from sweeps.search.observations import observations
from sweeps.search.simulator import Curve, simulate
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import checked_spec
from sweeps.storage.events import Event
from tests.sweeps.conftest import ended, plan_of, scored

LR = {"optimizer.lr": [0.01, 0.02, 0.03]}
MADE = '''
"""A made-up metric: how far the mean feature is from that of the data."""

from pipelines.scoring.metrics.registry import METRICS, Metric

SHIFT = METRICS.register(
    Metric(
        name="mean_agreement",
        doc="made up",
        label="mean agreement",
        larger_is_better=True,
        measure=lambda features: {"mean_agreement": -float((features.fake.mean(0) - features.real.mean(0)).norm())},
    )
)
'''


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a metric that a new module registers."""
    METRICS.names()
    monkeypatch.setattr(METRICS, "_kinds", dict(METRICS._kinds))
    (tmp_path / "made_up_metric.py").write_text(MADE)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("made_up_metric")
    yield "mean_agreement"
    del sys.modules["made_up_metric"]


def spec_of(tmp_path: Path, text: str) -> SweepSpec:
    path = tmp_path / "sweep.yaml"
    path.write_text(f"name: mine\naxes: {{optimizer.lr: [0.01, 0.02, 0.03]}}\n{text}\n")
    return checked_spec(read_yaml(path), [])


def events_with(plan: Plan, name: str, values: list[float | None]) -> list[Event]:
    found: list[Event] = [scored(plan, at, 0, 3.0 - at, more={name: value}) for at, value in enumerate(values)]
    return [*found, *(ended(plan, at) for at in range(len(values)))]


@pytest.mark.parametrize("objective", [{"metric": "precision"}, {"metric": "precision", "mode": "max"}])
def test_a_larger_precision_is_ranked_first(objective: dict[str, Any]) -> None:
    plan = plan_of(LR, objective=objective)
    rows = rank(plan, events_with(plan, "precision", [0.2, 0.9, 0.5]))
    assert [row.value for row in rows] == [0.9, 0.5, 0.2]
    assert {row.metric for row in rows} == {"precision"}
    assert rows[0].stderr is None
    data = sweep_data(plan, rows, events_with(plan, "precision", [0.2, 0.9, 0.5]))
    assert "highest precision" in question(data)
    assert "precision 0.9" in answer(data)[0]


def test_the_mode_of_an_objective_is_its_metrics_own() -> None:
    spec = SweepSpec.model_validate({"name": "x", "objective": [{"metric": "frechet"}, {"metric": "recall"}]})
    assert [objective.mode for objective in spec.objective] == ["min", "max"]
    for given in ({"metric": "frechet", "mode": "max"}, {"metric": "recall", "mode": "min"}):
        with pytest.raises(ValueError, match="value is better"):
            SweepSpec.model_validate({"name": "x", "objective": given})


def test_what_an_objective_and_a_constraint_name_is_measured(tmp_path: Path) -> None:
    assert spec_of(tmp_path, "").evaluation.metrics == []
    spec = spec_of(tmp_path, "objective: [{metric: precision}, {metric: parameters}]\nconstraints: [kid <= 0.1]")
    assert spec.evaluation.metrics == ["kid", "precision"]
    both = spec_of(tmp_path, "objective: {metric: recall}\nevaluation: {metrics: [precision_recall]}")
    assert both.evaluation.metrics == ["precision_recall"]


def test_a_metric_is_constrained_from_below_and_from_above(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "constraints: [precision>=0.50, precision <= 0.8]")
    assert spec.constraints == ["precision >= 0.5", "precision <= 0.8"]
    plan = plan_of(LR, constraints=spec.constraints, evaluation=spec.evaluation.model_dump())
    rows = rank(plan, events_with(plan, "precision", [0.2, 0.9, 0.6]))
    assert [(row.params["optimizer.lr"], row.feasible) for row in rows] == [(0.03, True), (0.02, False), (0.01, False)]
    assert rows[0].as_dict()["metrics"] == {"precision": 0.6}
    assert "precision" in ranking_csv(rows).splitlines()[0]


def test_the_front_knows_which_way_is_better() -> None:
    plan = plan_of(LR, objective=[{"metric": "frechet"}, {"metric": "precision"}])
    rows = rank(plan, events_with(plan, "precision", [0.9, 0.5, 0.7]))  # distances 3, 2, 1
    assert {row.params["optimizer.lr"]: row.pareto for row in rows} == {0.01: True, 0.02: False, 0.03: True}


def test_a_search_and_the_importances_maximise_what_is_larger_the_better() -> None:
    plan = plan_of(
        {"optimizer.lr": {"log_uniform": [0.001, 1.0]}, "optimizer.decay_from": {"uniform": [0.1, 1.0]}},
        objective={"metric": "precision"},
        constraints=["precision >= 0.1"],
        search={"algorithm": "tpe", "trials": 24},
    )

    def curve(trial: Any) -> Curve:
        near = 1 - abs(trial.recipe.optimizer.decay_from - 0.5)
        return Curve([{"value": 1.0, "stderr": 0.1, "magnitude_drift": 0.1, "more": {"precision": near}}])

    events = simulate(plan, curve)
    rows = rank(plan, events)
    learnt = [one.values[0] for one in observations(plan, events) if one.values]
    assert rows[0].value == max(learnt) > 0.95
    assert sum(learnt[12:]) > sum(learnt[:12])
    assert study_of(plan, rows).best_value == rows[0].value


def test_what_was_not_measured_cannot_be_ranked_by() -> None:
    plan = plan_of(LR)
    with pytest.raises(InputError, match=r"(?s)kid was not measured.*evaluation: \{metrics: \[kid\]\}"):
        rank(plan, events_with(plan, "precision", [0.1, 0.2, 0.3]), by="kid")


def test_an_old_ledger_without_a_metric_is_still_listed() -> None:
    plan = plan_of(LR)
    events = events_with(plan, "precision", [0.2, 0.9, 0.5])
    rows = rank(plan, events, by="sampling_time")
    assert [(row.status, row.value) for row in rows] == [("completed", None)] * 3
    timed = [replace(event, sampling_seconds=0.5) if at == 1 else event for at, event in enumerate(events)]  # type: ignore[type-var]
    assert rank(plan, timed, by="sampling_time")[0].params == {"optimizer.lr": 0.02}
    assert rank(plan, events, columns=["nfe", "precision"])[0].metrics == {"nfe": None, "precision": 0.5}


def test_a_metric_that_is_registered_is_measured_ranked_constrained_and_shown(added: str, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, f"objective: {{metric: {added}}}\nconstraints: [{added} >= -0.5]")
    assert spec.evaluation.metrics == [added]
    assert spec.objective[0].mode == "max"
    plan = plan_of(LR, **spec.model_dump(include={"objective", "constraints", "evaluation"}))
    events = events_with(plan, added, [-0.9, -0.1, -0.4])
    rows = rank(plan, events)
    assert [row.value for row in rows] == [-0.1, -0.4, -0.9]
    assert [row.feasible for row in rows] == [True, True, False]
    assert "mean agreement" in question(sweep_data(plan, rows, events))
    assert rank(plan, events, by="frechet")[0].metrics == {added: -0.4}
