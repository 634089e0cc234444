"""MLflow over the sweep's storage, in a real browser."""

from pathlib import Path

import pytest

from tests.slow.mlflow_pages import browser_page, cells_of, compare_page, runs_page, served

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_mlflow_shows_the_sweep_and_compares_its_cells(whole_sweep: Path) -> None:
    experiment, cells = cells_of(whole_sweep / "runs", "conditioning")
    assert len(cells) == 30
    with served(whole_sweep / "runs") as address, browser_page() as (page, errors):
        runs_page(page, address, experiment)
        assert page.get_by_text("conditioning").count() > 0
        compare_page(page, address, experiment, cells[:10])
        for name in ("frechet", "ema.sigma_rel"):
            assert page.get_by_text(name).count() > 0
        assert errors == []
