"""What names a training and a cell: golden names, and what changes them."""

import dataclasses
from typing import Any

import pytest

from mpdit.errors import InputError
from mpdit.model.old_designs import OLD_SWITCHES
from mpdit.registry import Plugin
from pipelines.identity import changed_fields, trial_id
from pipelines.old_identity import cell_key_of_0_1, current_cell_key, known_trial_id, trial_id_of_0_1
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Cell, Evaluation, cell_key, evaluation_of
from pipelines.yaml_file import Document, validate

SHAPES = {"name": "shapes", "resolution": 16, "count": 40}
RATE_OF_0_1 = {"lr": 0.02}  # its default
RECIPES: list[tuple[dict[str, Any], str, str]] = [  # fields, today's name, the name of release 0.1.0
    ({}, "52162c1b56", "4cd79a93c5"),
    ({"seed": 1}, "be99f9f40b", "5902717081"),
    ({"optimizer": {"lr": 0.04}, "steps": 450}, "ca5223310c", "7f3b1f52b7"),
    ({"model": {"modulation": "rotation+gate"}}, "824a77eb3b", "58534ff4a7"),
    ({"model": {"design": "A"}}, "a7674b879e", "70f42a16ca"),
    ({"model": {"design": "F", "mp_silu": False}}, "e77d6ed2d1", "880c477ef7"),
    (
        {"model": {"size": "S", "patch": 4}, "data": {"name": "shapes", "resolution": 16, "count": 40}},
        "761ccd310a",
        "3624d02cb9",
    ),
    ({"objective": {"name": "ddpm"}, "model": {"variant": "map-dit"}}, "b1ed9be5ef", "9db5e7e4a3"),
    ({"objective": {"name": "flow"}}, "82c5c4a7af", "007c3be3d0"),
    ({"optimizer": {"parametrization": "mup", "base_width": 128}, "model": {"width": 32}}, "05d9e495f2", "823983f4e9"),
    ({"runtime": {"precision": "bf16"}, "batch": 64, "label_dropout": 0.2}, "da03c4de6e", "54b5b2c890"),
]
CELLS: list[tuple[float, dict[str, Any], str, str]] = [  # width, fields, key, key where classes come in turn
    (0.1, {}, "54a5ae4eff", "3634b2e10c"),
    (0.05, {}, "ebb6dab4f7", "ea3954688b"),
    (0.0, {"samples": 500}, "b5e74165fb", "fe02c879cd"),
    (0.1, {"sampler": "ddim"}, "62509a4556", "2bb3c9ebd5"),
    (0.1, {"steps": 20}, "d2f4950379", "846ff2d071"),
    (0.1, {"guidance": 1.5}, "9805ab4364", "a2af1c05bf"),
    (0.1, {"guidance": 1.5, "guidance_interval": [0.3, 5.0]}, "1c09e3aba2", "dc26258dd8"),
    (0.1, {"seed": 7}, "f009a612bc", "635a0abbf2"),
    (0.1, {"extractor": "inception", "samples": 10_000}, "6803cfc275", "b128e78a0e"),
    (0.1, {"metrics": ["kid"]}, "015432bede", "ebf271e513"),
]


@pytest.mark.parametrize(("fields", "today", "old"), RECIPES)
def test_a_training_keeps_its_name(fields: dict[str, Any], today: str, old: str) -> None:
    recipe = Recipe.model_validate(fields)
    then = Recipe.model_validate(fields | {"optimizer": RATE_OF_0_1 | fields.get("optimizer", {})})
    assert trial_id(recipe) == today
    assert trial_id_of_0_1(then) == old


@pytest.mark.parametrize(("sigma_rel", "fields", "key", "in_turn"), CELLS)
def test_a_cell_keeps_its_key(sigma_rel: float, fields: dict[str, Any], key: str, in_turn: str) -> None:
    assert Cell(sigma_rel, Evaluation(**fields, classes="in_turn")).key == in_turn
    cell = Cell(sigma_rel, Evaluation(**fields))
    assert cell.key == key
    assert cell_key(cell.params) == key
    assert evaluation_of(cell.params) == cell.evaluation


def test_cells_scored_before_there_was_a_choice_of_classes_keep_their_keys() -> None:
    """And are named apart from those of today, which ask for other classes."""
    written = {path: value for path, value in Cell(0.1, Evaluation()).params.items() if path != "evaluation.classes"}
    assert cell_key(written) == Cell(0.1, Evaluation(classes="in_turn")).key == "3634b2e10c"
    assert evaluation_of(written).classes == "in_turn"
    assert len({Cell(0.1, Evaluation(classes=way)).key for way in ("as_data", "balanced", "in_turn")}) == 3


