"""The report's figure of the distance class by class."""

from pathlib import Path

from sweeps.planning.plan import Plan
from sweeps.report.class_distances import by_class
from sweeps.report.figures import Figure, sweep_data
from sweeps.report.page import render
from sweeps.results.ranking import rank
from sweeps.storage.events import Event, SweepStarted
from sweeps.storage.layout import Storage
from tests.sweeps.conftest import ended, plan_of, scored

Distances = dict[str, float | None]
ASKED = {"samples": 2000, "metrics": ["frechet_by_class"]}


def distances(values: dict[int, float], fewest: int = 200, left_out: int = 0) -> Distances:
    name = "frechet_by_class"
    facts = {name: 1.0, f"{name}/fewest": fewest, f"{name}/dimensions": 64, f"{name}/left_out": left_out}
    return {**facts, **{f"{name}/{number}": value for number, value in values.items()}}


def story(plan: Plan, *of_trial: Distances) -> list[Event]:
    found: list[Event] = [SweepStarted("s", 1)]
    for at, more in enumerate(of_trial):
        found += [scored(plan, at, 0, 2.0 + at, more=more), ended(plan, at)]
    return found


def drawn(plan: Plan, events: list[Event]) -> Figure | None:
    data = sweep_data(plan, rank(plan, events), events)
    key = plan.cells[0].cell.key
    return by_class(data, [key] * min(2, len(data.scored)))


def test_the_best_cell_stands_beside_the_second_class_by_class_the_worst_first(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02, 0.03]}, evaluation=ASKED)
    events = story(plan, distances({0: 3.0, 1: 5.0}), distances({0: 4.5, 1: 4.0}), distances({0: 9.0, 1: 9.0}))
    found = drawn(plan, events)
    assert found is not None
    assert found.table.header == ["class", "lr 0.01", "lr 0.02"]
    assert found.table.lines == [["1", "5", "4"], ["0", "3", "4.5"]]
    assert "full rank" not in found.caption
    assert "left out" not in found.caption
    page = render(Storage(tmp_path), plan, rank(plan, events), events)
    assert '<section id="classes"><h2>Class by class</h2>' in page
    assert "lr 0.02: 1, 4</title>" in page  # a point of the drawing


def test_few_samples_and_classes_left_out_are_said(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]}, evaluation=ASKED)
    found = drawn(plan, story(plan, distances({0: 3.0}, fewest=100, left_out=7), distances({0: 4.0}, fewest=100)))
    assert found is not None
    assert "The smallest class has 100 samples or images for 64 features" in found.caption
    assert "full rank" in found.caption
    assert "7 classes with fewer than two samples or images are left out" in found.caption


def test_seeds_are_one_cell_and_a_thousand_classes_are_fifty_lines(tmp_path: Path) -> None:
    plan = plan_of({"seed": [0, 1]}, evaluation=ASKED)
    of_seed = [distances({number: number + shift for number in range(1000)}) for shift in (0.0, 1.0)]
    found = drawn(plan, story(plan, *of_seed))
    assert found is not None
    assert found.table.header == ["class", "the recipe"]
    assert len(found.table.lines) == 50
    assert found.table.lines[0] == ["999", "999.5"]
    assert "the 50 classes that are worst" in found.caption
    assert "second" not in found.caption


def test_where_it_was_not_measured_the_report_has_no_such_figure(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.01, 0.02]})
    events = story(plan, {}, {"kid": 1.0})
    assert drawn(plan, events) is None
    assert 'id="classes"' not in render(Storage(tmp_path), plan, rank(plan, events), events)
