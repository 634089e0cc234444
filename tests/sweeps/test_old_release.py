"""What release 0.1.0 wrote is ranked, reported, loaded, scored and continued by the code of today.

`tests/fixtures/release-0.1.0` was written by that release: `sweep.yaml`, run with one trial at a time and killed at
step 2 of the last of four trainings; the storage after `mpdit clean --best 1`, without MLflow's database, the sample
grids and the older checkpoint; what `rank --json`, `status --json` and `evaluate bundle --json` printed; the bundle of
`best --export`. `rank-when-done.json` is its ranking of the sweep when nothing kills it. The ids of trials
and the keys of cells are the old release's: a later one may compute other ids for new work, but it keeps these.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import mpdit as library
from mpdit.model.design import DESIGNS
from sweeps.storage.events import Progress
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import read
from tests.cli.conftest import Command, mpdit
from tests.slow.conftest import mpdit as run_process

fixtures = (mpdit,)
WRITTEN = Path(__file__).parents[1] / "fixtures" / "release-0.1.0"
COMPARED = ("rank", "trial", "status", "params", "metric", "value", "stderr", "seeds", "trials")
OTHER_PROCESSOR = 1e-4  # relative: matrix products of another processor differ in the last digits


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of what the release wrote."""
    return shutil.copytree(WRITTEN, tmp_path / "old")


def written(name: str) -> Any:
    return json.loads((WRITTEN / name).read_text())


def only(row: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: row[key] for key in keys}


def test_the_fixture_is_of_that_release_and_names_no_machine() -> None:
    assert written("bundle/provenance.json")["versions"]["mpdit"] == "0.1.0"
    for path in WRITTEN.rglob("*"):
        text = path.read_bytes() if path.is_file() else b""
        assert b"/home/" not in text
        assert b"/tmp/" not in text
        assert text.count(b'"host": ') == text.count(b'"host": "made-here"')


def test_its_ranking_and_status_are_what_it_showed(old: Path, mpdit: Command) -> None:
    rows = json.loads(mpdit("rank", "--storage", old / "storage", "--json").stdout)
    assert [only(row, COMPARED) for row in rows] == [only(row, COMPARED) for row in written("rank.json")]
    states, before = json.loads(mpdit("status", "--storage", old / "storage", "--json").stdout), written("status.json")
    assert [row["status"] for row in states["trials"]] == ["completed"] * 3 + ["interrupted"]
    for row, expected in zip(states["trials"], before["trials"], strict=True):
        assert only(row, tuple(expected)) == expected


def test_a_report_is_written_of_it(old: Path, mpdit: Command) -> None:
    done = mpdit("report", "--storage", old / "storage", "-o", old / "report.html")
    assert done.returncode == 0, done.stderr
    page = (old / "report.html").read_text()
    assert all(row["trial"] in page for row in written("rank.json"))
    assert "data:image/png" in page


def test_its_bundle_and_its_trial_are_loaded(old: Path) -> None:
    bundled, recipe = library.load(old / "bundle")
    assert recipe["model"]["modulation"] == "rotation+gate"
    assert recipe["model"]["design"] == "F"  # what that release called E
    assert bundled.network.architecture.design == DESIGNS["F"]
    trained, _ = library.load(old / "storage" / "trials" / written("rank.json")[0]["trial"], ema=0.1)
    for one, other in zip(bundled.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    between, _ = library.load(old / "storage" / "trials" / written("rank.json")[0]["trial"], ema=0.07)
    assert between(torch.zeros(1, 1, 8, 8), torch.ones(1), torch.tensor([3])).shape == (1, 1, 8, 8)


def test_its_bundle_scores_what_it_scored(old: Path, mpdit: Command) -> None:
    done = mpdit("evaluate", old / "bundle", "--json")
    assert done.returncode == 0, done.stderr
    (found,), (expected,) = json.loads(done.stdout), written("evaluate.json")
    assert found["metric"] == expected["metric"]
    for key in ("value", "stderr"):
        assert found[key] == pytest.approx(expected[key], rel=OTHER_PROCESSOR)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_its_sweep_goes_on_with_the_one_trial_that_is_left(old: Path) -> None:
    """And from its checkpoint; the three that are done are reused, though two have no weights any more."""
    ledger = Storage(old / "storage").ledger("before")
    before = read(ledger)
    rate = ["--set", "recipe.optimizer.lr=0.02"]  # its default; today's is another
    run_process("sweep", old / "sweep.yaml", "--storage", old / "storage", *rate)
    after = read(ledger)
    assert after[: len(before)] == before
    new = after[len(before) :]
    assert [line.kind for line in new].count("trial_started") == 1
    assert [line.step for line in new if isinstance(line, Progress)] == [4]
    rows = json.loads(run_process("rank", "--storage", old / "storage", "--json"))
    expected = written("rank-when-done.json")
    for key in ("rank", "trial", "status", "params"):
        assert [row[key] for row in rows] == [row[key] for row in expected]
    for key in ("value", "stderr"):
        assert [row[key] for row in rows] == pytest.approx([row[key] for row in expected], rel=OTHER_PROCESSOR)
    log = next((old / "storage" / "trials").glob("419aae722a/log.txt")).read_text()
    assert "from step 2 on cpu" in log