def test_what_is_left_at_its_default_is_not_named() -> None:
    assert changed_fields(Recipe()) == {}
    written_out = Recipe.model_validate(Recipe().model_dump())
    assert changed_fields(written_out) == {}
    assert changed_fields(Recipe.model_validate({"objective": {"p_mean": -1.0}, "seed": 3})) == {
        "objective": {"name": "edm", "p_mean": -1.0},
        "seed": 3,
    }


def test_edm_s_default_levels_are_named_by_what_they_are_for_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(**objective: float) -> str:
        return trial_id(Recipe.model_validate({"objective": objective}))

    assert name() == name(p_mean=-0.4) != name(p_mean=0.2931)
    digits = Recipe().dataset
    assert digits.is_pixels
    assert not dataclasses.replace(digits, to_pixels=lambda values: values).is_pixels
    latents = dataclasses.replace(Recipe().facts, std=1.0, is_pixels=False)
    monkeypatch.setattr("pipelines.recipe.dataset_facts", lambda _kind: latents)
    assert name() == name(p_mean=0.2931) != name(p_mean=-0.4)
    assert name(p_mean=-0.4) == "52162c1b56"  # what the default was named while it meant −0.4 there too
    assert trial_id_of_0_1(Recipe()) != trial_id_of_0_1(Recipe.model_validate({"objective": {"p_mean": -0.4}}))


def test_a_name_that_an_older_release_gave_stays_where_only_that_is_known() -> None:
    recipe = Recipe.model_validate({"optimizer": RATE_OF_0_1})
    today, old = "961590f74b", "4cd79a93c5"
    assert known_trial_id(recipe, {old}.__contains__) == old
    assert known_trial_id(recipe, {old, today}.__contains__) == today
    assert known_trial_id(recipe, lambda _: False) == today


def test_an_older_release_s_key_of_a_cell_is_read_as_today_s() -> None:
    params = {"ema.sigma_rel": 0.2, "evaluation.samples": 500, "evaluation.guidance": 1.0}
    assert current_cell_key(cell_key_of_0_1(params), params, cell_key) == cell_key(params)
    assert current_cell_key("another", params, cell_key) == "another"


def test_the_version_of_a_plugin_is_part_of_the_names_of_what_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = Evaluation()
    plain = Cell(0.1, evaluation).key
    monkeypatch.setattr("pipelines.identity.plugin_of", lambda name: Plugin("theirs", "1.0") if name == "edm" else None)
    first = trial_id(Recipe())
    monkeypatch.setattr("pipelines.identity.plugin_of", lambda name: Plugin("theirs", "1.1") if name == "edm" else None)
    assert len({first, trial_id(Recipe()), "52162c1b56"}) == 3
    assert Cell(0.1, evaluation).key == plain


def test_a_recipe_that_names_a_plugin_which_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(InputError, match="the plug-in 'absent' is not installed"):
        validate(Recipe, Document({"model": {"attention": "absent.sparse"}}, "recipe.yaml"))


@pytest.mark.parametrize(
    ("written", "today", "name", "old"),
    [
        ({"design": "E"}, {}, "961590f74b", "4cd79a93c5"),
        ({"design": "E", "mp_silu": False}, {"design": "F", "mp_silu": False}, "9ed7452bf2", "880c477ef7"),
        ({"design": "E", "mp_residual": False}, {"design": "E", "mp_residual": False}, "462c239931", "b7aee0b54a"),
        ({"design": "A", "mp_residual": True}, {"design": "A", "mp_residual": True}, "36dfaef3f4", "beffcb9fff"),
        ({"design": "E", "variant": "map-dit"}, {"design": "E", "variant": "map-dit"}, "5dfa5da2ec", "9bcd3e08db"),
    ],
)
def test_a_recipe_that_an_earlier_release_wrote_is_the_training_that_it_was(
    written: dict[str, Any], today: dict[str, Any], name: str, old: str
) -> None:
    """The release wrote every switch, and its E brought streams back; the ids were computed with its own code."""
    optimizer = {"optimizer": RATE_OF_0_1}
    read = Recipe.model_validate({"model": {"variant": None, **dict.fromkeys(OLD_SWITCHES), **written}} | optimizer)
    assert trial_id(read) == trial_id(Recipe.model_validate({"model": today} | optimizer)) == name
    assert trial_id_of_0_1(read) == old
    assert Recipe.model_validate(read.model_dump()) == read


def test_the_paper_s_design_is_another_training_and_was_unknown_to_older_releases() -> None:
    paper, ours = (Recipe.model_validate({"model": {"design": design}}) for design in "EF")
    assert trial_id(ours) == trial_id(Recipe())
    assert trial_id(paper) != trial_id(ours)
    assert trial_id_of_0_1(paper) is None
    assert trial_id_of_0_1(Recipe.model_validate({"objective": {"name": "flow", "t_std": 1.0}})) is None
    by_switch = Recipe.model_validate({"model": {"renormalized": False}})
    assert trial_id(by_switch) == trial_id(paper)
    assert Recipe.model_validate(paper.model_dump()) == paper
