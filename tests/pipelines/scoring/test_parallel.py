"""Several processes score what one would have scored, and end with the first."""

from pathlib import Path
from typing import Any

import pytest

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.scoring import parallel
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import SCORES, ScoringOptions, evaluate
from pipelines.scoring.parallel import evaluate_in_parallel, helper_processes, process_count
from pipelines.training.trainer import train
from tests.conftest import SMALL

CELLS = [Cell(width, Evaluation(samples=300, steps=2)) for width in (0.0, 0.1, 0.2)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe.model_validate(SMALL | {"steps": 12, "runtime": {"device": "cpu", "threads": 1}})
    return folder, train(recipe, folder, lambda line: None)


def essence(results: list[dict[str, Any]]) -> list[Any]:
    kept = ("value", "stderr", "left_out", "magnitude_drift", "provenance", "picture")
    return sorted([result["params"]["ema.sigma_rel"], *(result[name] for name in kept)] for result in results)


def test_two_processes_score_as_one(run: tuple[Path, Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, recipe = run
    alone, shared, drawn = list[dict[str, Any]](), list[dict[str, Any]](), list[int]()
    evaluate(folder, recipe, CELLS, alone.append)
    monkeypatch.setattr(parallel, "process_count", lambda recipe, cells: 2)
    evaluate_in_parallel(folder, recipe, CELLS, shared.append, ScoringOptions(progress=drawn.append))
    assert essence(shared) == essence(alone)
    assert sum(drawn) == 900


def test_there_is_room_for_as_many_as_the_processor_has_threads_for(run: tuple[Path, Recipe]) -> None:
    _, recipe = run
    cores = process_count(recipe, CELLS * 1000)
    assert process_count(recipe, CELLS[:1]) == 1
    wide = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"threads": cores})})
    assert process_count(wide, CELLS * 1000) == 1
    card = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update={"device": "cuda"})})
    assert process_count(card, CELLS * 1000) == 1


@pytest.mark.slow
def test_what_a_helper_refuses_is_refused(run: tuple[Path, Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, recipe = run
    monkeypatch.setattr(parallel, "process_count", lambda recipe, cells: 2)
    cells = [CELLS[0], Cell(0.4, CELLS[0].evaluation)]
    with pytest.raises(InputError, match=r"0\.4"):
        evaluate_in_parallel(folder, recipe, cells, lambda result: None, ScoringOptions())


@pytest.mark.slow
def test_an_interruption_ends_the_helpers_which_keep_what_they_have_drawn(run: tuple[Path, Recipe]) -> None:
    folder, recipe = run
    cell = Cell(0.1, Evaluation(samples=10_000, steps=5))
    task = {"run": str(folder), "recipe": recipe.model_dump(mode="json"), "compiled": False}
    task["cells"] = [(cell.sigma_rel, cell.evaluation.model_dump(mode="json"))]
    drawn, before = list[int](), set((folder / SCORES).glob("*"))
    with pytest.raises(KeyboardInterrupt), helper_processes([task], lambda result: None, drawn.append):
        while not drawn:
            pass
        raise KeyboardInterrupt
    assert 0 < sum(drawn) < 10_000
    assert len(set((folder / SCORES).glob("*.safetensors")) - before) == 1
