"""Which line of a sweep file a plan fails for: the value of an axis, or the recipe itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from mpdit.errors import InputError
from pipelines.recipe import Recipe
from pipelines.yaml_file import Document, Where
from sweeps.spec.model import SweepSpec
from sweeps.spec.paths import split_path, with_values
from sweeps.spec.space import Domain

SMALLEST_FITS = ("batch", "model.patch")  # what of a recipe may not fit the data, and does as 1


class PlanError(InputError):
    """A trial or a cell of a plan cannot be. where: the path in the sweep file to what is to be mended."""

    def __init__(self, text: str, where: Where) -> None:
        super().__init__(text)
        self.where = where


@contextmanager
def located(document: Document) -> Iterator[None]:
    """While open, what a plan fails for is told with its line in the document."""
    try:
        yield
    except PlanError as problem:
        raise InputError(f"{document.place(problem.where)}: {problem}") from None


def blamed(spec: SweepSpec, params: dict[str, Any]) -> Where:
    """The path to what a trial fails for: the recipe, the one value that fails by itself, or the axes together."""
    if not _works(spec.recipe, {}) and _same_data(spec, params):
        return _of_recipe(spec.recipe)
    for path, value in params.items():
        if not _works(spec.recipe, {path: value}):
            return of_axis(spec, path, value)
    return ("axes",)


def of_axis(spec: SweepSpec, path: str, value: Any) -> Where:
    """The path to a value of an axis; to the recipe's or evaluation's own where it is no axis."""
    if path not in spec.axes:
        owner, inner = split_path(path)
        return ("recipe" if owner is Recipe else "evaluation", *inner.split("."))
    axis = spec.axes[path]
    values = axis.values if isinstance(axis, Domain) else axis
    return ("axes", path, values.index(value)) if values and value in values else ("axes", path)


def _same_data(spec: SweepSpec, params: dict[str, Any]) -> bool:
    """Whether the recipe's own data is what the trial wants; else its values are what must be looked at."""
    return not any(path.startswith("data.") for path in params)


def _of_recipe(recipe: Recipe) -> Where:
    try:
        recipe.facts  # noqa: B018  (it is opened)
    except InputError:
        return ("recipe", "data", "path")
    fits = [path for path in SMALLEST_FITS if _works(recipe, {path: 1})]
    return ("recipe", *fits[0].split(".")) if fits else ("recipe",)


def _works(recipe: Recipe, params: dict[str, Any]) -> bool:
    try:
        changed: Recipe = with_values(recipe, params)
        changed.architecture(changed.facts)
    except (InputError, ValidationError):
        return False
    return True
