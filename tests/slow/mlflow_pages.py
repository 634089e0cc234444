"""MLflow's pages in a real browser. `python -m tests.slow.mlflow_pages STORAGE FOLDER` makes the README's pictures."""

import json
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

from tests.slow.conftest import start

BROWSER_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PATIENCE = 120  # seconds


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(storage: Path) -> Iterator[str]:
    """`mpdit ui` over a storage; yields its address."""
    port = free_port()
    server = start("ui", "--storage", storage, "--port", str(port))
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.communicate(timeout=PATIENCE)


@contextmanager
def browser_page() -> Iterator[tuple[Page, list[str]]]:
    """A page of Debian's chromium, and the list in which its errors collect."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise RuntimeError("chromium is not installed: apt-get install chromium")
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=BROWSER_OPTIONS)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page, errors
        browser.close()


def runs_page(page: Page, address: str, storage: Path, name: str) -> None:
    """The sweep's own view of its cells, best first, as `mpdit ui` names it."""
    from sweeps.storage.layout import Storage
    from sweeps.tracking.mlflow_view import cells_page

    path = cells_page(Storage(storage), name)
    assert path is not None
    page.goto(f"{address}{path}")
    page.get_by_text("σ").first.wait_for(timeout=PATIENCE * 1000)  # the first row: a cell is named for its width
    close_assistant(page)


def run_page(page: Page, address: str, experiment: str, run: str, waits_for: str, tab: str = "") -> None:
    """One run's page, once a text is there."""
    page.goto(f"{address}/#/experiments/{experiment}/runs/{run}{tab}")
    page.get_by_text(waits_for).first.wait_for(timeout=PATIENCE * 1000)
    close_assistant(page)


def picture_then_next(page: Page, step: int) -> str:
    """The picture that the viewer shows at a step, once it is there; its slider is then moved to the next."""
    picture = page.locator(f"img[src*='step%2B{step}%2B']").first
    picture.wait_for(timeout=PATIENCE * 1000)
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    address = str(picture.get_attribute("src"))
    page.get_by_role("slider").first.press("ArrowRight")
    return address


def close_assistant(page: Page) -> None:
    """MLflow opens a chat panel on the first visit; it hides a third of the page."""
    for button in page.get_by_role("button", name="Close").all():
        button.click()


def compare_page(page: Page, address: str, experiment: str, runs: list[str]) -> None:
    """The comparison of some cells, with its parallel coordinates."""
    query = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
    page.goto(f"{address}/#/compare-runs?{query}")
    page.get_by_text("Parallel Coordinates Plot").first.wait_for(timeout=PATIENCE * 1000)
    page.locator(".js-plotly-plot").first.wait_for(timeout=PATIENCE * 1000)
    close_assistant(page)


def cells_of(storage: Path, name: str) -> tuple[str, list[str]]:
    """The experiment's id and the run ids of its scored cells, best first."""
    from mlflow import MlflowClient

    from sweeps.storage.layout import Storage
    from sweeps.tracking.mlflow_view import CELL, tracking_uri

    client = MlflowClient(tracking_uri=tracking_uri(Storage(storage), None))
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], order_by=["metrics.frechet ASC"])
    return experiment.experiment_id, [run.info.run_id for run in found if CELL in run.data.tags]


def runs_of_kind(storage: Path, name: str, kind: str) -> list[str]:
    """The run ids of the sweep (one), its trials or its cells."""
    from mlflow import MlflowClient

    from sweeps.storage.layout import Storage
    from sweeps.tracking.mlflow_view import KIND, tracking_uri

    client = MlflowClient(tracking_uri=tracking_uri(Storage(storage), None))
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`{KIND}` = '{kind}'")
    return [run.info.run_id for run in found]


def main(storage: Path, folder: Path) -> None:
    name = "conditioning"
    experiment, cells = cells_of(storage, name)
    with served(storage) as address, browser_page() as (page, _):
        page.set_viewport_size({"width": 1600, "height": 860})

        def keep(picture: str) -> None:
            page.wait_for_timeout(5000)
            page.screenshot(path=folder / picture)

        runs_page(page, address, storage, name)
        keep("mlflow-runs.png")
        run_page(page, address, experiment, runs_of_kind(storage, name, "sweep")[0], "Show more")
        page.get_by_text("Show more").first.click()
        keep("mlflow-sweep.png")
        run_page(page, address, experiment, runs_of_kind(storage, name, "trial")[0], "gradients", "/model-metrics")
        page.get_by_placeholder("Search metric charts").fill("loss|magnitude_drift|as they grow")
        for step in (0, 32, 64):
            picture_then_next(page, step)
        keep("mlflow-trial.png")
        compare_page(page, address, experiment, cells)
        keep("mlflow-compare.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
