"""Paths into a recipe and an evaluation: what may be swept, reading a value, setting values."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.recipe import Recipe
from pipelines.scoring.cell import Evaluation
from pipelines.settings import Settings, is_post_hoc, one_of

EVALUATION = "evaluation."
UNSWEPT = "runtime."  # how a training is computed, not what it is


def short_name(path: str) -> str:
    """A path's last name, for a column: `model.modulation` → `modulation`; a guide's says whose it is."""
    parts = path.split(".")
    return ".".join(parts[-2:]) if parts[-2:-1] == ["guide"] else parts[-1]


def value_text(value: Any) -> str:
    """An axis's value for people: null as none, an interval as its file writes it."""
    return "none" if value is None else str(list(value)) if isinstance(value, tuple) else str(value)


def axis_paths() -> list[str]:
    """Every path that may be swept: all of a recipe, and what of an evaluation is marked as post-hoc."""
    recipe = [path for path, _ in _leaves(Recipe) if not path.startswith(UNSWEPT)]
    return recipe + [EVALUATION + path for path, marked in _leaves(Evaluation) if marked]


def is_post_hoc_path(path: str) -> bool:
    """Whether a finished training answers every value of this axis."""
    model, inner = split_path(path)
    return any(is_post_hoc(field) for field in _fields_along(model, inner))


def split_path(path: str) -> tuple[type[Recipe] | type[Evaluation], str]:
    """The settings that an axis belongs to, and its path in them."""
    if path.startswith(EVALUATION):
        return Evaluation, path.removeprefix(EVALUATION)
    return Recipe, path


def kind_path(path: str) -> str | None:
    """The path of the kind that a path is a setting of: `model.attention` of `model.attention.radius`; else None."""
    model, inner = split_path(path)
    fields = list(_fields_along(model, inner))
    names = inner.split(".")
    if not fields or not one_of(fields[-1]) or len(names) == len(fields):
        return None
    return path.removesuffix(inner) + ".".join(names[: len(fields)])


def value_at(settings: Settings, path: str) -> Any:
    """The value at a path, as a file writes it; None for a setting that the chosen kind does not have."""
    found: Any = settings
    for name in path.split("."):
        mark = one_of(type(found).model_fields[name]) if isinstance(found, Settings) else None
        found = getattr(found, name, None)
    return found.name if mark else found


def with_values(settings: Settings, values: Mapping[str, Any]) -> Any:
    """The settings with the values at these paths, checked anew. Raises pydantic's ValidationError."""
    data = settings.model_dump()
    for path, value in sorted(values.items(), key=lambda pair: pair[0].count(".")):  # a kind before its settings
        *parents, last = path.split(".")
        place = data
        for parent in parents:
            if isinstance(place[parent], str):
                place[parent] = {"name": place[parent]}
            place = place[parent]
        if isinstance(place.get(last), dict):
            kept = place[last] if place[last]["name"] == value else {}
            place[last] = {**kept, "name": value}
        else:
            place[last] = value
    return type(settings).model_validate(data)


def _fields_along(model: type[BaseModel], path: str) -> Iterator[FieldInfo]:
    """The fields that a path passes, as far as it leads through models."""
    inner: Any = model
    for name in path.split("."):
        field = inner.model_fields.get(name) if isinstance(inner, type) and issubclass(inner, BaseModel) else None
        if field is None:
            return
        yield field
        inner = field.annotation


def _leaves(model: type[BaseModel], prefix: str = "", marked: bool = False) -> Iterable[tuple[str, bool]]:
    """(path, whether it is post-hoc) of every value in a model."""
    for name, field in model.model_fields.items():
        path, post_hoc, kinds = prefix + name, marked or is_post_hoc(field), one_of(field)
        if kinds:
            yield (f"{path}.name" if kinds.is_section else path), post_hoc
            yield from ((f"{path}.{setting}", post_hoc) for setting in kinds.settings())
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{path}.", post_hoc)
        else:
            yield path, post_hoc
