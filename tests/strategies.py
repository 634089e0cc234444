"""What hypothesis draws for several tests. All kinds come from the registries, so that new ones are drawn too."""

import copy
import operator
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from hypothesis import assume
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mpdit.errors import InputError
from mpdit.model.architecture import PARAMETRIZATIONS
from mpdit.model.design import DESIGNS, SWITCHES, VARIANTS
from mpdit.model.modulation.registry import part_names
from mpdit.registry import Registry, needed_settings, settings_of
from pipelines.recipe import Recipe
from pipelines.settings import KindName, one_of

WORDS = (
    "auto",
    "none",
    "name",
    "values",
    "when",
    "min",
    "frechet",
    "digits",
    "scale+gate",
    "grid",
    "tpe",
    "asha",
    "../x",
)
NUMBERS = st.one_of(st.integers(-2, 40), st.integers(), st.floats(), st.sampled_from([10**400, 1e-320, 2**63, 0.05]))
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(WORDS), st.text(max_size=8), st.dates())


def kind_names(registry: Registry[Any]) -> list[str]:
    """Our own kinds."""
    return [name for name in registry.names() if "." not in name]


def anything(keys: Sequence[str]) -> st.SearchStrategy[Any]:
    """Values as YAML can hold them; fields are mostly called as settings are."""
    names = st.one_of(st.sampled_from(keys), st.text(max_size=4))
    return st.recursive(
        PLAIN,
        lambda part: st.one_of(st.lists(part, max_size=3), st.dictionaries(names, part, max_size=3)),
        max_leaves=6,
    )


def places(data: Any, where: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below some plain data, and of the data."""
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [where, *(path for key, value in parts for path in places(value, (*where, key)))]


@st.composite
def changed(draw: Callable[..., Any], documents: Sequence[dict[str, Any]]) -> Any:
    """One of the documents with one to three of its values replaced, removed or joined by others."""
    data = copy.deepcopy(draw(st.sampled_from(documents)))
    keys = sorted({str(key) for document in documents for where in places(document) for key in where})
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(places(data)[1:] or [("name",)]))
        place = data
        for key in parents:
            place = place[key]
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "remove":
            del place[last]
        elif action == "add" and isinstance(place, dict):
            place[draw(st.sampled_from(keys))] = draw(anything(keys))
        else:
            place[last] = draw(anything(keys))
    return data


def modulations() -> list[str]:
    """Every combination of the parts of a modulation."""
    names = [name for name in part_names() if "." not in name]
    return ["+".join(some) for count in range(1, len(names) + 1) for some in combinations(names, count)]


NUMBERS_OF_SETTINGS = {bool: [False, True], int: [1, 2, 3, 4, 8], float: [0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 10.0]}
OF_RECIPES: dict[str, Sequence[Any]] = {  # values that are quick to train; fields that are not here keep their default
    "model.width": [16, 32],
    "model.patch": [1, 2, 4, 8],
    "model.modulation": ["none", *modulations()],
    "model.design": list(DESIGNS),
    "model.variant": [None, *VARIANTS],
    "optimizer.lr": [1e-8, 1e-3, 0.02, 1.0, 1e3, 1e30],
    "optimizer.clip": [None, 1e-6, 1.0],
    "optimizer.parametrization": list(PARAMETRIZATIONS),
    "optimizer.base_width": [64, 16],
    "optimizer.beta1": [0.0, 0.9],
    "optimizer.beta2": [0.0, 0.99],
    "optimizer.warmup": [0.0, 0.03, 1.0, 3],
    "optimizer.decay_from": [1e-9, 0.4, 1.0, 2, 1000],
    "steps": [1, 2, 3],
    "batch": [1, 2, 5],
    "label_dropout": [0.0, 0.1, 1.0],
    "seed": [0, 2**40],
    "runtime.precision": ["fp32", "bf16"],
    "runtime.micro_batch": ["auto", 1, 2, 10**9],
}
FIXED = {"data": {"name": "digits"}, "runtime": {"device": "cpu", "threads": 1, "compile": False}}


def _is_within(value: Any, bound: Any) -> bool:
    """Whether a value keeps a bound of `annotated_types`."""
    rules = {"ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt}
    limits = {name: limit for name in rules if (limit := getattr(bound, name, None)) is not None}
    return all(rules[name](value, limit) for name, limit in limits.items())


@st.composite
def chosen_kind(draw: Callable[..., Any], registry: Registry[Any]) -> dict[str, Any]:
    """A kind of a registry with some of its settings."""
    kind = registry[draw(st.sampled_from(kind_names(registry)))]
    fields = {"name": kind.name}
    hints = get_type_hints(kind, include_extras=True) if isinstance(kind, type) else {}
    for name in settings_of(kind):
        hint, bounds = hints[name], list[Any]()
        if get_origin(hint) is Annotated:
            hint, *bounds = get_args(hint)
        values = get_args(hint) if get_origin(hint) is Literal else NUMBERS_OF_SETTINGS.get(hint, [])
        values = [value for value in values if all(_is_within(value, bound) for bound in bounds)]
        if values and (name in needed_settings(kind) or draw(st.booleans())):
            fields[name] = draw(st.sampled_from(list(values)))
    return fields


@st.composite
def settings_of_model(draw: Callable[..., Any], model: type[BaseModel], path: str = "") -> dict[str, Any]:
    """Some fields of a recipe or of a part of one: kinds of every registry, switches, and the values above."""
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        here, mark = f"{path}{name}", one_of(field)
        names = next((one.registry for one in field.metadata if isinstance(one, KindName)), None)
        if here == "data":
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            fields[name] = draw(settings_of_model(field.annotation, f"{here}."))
        elif draw(st.booleans()):
            if mark:
                fields[name] = draw(chosen_kind(mark.registry))
            elif names is not None:
                fields[name] = draw(st.sampled_from(kind_names(names)))
            elif here in OF_RECIPES:
                fields[name] = draw(st.sampled_from(OF_RECIPES[here]))
            elif name in SWITCHES:
                fields[name] = draw(st.sampled_from([None, True, False]))
    return fields


@st.composite
def recipes(draw: Callable[..., Any]) -> Recipe:
    """A valid recipe of a few steps of a small network on the digits."""
    fields = {"steps": 2, "batch": 4} | draw(settings_of_model(Recipe)) | {"data": FIXED["data"]}
    fields["model"] = {"width": 16} | fields["model"] | {"size": "nano"}
    fields["runtime"] |= FIXED["runtime"]
    try:
        recipe = Recipe.model_validate(fields)
        recipe.architecture(recipe.dataset)
    except (InputError, ValidationError):
        assume(False)
    return recipe
