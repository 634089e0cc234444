"""The names that release 0.1.0 gave to trainings and cells, so that what it has left is found and continued.

It hashed every field of the recipe of its time, defaults too: fields that have come since are not among them. Nothing
here may change.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mpdit.diffusion.objectives.registry import objective_as_dict
from mpdit.model.transformer import SIZES
from pipelines.identity import DIGITS
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


def trial_id_of_0_1(recipe: Recipe) -> str:
    """The id that release 0.1.0 gave to this training."""
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
    dataset = recipe.dataset
    fields = {
        "model": model,
        "data": dataset.fingerprint,
        "objective": objective_as_dict(recipe.prediction(dataset)),
        "optimizer": rates,
        "steps": recipe.steps,
        "batch": recipe.batch,
        "label_dropout": recipe.label_dropout,
        "seed": recipe.seed,
        "runtime": {name: value for name, value in runtime.items() if value != "auto"},
        "recipe_version": 2,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:DIGITS]


def cell_key_of_0_1(params: Mapping[str, Any]) -> str:
    """The key that release 0.1.0 gave to the cell with these parameters."""
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:DIGITS]
