"""What names a training and a cell: hashes of all that differs from the defaults, so that a new setting changes none.

A default that comes to mean something else raises IDENTITY_VERSION, and so every name. Names that older releases gave
stay valid where they are found: pipelines/old_identity.py.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from mpdit.diffusion.objectives.edm import P_MEAN, Edm
from mpdit.model.architecture import SIZES
from mpdit.model.design import DESIGNS
from mpdit.model.old_designs import implied_renormalized
from mpdit.registry import as_fields, plugin_of
from pipelines.recipe import Model, Recipe
from pipelines.settings import Settings, kinds_of, one_of

IDENTITY_VERSION = 3
DIGITS = 10  # hexadecimal, of a name


def trial_id(recipe: Recipe) -> str:
    """Ten hexadecimal digits that name the training: the same recipe on the same data is the same trial.

    Left out is what does not change what is learned: the EMA width that is read afterwards, device, threads, and
    precision and compilation where they are left to the machine.
    """
    fields = {
        "version": IDENTITY_VERSION,
        "recipe": _training_fields(recipe),
        "data": recipe.facts.fingerprint,
        "plugins": plugins(recipe),
    }
    return name_of(fields)


def name_at_any_length(recipe: Recipe) -> str | None:
    """Names the training whatever its number of steps; None where a longer one does not begin as it."""
    return trial_id(recipe.model_copy(update={"steps": 1})) if recipe.can_go_on else None


def name_of(fields: Any) -> str:
    """The name of plain values: the same for the same ones."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:DIGITS]


def _training_fields(recipe: Recipe) -> dict[str, Any]:
    """All that differs from the default training, each in one spelling."""
    fields = changed_fields(recipe)
    for name in ("ema", "data", "runtime", "model", "optimizer", "objective"):
        fields.pop(name, None)
    runtime = changed_fields(recipe.runtime)
    parts = {
        "model": _model_fields(recipe.model),
        "optimizer": _optimizer_fields(recipe),
        "objective": _objective_fields(recipe),
        "runtime": {name: runtime[name] for name in ("precision", "compile") if name in runtime},
    }
    return fields | {name: part for name, part in parts.items() if part}


def _model_fields(model: Model) -> dict[str, Any]:
    """The network: designs by their switches, so that a design and the switches that make it are one.

    `renormalized` is named only where it is not what it was before it could be chosen.
    """
    design, default = (dataclasses.asdict(chosen) for chosen in (model.chosen_design(), DESIGNS[Model().design]))
    fields = {
        name: value for name, value in changed_fields(model).items() if name not in (*design, "design", "variant")
    }
    if model.shape == SIZES[model.size]:
        fields.pop("width", None)
    switches = {name: value for name, value in design.items() if value != default[name]}
    if design["renormalized"] == implied_renormalized(design):
        switches.pop("renormalized", None)
    return fields | ({"design": switches} if switches else {})


def _optimizer_fields(recipe: Recipe) -> dict[str, Any]:
    """The optimiser: with the clipping that holds, and a base width only where there is one."""
    fields = changed_fields(recipe.optimizer)
    if recipe.optimizer.parametrization == "sp":
        fields.pop("base_width", None)
    return fields | ({"clip": recipe.clip} if recipe.clip is not None else {})


def _objective_fields(recipe: Recipe) -> dict[str, Any]:
    """The objective: with EDM's noise levels as they are for this data, however they are written."""
    chosen, told = recipe.objective, recipe.prediction(recipe.facts)
    if isinstance(chosen, Edm) and isinstance(told, Edm):
        chosen = dataclasses.replace(chosen, p_mean=None if told.mean == P_MEAN else told.mean)
    return {} if chosen == Edm() else as_fields(chosen)


def changed_fields(settings: Settings) -> dict[str, Any]:
    """The fields that differ from their defaults, as plain values; those within fields too."""
    found: dict[str, Any] = {}
    defaults = _defaults(type(settings))
    for name, field in type(settings).model_fields.items():
        value, default = getattr(settings, name), defaults[name]
        if isinstance(value, Settings):
            value, default = changed_fields(value), {}
        if value != default:
            mark = one_of(field)
            found[name] = mark.plain(value) if mark else value
    return found


@cache
def _defaults(settings: type[Settings]) -> dict[str, Any]:
    """The default of every field; they are compared with and never changed."""
    return {name: field.get_default(call_default_factory=True) for name, field in settings.model_fields.items()}


def plugins(settings: Settings) -> dict[str, str]:
    """{distribution: version} of every plug-in that the settings use."""
    used = [plugin_of(name) for name in _kinds(settings)]
    return {plugin.distribution: plugin.version for plugin in used if plugin}


def _kinds(settings: Settings) -> Iterator[str]:
    """The names of the kinds that the settings hold, in depth."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _kinds(value)
        else:
            yield from (kind for _, kind in kinds_of(field, value))
