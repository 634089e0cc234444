from typing import Any

import pytest

from mpdit.errors import BadInput
from pipelines.recipe import Recipe, resolve_runtime, trial_id


def changed(**fields: Any) -> Recipe:
    return Recipe.model_validate(fields)


def test_the_default_recipe_keeps_its_id() -> None:
    assert trial_id(Recipe()) == "93e56dc1d5"


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"steps": 601},
        {"batch": 64},
        {"optimizer": {"lr": 0.021}},
        {"model": {"modulation": "scale"}},
        {"objective": {"p_mean": -1.0}},
        {"runtime": {"precision": "bf16"}},
    ],
)
def test_another_training_has_another_id(fields: dict[str, Any]) -> None:
    assert trial_id(changed(**fields)) != trial_id(Recipe())


@pytest.mark.parametrize(
    "fields",
    [
        {"ema": {"sigma_rel": 0.05}},
        {"runtime": {"device": "cpu", "threads": 3}},
        {"optimizer": {"lr": 2e-2}},
        {"model": {"modulation": "gate+shift+scale"}},
        {"objective": {"p_std": 1}},
    ],
)
def test_the_same_training_written_otherwise_has_the_same_id(fields: dict[str, Any]) -> None:
    assert trial_id(changed(**fields)) == trial_id(Recipe())


def test_another_data_set_has_another_id(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from mpdit.datasets import load_dataset

    other = dataclasses.replace(load_dataset("digits"), fingerprint="sha256:other")
    monkeypatch.setattr("pipelines.recipe.load_dataset", lambda _name: other)
    assert trial_id(Recipe()) != "93e56dc1d5"


def test_reports_come_twenty_times_in_a_short_run_and_every_thousand_steps_in_a_long_one() -> None:
    assert changed(steps=5).report_every == 1
    assert changed(steps=600).report_every == 30
    assert changed(steps=400_000).report_every == 1000


def test_what_is_left_to_the_machine_is_settled() -> None:
    runtime = resolve_runtime(changed(runtime={"device": "cpu"}), threads=3).runtime
    assert runtime.model_dump() == {"device": "cpu", "threads": 3, "precision": "fp32", "compile": False}


def test_what_is_asked_for_stays() -> None:
    asked = {"device": "cpu", "threads": 2, "precision": "bf16", "compile": True}
    assert resolve_runtime(changed(runtime=asked)).runtime.model_dump() == asked


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # the edge of the machine
    with pytest.raises(BadInput, match="this machine shows none"):
        resolve_runtime(changed(runtime={"device": "cuda"}))
