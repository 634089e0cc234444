import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mpdit
from mpdit.errors import InputError
from pipelines.export import bundle_evaluation, export
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import evaluate
from pipelines.training.trainer import train
from pipelines.training.training_folder import read_recipe

FEW = Evaluation(samples=60, steps=4, guidance=1.5)
SOURCE = {"sweep": "made", "sweep_id": "0", "trial": "abc", "params": {}}


@pytest.fixture
def exported(tmp_path: Path, small_recipe: Recipe) -> tuple[Path, dict[str, Any]]:
    run, results = tmp_path / "run", []
    recipe = train(small_recipe, run, lambda _line: None)
    evaluate(run, recipe, [Cell(0.05, FEW)], results.append)
    return export(run, results[0], tmp_path / "bundle", SOURCE), results[0]


def test_a_bundle_holds_the_four_files(exported: tuple[Path, dict[str, Any]]) -> None:
    names = sorted(path.name for path in exported[0].iterdir())
    assert names == ["README.md", "model.safetensors", "provenance.json", "recipe.yaml"]


def test_a_bundle_scores_what_its_run_scored(exported: tuple[Path, dict[str, Any]]) -> None:
    bundle, result = exported
    again: list[dict[str, Any]] = []
    evaluate(bundle, read_recipe(bundle), [Cell(0.05, bundle_evaluation(bundle))], again.append)
    assert again[0]["value"] == result["value"]
    assert bundle_evaluation(bundle) == FEW


@pytest.mark.slow
def test_training_a_bundle_again_reaches_the_same_result(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    bundle, result = exported
    again: list[dict[str, Any]] = []
    recipe = train(read_recipe(bundle), tmp_path / "again", lambda _line: None)
    evaluate(tmp_path / "again", recipe, [Cell(recipe.ema.sigma_rel, bundle_evaluation(bundle))], again.append)
    assert again[0]["value"] == result["value"]
    assert recipe.runtime.threads == 1
    one, two = mpdit.load(bundle)[0], mpdit.load(tmp_path / "again")[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_bundle_has_one_width_only(exported: tuple[Path, dict[str, Any]]) -> None:
    assert mpdit.load(exported[0], ema=0.05)[1]["ema"]["sigma_rel"] == 0.05
    with pytest.raises(InputError, match="one EMA width only"):
        mpdit.load(exported[0], ema=0.1)


def test_the_card_says_what_was_measured(exported: tuple[Path, dict[str, Any]]) -> None:
    bundle, result = exported
    card = (bundle / "README.md").read_text()
    for part in (
        f"{result['value']:.3f}",
        f"{result['noise_floor']:.3f}",
        "fd_digits_60",
        "dpm++2m",
        "0.05",
        "mpdit.load",
    ):
        assert part in card


def test_the_provenance_names_code_machine_data_and_features(exported: tuple[Path, dict[str, Any]]) -> None:
    found = json.loads((exported[0] / "provenance.json").read_text())
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert found["machine"]["device"] == "cpu"
    assert found["machine"]["host"]
    assert found["seed"] == 0
    assert found["result"]["provenance"]["data"].startswith("sha256:")
    assert set(found["git"]) == {"commit", "diff"}
