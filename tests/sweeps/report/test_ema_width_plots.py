"""Pictures of a sweep over EMA widths: what is drawn, and that it is drawn."""

from pathlib import Path

import pytest
from PIL import Image

from sweeps.planning.plan import Plan
from sweeps.report.ema_width_plots import grid, lines, write_figures
from sweeps.results.ranking import rank
from sweeps.spec.reading import read_spec, sweep_file
from sweeps.storage.events import Event
from tests.sweeps.conftest import ended, plan_of, scored

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # matplotlib's own


def finished(plan: Plan) -> list[Event]:
    cells = [
        scored(plan, trial, cell, 1.0 + trial + abs(cell - 1))
        for trial in range(len(plan.trials))
        for cell in range(len(plan.cells))
    ]
    return cells + [ended(plan, trial) for trial in range(len(plan.trials))]


def test_a_curve_for_each_learning_rate_and_a_map_of_both(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.02, 0.01], "ema.sigma_rel": [0, 0.05, 0.1]})
    rows = rank(plan, finished(plan))
    curves = lines(rows, ["optimizer.lr"])
    assert {label: [row.value for row in same] for label, same in curves.items()} == {
        "lr 0.02": [2.0, 1.0, 2.0],
        "lr 0.01": [3.0, 2.0, 3.0],
    }
    assert grid(rows, "optimizer.lr") == ([0.01, 0.02], [0.0, 0.05, 0.1], [[3.0, 2.0, 3.0], [2.0, 1.0, 2.0]])
    written = write_figures(plan, rows, tmp_path / "figures")
    assert [path.name for path in written] == ["ema_width.png", "ema_width_map.png"]
    for path in written:
        with Image.open(path) as picture:
            assert picture.width > 300


def test_a_sweep_without_widths_has_no_pictures(tmp_path: Path) -> None:
    plan = plan_of({"optimizer.lr": [0.02, 0.01]})
    assert write_figures(plan, rank(plan, finished(plan)), tmp_path / "figures") == []
    assert not (tmp_path / "figures").exists()


def test_the_shipped_sweep_over_widths_has_the_raw_weights_among_its_points() -> None:
    assert 0 in read_spec(sweep_file("ema_width")).axes["ema.sigma_rel"]
