"""`from pipelines import train, evaluate`: the commands as functions."""

from pathlib import Path

import pytest

from mpdit.errors import InputError
from pipelines import evaluate, train
from pipelines.api import _read
from pipelines.recipe import Recipe
from tests.conftest import SMALL

FIELDS = SMALL | {"steps": 4}


def test_a_training_from_fields_is_scored_and_scored_again(tmp_path: Path) -> None:
    steps: list[int] = []
    done = train(FIELDS, tmp_path / "run", report=lambda _recipe: lambda line: steps.append(line["step"]))
    assert steps == [0, 1, 2, 4]
    assert done.result is not None and done.result["metric"] == "fd_digits_2k"
    assert (done.folder / "result.json").exists()
    found = evaluate(done.folder, [0, 0.1], samples=250)
    assert [result["params"]["ema.sigma_rel"] for result in found] == [0, 0.1]


def test_what_cannot_be_used_is_told_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stepz"):
        train({"stepz": 4}, tmp_path)
    with pytest.raises(InputError, match="lrr"):
        train(Recipe.model_validate(FIELDS), tmp_path, settings=["optimizer.lrr=1"])
    with pytest.raises(InputError):
        evaluate(tmp_path / "nowhere")


def test_a_bundle_of_release_0_1_0_is_trained_again_as_it_was_unless_another_design_is_set() -> None:
    bundle = Path(__file__).parents[1] / "fixtures" / "release-0.1.0" / "bundle"
    assert _read(bundle, [])[0].model.design == "F"
    assert _read(bundle, ["model.design=E"])[0].model.design == "E"
