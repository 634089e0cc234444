"""Designs in files that earlier releases wrote, in which E was what is F today: streams brought back to unit magnitude.

They are told by a switch that those releases did not have: `renormalized`. The program itself writes every switch, also
those that are not set, so a file that has all the others and lacks this one is theirs. A file that a person wrote names
few switches, if any, and is read as it stands.
"""

from collections.abc import Mapping
from typing import Any

OLD_SWITCHES = {
    "cosine_attention",
    "weight_normalization",
    "forced_normalization",
    "mp_residual",
    "mp_silu",
    "mp_embedding",
    "mp_positions",
    "layer_norm",
}
DESIGN = "model.design"
CURRENT_NAMES = {"E": "F"}


def implied_renormalized(design: Mapping[str, bool]) -> bool:
    """Whether earlier releases brought the streams of a network with these switches back to unit magnitude."""
    return design["mp_residual"] and not design["map_dit"]


def current_switches(design: Mapping[str, bool]) -> dict[str, bool]:
    """Return the switches of a stored network, with the one that earlier releases did not write."""
    return {"renormalized": implied_renormalized(design), **design}


def is_old(model: Any) -> bool:
    """Whether the `model` fields of a recipe are as an earlier release wrote them."""
    return isinstance(model, Mapping) and model.keys() >= OLD_SWITCHES and "renormalized" not in model


def current_name(design: Any) -> Any:
    """Return today's name of a design that an earlier release named."""
    return CURRENT_NAMES.get(design, design) if isinstance(design, str) else design


def current_model(model: Any) -> Any:
    """Return the `model` fields of a recipe as they are written today; those of today are left as they are."""
    return {**model, "design": current_name(model.get("design")), "renormalized": None} if is_old(model) else model


def current_recipe(recipe: Any) -> Any:
    """Return the fields of a recipe as they are written today; what holds no `model` fields is left as it is."""
    if not isinstance(recipe, Mapping) or "model" not in recipe:
        return recipe
    return {**recipe, "model": current_model(recipe["model"])}


def current_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by axis path, as an earlier release wrote them, with today's names of designs.

    A value may be one value, a list of them, or the fields of an axis: {values: […], when: {PATH: […]}}.
    """
    return {path: _current_value(path, value) for path, value in values.items()}


def _current_value(path: str, value: Any) -> Any:
    if isinstance(value, list) and path == DESIGN:
        return [current_name(one) for one in value]
    if isinstance(value, Mapping):
        fields = {**value, "values": _current_value(path, value["values"])} if value.get("values") else dict(value)
        return fields | ({"when": current_values(fields["when"])} if isinstance(fields.get("when"), Mapping) else {})
    return current_name(value) if path == DESIGN else value
