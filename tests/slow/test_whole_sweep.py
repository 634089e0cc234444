"""The shipped sweep, smaller, end to end on real digits: does it learn, can its winner be used and made again?"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mpdit
from pipelines.export import bundle_evaluation
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import ScoringOptions, evaluate
from pipelines.training.training_folder import read_recipe
from tests.slow.conftest import PATIENCE, mpdit_json
from tests.slow.conftest import mpdit as run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("whole"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def bundle(whole_sweep: Path) -> Path:
    run("best", "conditioning", "--export", "--storage", "runs", cwd=whole_sweep)
    return whole_sweep / "bundles" / "conditioning"


def test_every_cell_is_scored_and_ranked(whole_sweep: Path) -> None:
    rows = mpdit_json("rank", "conditioning", "--storage", "runs", cwd=whole_sweep)
    assert len(rows) == 45
    assert {row["status"] for row in rows} == {"completed"}
    values = [row["value"] for row in rows]
    assert values[3:] == sorted(values[3:])  # the first three are in the order of fresh noise
    assert [row["confirmed"] for row in rows[:3]] == sorted(row["confirmed"] for row in rows[:3])
    assert rows[0]["metric"] == "fd_digits_500"


def test_running_it_again_trains_nothing(whole_sweep: Path) -> None:
    ledger = whole_sweep / "runs/sweeps/conditioning/ledger.jsonl"
    run("sweep", "conditioning", "--storage", "runs", cwd=whole_sweep)  # a page of the docs may have given it hours
    before = ledger.read_bytes()
    text = run("sweep", "conditioning", "--storage", "runs", cwd=whole_sweep)
    assert "nothing to train or score" in text
    assert ledger.read_bytes() == before


def assert_learned(folder: Path, times: float) -> None:
    """The best training of the sweep is so many times better than it was at a tenth of its steps."""
    best = mpdit_json("best", "conditioning", "--storage", "runs", cwd=folder)
    run_folder = folder / "runs/trials" / best["trial"]
    recipe = read_recipe(run_folder)
    snapshots = [int(path.stem.split("-")[1]) for path in (run_folder / "ema").glob("step-*")]
    tenth = max(step for step in snapshots if step <= recipe.steps / 10)
    assert tenth >= recipe.steps / 10 * 0.8
    early: list[dict[str, Any]] = []
    cell = Cell(max(0.05, best["params"]["ema.sigma_rel"]), Evaluation())  # no narrower one so early
    evaluate(run_folder, recipe, [cell], early.append, ScoringOptions(step=tenth))
    assert best["value"] <= early[0]["value"] / times


def test_learning_is_real(whole_sweep: Path) -> None:
    assert_learned(whole_sweep, times=2)


@pytest.mark.soak
def test_the_shipped_sweep_learns_and_is_made_again(tmp_path: Path) -> None:
    """Adds to CI: the shipped sweep as it is, with all its steps and samples."""
    run("sweep", "conditioning", cwd=tmp_path, patience=4 * PATIENCE)
    assert len(mpdit_json("rank", "conditioning", cwd=tmp_path)) == 45
    assert_learned(tmp_path, times=4)
    run("best", "conditioning", "--export", cwd=tmp_path)
    assert_made_again(tmp_path / "bundles" / "conditioning", tmp_path)


def test_the_bundle_is_the_winner(bundle: Path, whole_sweep: Path) -> None:
    best = mpdit_json("best", "conditioning", "--storage", "runs", cwd=whole_sweep)
    found = mpdit_json("evaluate", bundle, cwd=whole_sweep)
    assert found[0]["value"] == best["value"]
    model, recipe = mpdit.load(bundle)
    assert recipe["model"]["modulation"] == best["params"]["model.modulation"]
    assert model(torch.zeros(1, 1, 8, 8), torch.ones(1), torch.tensor([3])).shape == (1, 1, 8, 8)


def assert_made_again(bundle: Path, folder: Path) -> None:
    """Training the bundle's recipe gives its weights and its value, bit for bit."""
    found = mpdit_json("train", bundle, "--output", "again", cwd=folder)
    told = json.loads((bundle / "provenance.json").read_text())["result"]
    assert (found[0]["value"], found[0]["stderr"]) == (told["value"], told["stderr"])
    one, two = mpdit.load(bundle)[0], mpdit.load(folder / "again")[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_training_the_bundle_again_gives_it_bit_for_bit(bundle: Path, whole_sweep: Path) -> None:
    assert_made_again(bundle, whole_sweep)
    assert bundle_evaluation(bundle).samples == 500


def test_a_sibling_differs_by_its_seed_alone(bundle: Path, whole_sweep: Path) -> None:
    settings = ["--set", "seed=1", "--set", "steps=60"]
    mpdit_json("train", bundle, "--output", "sibling", *settings, cwd=whole_sweep)
    own, sibling = read_recipe(bundle), read_recipe(whole_sweep / "sibling")
    assert sibling == own.model_copy(update={"seed": 1, "steps": 60})


def test_the_plan_of_a_finished_sweep_reuses_everything(whole_sweep: Path) -> None:
    found = mpdit_json("plan", "conditioning", "--storage", "runs", cwd=whole_sweep)
    assert len(found["reused"]) == 9
    more = ["--set", "axes.optimizer.lr=[0.05, 0.1, 0.2, 0.07]"]
    found = mpdit_json("plan", "conditioning", "--storage", "runs", *more, cwd=whole_sweep)
    assert len(found["reused"]) == 9
    assert len(found["trials"]) == 12
    assert found["estimate"]["hours"] > 0
