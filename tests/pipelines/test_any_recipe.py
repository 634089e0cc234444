"""Every valid recipe of a few steps ends completed or diverged, and what it reports stands in a ledger."""

import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpdit.diffusion.samplers.registry import SAMPLERS
from mpdit.errors import InputError
from mpdit.scoring.frechet import FOLDS
from mpdit.training.cadence import is_reported
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation
from pipelines.scoring.evaluation import evaluate, forget
from pipelines.training.measurements import Diverged
from pipelines.training.trainer import train
from pipelines.training.training_folder import is_trained
from sweeps.storage.events import CellScored, Event, Progress, encode, from_plain
from tests.strategies import chosen_kind, recipes

SCORES = {"value", "stderr", "magnitude_drift", "noise_floor"}


@st.composite
def cells(draw: Any) -> Cell:
    """A way to score that takes a moment."""
    steps, guidance = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([0.0, 1.0, 2.5, 1e30]))
    fields = {"samples": FOLDS, "steps": steps, "guidance": guidance, "sampler": draw(chosen_kind(SAMPLERS))}
    return Cell(draw(st.sampled_from([0.0, 0.05, 0.1])), Evaluation.model_validate(fields))


def as_line(event: Event) -> dict[str, Any]:
    """The event as it stands in a ledger, and is read again."""
    line: dict[str, Any] = json.loads(json.dumps(encode(event), allow_nan=False))
    assert from_plain(line) == from_plain(encode(event))
    return line


def is_trained_and_scored(recipe: Recipe, cell: Cell) -> None:
    with TemporaryDirectory() as name:
        folder, steps = Path(name), list[dict[str, Any]]()

        def report(line: dict[str, Any]) -> None:
            steps.append(as_line(Progress("t", line["step"], line["metrics"])))

        try:
            settled = train(recipe, folder, report)
        except Diverged:
            assert not is_trained(folder)
            return
        reported = [step for step in range(1, recipe.steps + 1) if is_reported(step) or step == recipe.steps]
        assert [line["step"] for line in steps] == [0, *reported]
        assert not any("non_finite" in line for line in steps)  # what is finite at its end was so on its way
        results: list[dict[str, Any]] = []
        try:
            evaluate(folder, settled, [cell], results.append)
        except InputError as refusal:
            assert "cannot give the EMA width" in str(refusal) or "guidance" in str(refusal)
            return
        finally:
            forget(folder)
        line = as_line(CellScored("t", recipe.steps, **results[0]))
        assert all(line[name] is None or math.isfinite(line[name]) for name in SCORES)


@settings(max_examples=6)
@given(recipe=recipes(), cell=cells())
def test_any_recipe_ends_completed_or_diverged(recipe: Recipe, cell: Cell) -> None:
    is_trained_and_scored(recipe, cell)


@pytest.mark.soak
@settings(max_examples=500)
@given(recipe=recipes(), cell=cells())
def test_many_recipes_end_completed_or_diverged(recipe: Recipe, cell: Cell) -> None:
    """Adds to CI: five hundred recipes of every kind and switch, each trained and scored."""
    is_trained_and_scored(recipe, cell)
