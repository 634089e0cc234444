"""A search that begins with what other sweeps of the storage have found best."""

import os
from pathlib import Path
from typing import Any

import pytest

from mpdit.errors import InputError
from pipelines.yaml_file import Document, write_yaml
from sweeps.planning.plan import make_plan
from sweeps.search.prior import prior_points
from sweeps.search.simulator import simulate
from sweeps.search.trial_scheduler import Candidates, Elsewhere, TrialScheduler
from sweeps.spec.model import SweepSpec
from sweeps.spec.reading import checked_spec
from sweeps.storage.events import Event
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger
from tests.sweeps.search.test_promotion import curve

RANGE = {"optimizer.lr": {"log_uniform": [0.001, 0.1]}}


def spec_of(name: str, axes: dict[str, Any], **more: Any) -> SweepSpec:
    return SweepSpec.model_validate({"name": name, "axes": axes | {"ema.sigma_rel": [0.05, 0.1]}, **more})


def searching(axes: dict[str, Any] = RANGE, trials: int = 8, **more: Any) -> SweepSpec:
    return spec_of("mine", axes, search={"algorithm": "tpe", "trials": trials, "prior": "storage"}, **more)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Three finished sweeps, the newest last: two over rates, of which 0.032 and 0.016 are best, and one over seeds."""
    made = Storage(tmp_path)
    made.prepare()
    for age, (name, axes) in enumerate(
        {
            "seeds": {"seed": [0, 1]},
            "fine": {"optimizer.lr": [0.004, 0.016]},
            "wide": {"optimizer.lr": [0.002, 0.032, 0.512], "model.patch": [2, 4]},
        }.items()
    ):
        spec = spec_of(name, axes)
        made.sweep(name).mkdir()
        write_yaml(made.spec(name), spec.model_dump())
        ledger = Ledger(made.ledger(name))
        for event in simulate(make_plan(spec), curve):
            ledger.append(event)
        os.utime(made.ledger(name), (age, age))
    return made


def test_the_best_points_come_the_newest_sweep_first(storage: Storage) -> None:
    assert prior_points(searching(), storage) == [{"optimizer.lr": 0.032}, {"optimizer.lr": 0.016}]


def test_they_take_at_most_a_quarter_of_the_search(storage: Storage) -> None:
    assert len(prior_points(searching(trials=4), storage)) == 1
    assert prior_points(searching(trials=3), storage) == []


def test_an_axis_that_the_other_has_not_is_the_recipes_own_or_the_middle(storage: Storage) -> None:
    axes = RANGE | {"optimizer.beta2": {"uniform": [0.9, 0.995]}, "batch": [16, 32, 48]}
    (own, middle) = (searching(axes).recipe.optimizer.beta2, 32)
    assert prior_points(searching(axes), storage)[0] == {
        "optimizer.lr": 0.032,
        "optimizer.beta2": own,
        "batch": middle,
    }


def test_what_lies_outside_or_was_ranked_on_other_data_or_by_another_metric_is_left_out(storage: Storage) -> None:
    narrow = {"optimizer.lr": {"log_uniform": [0.01, 0.02]}}
    assert prior_points(searching(narrow), storage) == [{"optimizer.lr": 0.016}]
    assert prior_points(searching(recipe={"data": {"name": "shapes"}}), storage) == []
    assert prior_points(searching(objective={"metric": "magnitude_drift"}), storage) == []


def test_a_sweep_that_cannot_be_read_is_passed_over(storage: Storage) -> None:
    storage.spec("wide").write_text("name: [")
    assert prior_points(searching(), storage) == [{"optimizer.lr": 0.016}]


def test_a_search_begins_with_them_and_goes_on_by_itself(storage: Storage) -> None:
    spec = searching()
    plan, events = make_plan(spec), list[Event]()
    known = Elsewhere(lambda trials: [], lambda trial: False, prior_points=lambda: prior_points(spec, storage))
    scheduler = TrialScheduler(plan, events, Candidates([], True), events.append, known)
    tried = [scheduler.next() for _ in range(3)]
    rates = [trial.recipe.optimizer.lr for trial in tried if trial]
    assert rates[:2] == [0.032, 0.016]
    assert rates[2] not in rates[:2]
    again = TrialScheduler(make_plan(spec, events), events, Candidates([], True), events.append, known)
    following = again.next()
    assert following and following.recipe.optimizer.lr not in rates


def test_a_grid_has_no_use_for_it() -> None:
    fields = {"name": "s", "axes": {"optimizer.lr": [0.01, 0.02]}, "search": {"prior": "storage"}}
    with pytest.raises(InputError, match="grid does not follow from results"):
        checked_spec(Document(fields, "sweep.yaml", {}), [])
