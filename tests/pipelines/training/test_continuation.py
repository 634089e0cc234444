"""A training of N steps that goes on to 2N is the training of 2N steps, to the bit: weights, averages, reports."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mpdit.run_folder import EMA
from mpdit.training.ema import reconstruct
from pipelines.identity import name_at_any_length, trial_id
from pipelines.recipe import Recipe
from pipelines.training import checkpoint
from pipelines.training.continuation import continue_shorter, steps_taken
from pipelines.training.trainer import train
from pipelines.training.training_folder import CHECKPOINTS, read_recipe
from tests.pipelines.training.test_trainer import Killed, figures, same, trained

STEPS = 21
SIGMA_RELS = (0.03, 0.05, 0.08, 0.1, 0.15)


@pytest.fixture
def recipe(small_recipe: Recipe) -> Recipe:
    """One whose schedule is in steps and that ends between two reports."""
    fields = small_recipe.model_dump() | {"steps": STEPS}
    fields["model"] |= {"width": 16}
    fields["optimizer"] |= {"warmup": 3, "decay_from": 7}
    return Recipe.model_validate(fields)


def at(recipe: Recipe, steps: int) -> Recipe:
    return recipe.model_copy(update={"steps": steps})


def continued(recipe: Recipe, folder: Path, *shorter: Path) -> list[dict[str, Any]]:
    continue_shorter(recipe, folder, shorter)
    return trained(recipe, folder)


@pytest.mark.parametrize(("steps", "longer"), [pytest.param(21, 42, marks=pytest.mark.slow), (16, 32), (1, 2), (7, 9)])
def test_a_continued_training_is_the_undisturbed_one(steps: int, longer: int, recipe: Recipe, tmp_path: Path) -> None:
    undisturbed = trained(at(recipe, longer), tmp_path / "undisturbed")
    trained(at(recipe, steps), tmp_path / "short")
    reports = continued(at(recipe, longer), tmp_path / "long", tmp_path / "short")
    assert min(line["step"] for line in reports) > steps
    assert same(tmp_path / "long", tmp_path / "undisturbed")
    assert figures(reports) == figures(undisturbed)[-len(reports) :]
    if longer >= 40:
        one, two = (reconstruct(tmp_path / run / EMA, SIGMA_RELS, longer) for run in ("long", "undisturbed"))
        assert all(torch.equal(a[name], b[name]) for a, b in zip(one, two, strict=True) for name in a)
    assert steps_taken(tmp_path / "long", longer) == longer - steps
    assert steps_taken(tmp_path / "undisturbed", longer) == longer


def test_it_is_so_in_several_legs_and_after_a_kill(recipe: Recipe, tmp_path: Path) -> None:
    trained(at(recipe, 25), tmp_path / "undisturbed")
    trained(at(recipe, 5), tmp_path / "first")
    second, third = recipe, at(recipe, 25)
    continue_shorter(second, tmp_path / "second", [tmp_path / "first"])

    def killed(line: dict[str, Any]) -> None:
        if line["step"] == 16:
            raise Killed

    with pytest.raises(Killed):
        train(second, tmp_path / "second", killed)
    continued(second, tmp_path / "second", tmp_path / "first")
    continued(third, tmp_path / "third", tmp_path / "first", tmp_path / "second")
    assert steps_taken(tmp_path / "third", 25) == 25 - STEPS
    assert same(tmp_path / "third", tmp_path / "undisturbed")


def test_each_folder_stands_alone(recipe: Recipe, tmp_path: Path) -> None:
    trained(recipe, tmp_path / "short")
    before = reconstruct(tmp_path / "short" / EMA, [0.07], STEPS)
    continued(at(recipe, 32), tmp_path / "long", tmp_path / "short")
    (after,) = reconstruct(tmp_path / "short" / EMA, [0.07], STEPS)
    assert all(torch.equal(before[0][name], after[name]) for name in after)
    shutil.rmtree(tmp_path / "short")
    assert reconstruct(tmp_path / "long" / EMA, [0.07], 32)
    assert read_recipe(tmp_path / "long").steps == 32


def test_what_has_no_state_left_is_trained_from_the_first_step(recipe: Recipe, tmp_path: Path) -> None:
    trained(recipe, tmp_path / "cleaned")
    checkpoint.drop_tensors(tmp_path / "cleaned" / CHECKPOINTS)
    reports = continued(at(recipe, 22), tmp_path / "long", tmp_path / "cleaned", tmp_path / "none")
    assert reports[0]["step"] == 0
    assert steps_taken(tmp_path / "long", 22) == 22


def test_a_damaged_state_is_trained_from_the_first_step(recipe: Recipe, tmp_path: Path) -> None:
    trained(recipe, tmp_path / "short")
    checkpoint.drop_tensors(tmp_path / "short" / CHECKPOINTS, keep=STEPS)
    newest = checkpoint.path_of(tmp_path / "short" / CHECKPOINTS, STEPS) / checkpoint.STATE
    newest.write_bytes(newest.read_bytes()[:-3])
    reports = continued(at(recipe, 22), tmp_path / "long", tmp_path / "short")
    assert reports[0]["step"] == 0
    assert steps_taken(tmp_path / "long", 22) == 22
    trained(at(recipe, 22), tmp_path / "undisturbed")
    assert same(tmp_path / "long", tmp_path / "undisturbed")


def test_a_longer_training_is_no_beginning(recipe: Recipe, tmp_path: Path) -> None:
    trained(recipe, tmp_path / "longer")
    checkpoint.drop_tensors(tmp_path / "longer" / CHECKPOINTS, keep=STEPS)
    continue_shorter(at(recipe, STEPS - 1), tmp_path / "shorter", [tmp_path / "longer"])
    assert not (tmp_path / "shorter").exists()


def test_an_attempt_that_was_cut_off_is_made_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(recipe, tmp_path / "short")
    with monkeypatch.context() as cut, pytest.raises(Killed):
        cut.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(Killed))
        continue_shorter(at(recipe, 22), tmp_path / "long", [tmp_path / "short"])
    assert not checkpoint.steps(tmp_path / "long" / CHECKPOINTS)
    assert continued(at(recipe, 22), tmp_path / "long", tmp_path / "short")[0]["step"] == 22


def test_without_hard_links_files_are_copied(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:  # stands for a file system without them
        raise OSError("not supported")

    trained(recipe, tmp_path / "short")
    monkeypatch.setattr("os.link", no_links)
    assert continued(at(recipe, 22), tmp_path / "long", tmp_path / "short")[0]["step"] == 22


@pytest.mark.parametrize(
    ("changes", "goes_on"),
    [
        ({}, False),  # the defaults are shares
        ({"warmup": 5}, False),
        ({"decay_from": 100}, False),
        ({"warmup": 5, "decay_from": 100}, True),
        ({"warmup": 0, "decay_from": 1}, True),  # never falls
        ({"warmup": 0, "schedule": "constant"}, True),
        ({"warmup": 5, "decay_from": 100, "schedule": "cosine"}, False),
    ],
)
def test_only_a_schedule_that_does_not_know_the_end_can_go_on(changes: dict[str, Any], goes_on: bool) -> None:
    recipes = [Recipe.model_validate({"optimizer": changes, "steps": steps}) for steps in (200, 300)]
    assert [recipe.can_go_on for recipe in recipes] == [goes_on, goes_on]
    rates = [[recipe.learning_rate.at(step, recipe.steps) for step in range(1, 201)] for recipe in recipes]
    assert (rates[0] == rates[1]) is goes_on
    names = {name_at_any_length(recipe) for recipe in recipes}
    assert names == {None} if not goes_on else len(names) == 1 and None not in names
    assert len({trial_id(recipe) for recipe in recipes}) == 2


@pytest.mark.parametrize("name", ["warmup", "decay_from"])
def test_half_a_step_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="a number of steps is whole"):
        Recipe.model_validate({"optimizer": {name: 20.5}})
