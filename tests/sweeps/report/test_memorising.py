"""What the report says of learning by heart."""

from pathlib import Path

from sweeps.planning.plan import Plan
from sweeps.report.page import render
from sweeps.results.ranking import rank
from sweeps.storage.events import Event, Progress, SweepStarted
from sweeps.storage.layout import Storage
from tests.sweeps.conftest import ended, plan_of, scored

GAP = {"frechet_held_out": 3.5, "frechet_gap": 0.25, "frechet_gap_std": 0.125, "nearer_to_training": 0.75}


def page(plan: Plan, events: list[Event], folder: Path) -> str:
    return render(Storage(folder), plan, rank(plan, events), events)


def story(plan: Plan, more: dict[str, float | None]) -> list[Event]:
    seeds = range(len(plan.trials))
    return [
        SweepStarted("s", 1),
        *(scored(plan, at, 0, 2.0 + at, more=more) for at in seeds),
        *(ended(plan, at) for at in seeds),
    ]


def test_without_a_holdout_the_report_says_that_memorising_was_not_looked_for(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]})
    assert "learnt by heart was not looked for" in page(plan, story(plan, {}), tmp_path)


def test_with_a_holdout_the_report_gives_the_best_cell_s_figures(tmp_path: Path) -> None:
    plan = plan_of({"seed": [0, 1]}, recipe={"data": {"holdout": 0.1}})
    found = page(plan, story(plan, GAP), tmp_path)
    assert "3.5, 0.25 ± 0.125 more than to as many training images" in found
    assert "75% are nearer to a training image" in found
    assert "not looked for" not in found
    assert "0.25 less than" in page(plan, story(plan, {**GAP, "frechet_gap": -0.25, "frechet_gap_std": None}), tmp_path)


def test_a_holdout_whose_cells_are_still_to_come_says_nothing_yet(tmp_path: Path) -> None:
    plan = plan_of({"seed": [0, 1]}, recipe={"data": {"holdout": 0.1}})
    begun = [event for event in story(plan, GAP) if event.kind != "cell"]
    found = page(plan, [*begun, Progress(plan.trials[0].id, 1, {"loss": 1.0})], tmp_path)
    assert 'id="memorising"' not in found
