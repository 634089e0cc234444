"""Searches and schedulers as kinds: one is added by registering it, and what it declares is checked."""

import re
from pathlib import Path

import pytest

from mpdit.errors import InputError
from mpdit.registry import Registry
from pipelines.yaml_file import read_yaml
from sweeps.planning.plan import Plan
from sweeps.search.simulator import simulate
from sweeps.spec.model import Search
from sweeps.spec.reading import checked_spec
from sweeps.spec.scheduler_kind import SCHEDULERS, SchedulerKind
from sweeps.spec.search_algorithm import SEARCHES, SearchAlgorithm
from tests.sweeps.conftest import plan_of
from tests.sweeps.search.test_simulator import curve, outcomes

DOCS = Path(__file__).parents[3] / "docs" / "search.md"
LR = {"optimizer.lr": {"log_uniform": [0.001, 1.0]}}


@pytest.fixture
def middle(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a made-up search, which tries the middle of the space first."""
    SEARCHES.names()
    monkeypatch.setattr(SEARCHES, "_kinds", dict(SEARCHES._kinds))

    def points(space: object, count: int, seed: int) -> list[dict[str, float]]:
        return [{"optimizer.lr": 0.03 * 2**place} for place in range(count)]

    SEARCHES.register(SearchAlgorithm(name="middle", doc="the middle first", points=points))
    return "middle"


def middle_plan(name: str) -> Plan:
    return plan_of(LR, search={"algorithm": name, "trials": 3})


def test_a_search_that_is_registered_is_run(middle: str) -> None:
    plan = middle_plan(middle)
    assert [trial.recipe.optimizer.lr for trial in plan.trials] == [0.03, 0.06, 0.12]
    assert outcomes(simulate(plan, curve)) == {"completed": 3}


def test_a_search_that_is_registered_is_in_the_schema_and_in_messages(middle: str) -> None:
    assert middle in str(Search.model_json_schema()["properties"]["algorithm"])
    with pytest.raises(InputError, match=r"allowed: .* gp, grid, middle, nsga2") as problem:
        SEARCHES["midle"]
    assert "nearest:  middle" in str(problem.value)


def test_a_scheduler_that_is_registered_stops_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    SCHEDULERS.names()
    monkeypatch.setattr(SCHEDULERS, "_kinds", dict(SCHEDULERS._kinds))
    SCHEDULERS.register(
        SchedulerKind(name="all_but_first", doc="", rule=lambda mine, others, reduction: "late" if others else None)
    )
    plan = plan_of(LR, search={"algorithm": "random", "trials": 4}, scheduler={"kind": "all_but_first"})
    assert outcomes(simulate(plan, curve)) == {"completed": 1, "stopped": 3}


@pytest.mark.parametrize("name", ["nsga4", "TPE", ""])
def test_an_unknown_search_is_never_another_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(f"name: x\naxes: {{optimizer.lr: [0.01, 0.02]}}\nsearch: {{algorithm: {name!r}, trials: 4}}\n")
    with pytest.raises(InputError, match="no search algorithm"):
        checked_spec(read_yaml(path), [])


@pytest.mark.parametrize("registry", [SEARCHES, SCHEDULERS], ids=["searches", "schedulers"])
def test_every_kind_has_its_line_in_the_docs(registry: Registry[SearchAlgorithm]) -> None:
    listed = re.findall(r"`(\w+)`", "".join(line for line in DOCS.read_text().splitlines() if line.startswith("| `")))
    assert [name for name in registry.names() if name not in (*listed, "none")] == []
