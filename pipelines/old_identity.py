"""The names that release 0.1.0 gave to trainings and cells, so that what it has left is found and continued.

It hashed every field of the recipe of its time, defaults too. Fields that have come since are not among them, so a
recipe that sets one of them has no old name. Nothing here may change.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from mpdit.diffusion.objectives.edm import Edm
from mpdit.diffusion.objectives.registry import Objective, objective_as_dict
from mpdit.model.architecture import SIZES
from mpdit.model.old_designs import implied_renormalized
from pipelines.identity import DIGITS, changed_fields, trial_id
from pipelines.recipe import Recipe

SWITCHES = (
    "cosine_attention",
    "weight_normalization",
    "forced_normalization",
    "mp_residual",
    "mp_silu",
    "mp_embedding",
    "mp_positions",
    "layer_norm",
    "map_dit",
)
OPTIMIZER = ("schedule", "lr", "beta1", "beta2", "warmup", "decay_from")


MODEL = {"size", "width", "patch", "modulation", "design", "variant", "renormalized", *SWITCHES}
SECTIONS = {
    "model": MODEL,
    "optimizer": {*OPTIMIZER, "clip", "parametrization", "base_width"},
    "runtime": {"device", "threads", "precision", "compile", "micro_batch"},
}
FIELDS = {*SECTIONS, "data", "objective", "ema", "steps", "batch", "label_dropout", "seed"}
OBJECTIVES = {"edm", "ddpm", "flow"}
OBJECTIVE = ("p_mean", "p_std", "uncertainty")  # their settings


def known_trial_id(recipe: Recipe, is_known: Callable[[str], bool]) -> str:
    """The id of a training: the one that an older release gave to it where only that one is known already."""
    today = trial_id(recipe)
    if is_known(today):
        return today
    old = trial_id_of_0_1(recipe)
    return old if old is not None and is_known(old) else today


def current_cell_key(key: str, params: Mapping[str, Any], today: Callable[[Mapping[str, Any]], str]) -> str:
    """The key of a scored cell as it is named today, if an older release named it. today: names its parameters."""
    if key not in _current_keys:
        _current_keys[key] = today(params) if key == cell_key_of_0_1(params) else key
    return _current_keys[key]


_current_keys: dict[str, str] = {}


def _existed(recipe: Recipe) -> bool:
    """Whether the release knew every field that is set; its E is F today, and E as it is today it did not know."""
    changed, design = changed_fields(recipe), dataclasses.asdict(recipe.model.chosen_design())
    if design["renormalized"] != implied_renormalized(design):
        return False
    sections = SECTIONS | {"objective": {"name", *OBJECTIVE}}
    known = all(set(changed.get(section, {})) <= fields for section, fields in sections.items())
    return known and set(changed) <= FIELDS and recipe.objective.name in OBJECTIVES


def trial_id_of_0_1(recipe: Recipe) -> str | None:
    """The id that release 0.1.0 gave to this training; None where it could not have trained it."""
    if not _existed(recipe):
        return None
    design, optimizer = dataclasses.asdict(recipe.model.chosen_design()), recipe.optimizer
    model: dict[str, Any] = {
        "size": recipe.model.size,
        "patch": recipe.model.patch,
        "modulation": recipe.model.modulation,
        "design": {name: design[name] for name in SWITCHES},
    }
    if recipe.model.shape != SIZES[recipe.model.size]:
        model["width"] = recipe.model.width
    rates = {name: getattr(optimizer, name) for name in OPTIMIZER} | {"clip": recipe.clip}
    if optimizer.parametrization != "sp":
        rates |= {"parametrization": optimizer.parametrization, "base_width": optimizer.base_width}
    runtime = {name: getattr(recipe.runtime, name) for name in ("precision", "compile")}
    dataset = recipe.facts
    fields = {
        "model": model,
        "data": dataset.fingerprint,
        "objective": _objective(recipe.prediction(dataset)),
        "optimizer": rates,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "label_dropout": recipe.label_dropout,
        "seed": recipe.seed,
        "runtime": {name: value for name, value in runtime.items() if value != "auto"},
        "recipe_version": 2,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:DIGITS]


def _objective(objective: Objective) -> dict[str, Any]:
    """The objective in the fields of the release, in which the mean of EDM's noise levels was a number."""
    mean = {"p_mean": objective.mean} if isinstance(objective, Edm) else {}
    known = ("name", "sigma_data", *OBJECTIVE)
    return {name: value for name, value in (objective_as_dict(objective) | mean).items() if name in known}


def cell_key_of_0_1(params: Mapping[str, Any]) -> str:
    """The key that release 0.1.0 gave to the cell with these parameters."""
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:DIGITS]
