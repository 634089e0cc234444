"""A plan and made-up events for the tests that need no training."""

from typing import Any

import pytest
from msgspec.structs import replace

from pipelines.scoring.cell import Cell
from pipelines.yaml_file import write_yaml
from sweeps.planning.plan import Plan, make_plan
from sweeps.spec.model import SweepSpec
from sweeps.storage.events import CellScored, Event, TrialEnded
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import Ledger
from sweeps.storage.trial_status import TrialStatus


def plan_of(axes: dict[str, list[Any]], **fields: Any) -> Plan:
    """A plan, which confirms nothing unless it says so: made-up events know one noise."""
    given = {"name": "made", "axes": axes, "confirm": {"best": 0}, **fields}
    return make_plan(SweepSpec.model_validate(given))


@pytest.fixture
def small_plan() -> Plan:
    """2 modulations × 2 seeds, 2 widths."""
    return plan_of({"model.modulation": ["scale", "rotation"], "seed": [0, 1], "ema.sigma_rel": [0.05, 0.1]})


def made(storage: Storage, plan: Plan) -> Ledger:
    """The ledger of a sweep of that plan, prepared and not begun."""
    storage.prepare()
    storage.sweep("made").mkdir(exist_ok=True)
    write_yaml(storage.spec("made"), plan.spec.model_dump())
    return Ledger(storage.ledger("made"))


def scored(
    plan: Plan,
    trial: int,
    cell: int,
    value: float | None,
    stderr: float = 0.1,
    drift: float = 0.2,
    left_out: list[float] | None = None,
    samples: int | None = None,
    more: dict[str, float | None] | None = None,
) -> CellScored:
    planned = plan.cells[cell].cell.with_samples(samples or plan.spec.evaluation.samples)
    return CellScored(
        plan.trials[trial].id,
        600,
        params=planned.params,
        cell=planned.key,
        metric="fd_digits_2k",
        value=value,
        stderr=None if value is None else stderr,
        left_out=left_out,
        more=more or {},
        warnings=[],
        drawn=planned.evaluation.samples,
        magnitude_drift=drift,
        noise_floor=0.2,
        scoring_seconds=1.0,
        provenance={"extractor": "digits"},
    )


def scored_as(plan: Plan, trial: int, cell: Cell, value: float | None) -> CellScored:
    """The event of a cell that is not the plan's own: of fewer samples, or on fresh noise."""
    return replace(scored(plan, trial, 0, value), params=cell.params, cell=cell.key)


def ended(plan: Plan, trial: int, outcome: str = "completed", **facts: Any) -> Event:
    return TrialEnded(plan.trials[trial].id, TrialStatus(outcome), **facts)
