"""MLflow over the sweep's storage and the sweep's report, in a real browser."""

from pathlib import Path

import pytest

from sweeps.report.live_page import watched
from sweeps.storage.events import SweepStarted
from sweeps.storage.layout import Storage
from tests.slow.conftest import mpdit
from tests.slow.mlflow_pages import (
    browser_page,
    cells_of,
    compare_page,
    picture_then_next,
    run_page,
    runs_of_kind,
    runs_page,
    served,
)
from tests.sweeps.conftest import ended, made, plan_of, scored

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("whole"), pytest.mark.filterwarnings("ignore")]


def test_mlflow_shows_the_sweep_and_compares_its_cells(whole_sweep: Path) -> None:
    storage = whole_sweep / "runs"
    experiment, cells = cells_of(storage, "conditioning")
    assert len(cells) == 45 + 3  # the best three again, on fresh noise
    with served(storage) as address, browser_page() as (page, errors):
        runs_page(page, address, storage, "conditioning")
        page.get_by_text("48 matching runs").wait_for(timeout=120_000)
        for column in ("frechet", "stderr", "ema.sigma_rel", "model.modulation"):
            assert page.get_by_text(column, exact=True).count() > 0
        sweep = runs_of_kind(storage, "conditioning", "sweep")[0]
        run_page(page, address, experiment, sweep, "with fd_digits_500")
        trial = runs_of_kind(storage, "conditioning", "trial")[0]
        run_page(page, address, experiment, trial, "gradients", "/model-metrics")
        page.get_by_placeholder("Search metric charts").fill("samples as they grow")
        shown = [picture_then_next(page, step) for step in (0, 32)]
        assert shown[0] != shown[1]
        compare_page(page, address, experiment, cells[:10])
        for name in ("frechet", "ema.sigma_rel", "Scatter Plot", "Contour Plot"):
            assert page.get_by_text(name).count() > 0
        assert errors == []


def test_a_reports_maps_are_whole_on_a_screen(tmp_path: Path) -> None:
    axes = {"model.modulation": ["scale+shift+gate", "scale+rotation+gate", "rotation+gate"]}
    axes |= {"optimizer.lr": [0.05, 0.1, 0.2], "ema.sigma_rel": [0, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2]}
    plan, storage = plan_of(axes), Storage(tmp_path)
    ledger = made(storage, plan)
    ledger.append(SweepStarted("s", 2))
    for trial in range(9):
        for cell in range(9):
            ledger.append(scored(plan, trial, cell, 102.345 + trial + cell / 8))
        ledger.append(ended(plan, trial))
    mpdit("report", "--storage", tmp_path, "-o", tmp_path / "report.html")
    with browser_page() as (page, _errors):
        page.goto((tmp_path / "report.html").as_uri())
        assert page.locator("table.map").count() == 3
        for width in (1000, 1200):
            page.set_viewport_size({"width": width, "height": 800})
            clipped = "[...document.querySelectorAll('div.map')].filter(e => e.scrollWidth > e.clientWidth).length"
            assert page.evaluate(clipped) == 0, width
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_page_to_watch_follows_the_sweep_by_itself(tmp_path: Path) -> None:
    plan = plan_of({"model.modulation": ["scale", "rotation"], "optimizer.lr": [0.1, 0.2], "ema.sigma_rel": [0.1]})
    storage = Storage(tmp_path)
    ledger = made(storage, plan)
    ledger.append(SweepStarted("s", 2))
    with watched(storage, "made", 0) as address, browser_page() as (page, errors):
        page.goto(address)
        page.get_by_text("Nothing has been reported yet").wait_for()
        page.evaluate("window.here = true")
        ledger.append(scored(plan, 0, 0, 2.5))
        page.locator("#ranking tbody tr").first.wait_for()
        for trial in range(1, 4):
            ledger.append(scored(plan, trial, 0, 2.5 + trial))
        ledger.append(ended(plan, 0))
        page.get_by_text("1 completed").first.wait_for()
        page.locator("details summary").first.click()
        ledger.append(ended(plan, 1))
        page.get_by_text("2 completed").first.wait_for()
        assert page.locator("#ranking tbody tr").count() == 4
        assert page.locator("details").first.get_attribute("open") is not None  # what was unfolded stays so
        assert page.evaluate("window.here")  # the page was not loaded anew
        assert errors == []


def test_the_report_fits_a_phone_asks_for_nothing_and_is_dark_in_the_dark(whole_sweep: Path) -> None:
    path = whole_sweep / "report.html"
    mpdit("report", "conditioning", "-o", path, cwd=whole_sweep)
    with browser_page() as (page, errors):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
        assert page.locator("#ranking tbody tr").count() == 45
        assert page.locator("svg[role=img]").count() >= 5
        assert page.locator("#samples img").count() in (1, 2)  # the best may be the baseline itself
        for width in (360, 1200):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        colour = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(colour)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(colour) != light
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(colour) == light
        assert errors == []
