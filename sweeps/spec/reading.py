"""Read a sweep file: every axis value is checked and brought to canonical form before anything starts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mpdit.errors import InputError, input_error, nearest
from mpdit.registry import load_all_plugins
from pipelines.recipe import Recipe
from pipelines.scoring.cell import Evaluation
from pipelines.scoring.metrics.registry import METRICS, measured_metrics
from pipelines.yaml_file import Document, anchored, apply_settings, read_yaml, rule, validate
from sweeps.spec.consistency import check_consistency
from sweeps.spec.model import SweepSpec, current_sweep
from sweeps.spec.paths import axis_paths, kind_path, split_path, value_at, with_values
from sweeps.spec.space import Axis, Domain

SHIPPED = Path(__file__).parent.parent  # the sweep files that come with the project
FIXED = ("recipe", "evaluation", "objective")  # what one name stands for


def check_unchanged(path: Path, spec: SweepSpec) -> bool:
    """Whether the spec is the one that is stored at `path`; False also where there is none yet.

    Raises InputError when its recipe, evaluation or objective is another: one name stands for one of each.
    """
    if not path.exists():
        return False
    kept = validate(SweepSpec, read_yaml(path))  # an older release wrote it with the fields of its time
    old, new = kept.model_dump(), spec.model_dump()
    changed = [line for part in FIXED for line in _differences(old[part], new[part], part)]
    if changed:
        raise input_error(
            f"there is another sweep named {spec.name!r} in this storage",
            differs="; ".join(changed),
            hint="give it a new name: in the file, or with --set name=NAME",
        )
    return bool(old == new)


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [f"{path} was {old}, is {new}"]


def sweep_file(name_or_path: str) -> Path:
    """The file of that path, or the shipped sweep of that name. Raises InputError where there is neither."""
    path = Path(name_or_path)
    if path.exists():
        return path
    shipped = {found.stem: found for found in SHIPPED.glob("*.yaml")}
    if name_or_path in shipped:
        return shipped[name_or_path]
    raise input_error(
        f"there is no sweep file {name_or_path}",
        given=name_or_path,
        nearest=nearest(path.stem, shipped),
        allowed="a path, or one of " + ", ".join(sorted(shipped)),
    )


def read_spec(path: Path, settings: list[str] | None = None) -> SweepSpec:
    """The sweep in a file, every axis value checked and in canonical form. Raises InputError for anything wrong."""
    return checked_spec(read_yaml(path), settings or [])


def checked_spec(document: Document, settings: list[str]) -> SweepSpec:
    """The sweep in a document that has been read. Raises InputError for anything wrong."""
    return checked(document, settings)[0]


def checked(document: Document, settings: list[str]) -> tuple[SweepSpec, Document]:
    """The sweep in a document, and the document with the settings, whose lines tell where a value was written."""
    document = apply_settings(replace(document, data=current_sweep(document.data)), settings)
    for where in (("recipe", "data", "path"), ("axes", "data.path"), ("evaluation", "reference")):
        document = anchored(document, where)
    spec = validate(SweepSpec, document)
    if not spec.axes:
        raise input_error(f"{document.place(('axes',))}: the sweep has no axes", allowed="axes: {PATH: [VALUE, …], …}")
    axes = {name: _checked_axis(document, spec, name, values) for name, values in spec.axes.items()}
    spec = spec.model_copy(update={"axes": axes})
    check_consistency(document, spec)
    return _with_needed_metrics(spec), document


def _with_needed_metrics(spec: SweepSpec) -> SweepSpec:
    """The spec, whose evaluation also measures the metrics that its objectives and constraints name."""
    needed = {METRICS[name] for name in (*spec.metrics, *(limit.metric for limit in spec.limits))}
    missing = {kind.name for kind in needed - set(measured_metrics(spec.evaluation.metrics)) if kind.measure}
    names = sorted({*spec.evaluation.metrics, *missing})
    return spec.model_copy(update={"evaluation": spec.evaluation.model_copy(update={"metrics": names})})


def _checked_axis(document: Document, spec: SweepSpec, path: str, values: Axis) -> Axis:
    place = document.place(("axes", path))
    if path not in axis_paths():
        load_all_plugins()
    if path not in axis_paths():
        raise input_error(
            f"{place}: axes has no field {path!r}",
            given=f"{path}: {values}",
            nearest=_nearest_path(path),
            allowed=", ".join(_paths_like(path)),
        )
    if not values:
        raise input_error(f"{place}: the axis {path} is empty", given=f"{path}: []", allowed="at least one value")
    settings = _settings_of(spec, path)
    if isinstance(values, Domain):
        return _checked_domain(document, spec, path, values)
    canonical = [_checked_value(document, settings, path, at, value) for at, value in enumerate(values)]
    for at, value in enumerate(canonical):
        if value in canonical[:at]:
            raise input_error(
                f"{document.place(('axes', path, at))}: {path} has a value twice",
                given=values[at],
                same_as=value,
                hint="write it once",
            )
    return canonical


def _settings_of(spec: SweepSpec, path: str) -> Recipe | Evaluation:
    """The settings that a path leads into; for a setting of a kind, with a kind that has it where an axis names one."""
    owner, inner = split_path(path)
    settings = spec.recipe if owner is Recipe else spec.evaluation
    kind = kind_path(path)
    axis = spec.axes.get(kind) if kind else None
    names = axis.values if isinstance(axis, Domain) else axis
    for name in names or []:
        try:
            other: Recipe | Evaluation = with_values(settings, {split_path(kind or "")[1]: name})
        except ValidationError:
            continue  # the axis of the kind is refused for it by itself
        if value_at(settings, inner) is None and value_at(other, inner) is not None:
            return other
    return settings


def _checked_domain(document: Document, spec: SweepSpec, path: str, domain: Domain) -> Domain:
    """The domain with listed values in canonical form; of a range, both ends and a value between are checked."""
    tried, settings = domain.values or [domain.at(position) for position in (0.0, 0.37, 1.0)], _settings_of(spec, path)
    canonical = [_checked_value(document, settings, path, at, value) for at, value in enumerate(tried)]
    when = domain.when and {
        other: [_checked_value(document, _settings_of(spec, other), other, -1, value) for value in values]
        for other, values in domain.when.items()
        if other in axis_paths()
    }
    return domain.model_copy(update={"values": canonical if domain.values else None, "when": when or domain.when})


def _checked_value(document: Document, settings: Recipe | Evaluation, path: str, at: int, value: Any) -> Any:
    """The value of an axis in canonical form; `at` is its place in the list. Raises InputError."""
    place, inner = document.place(("axes", path, at)), split_path(path)[1]
    if isinstance(value, dict):
        hint = f"sweep a setting by an axis of its own, as {path}.SETTING"
        raise input_error(f"{place}: {path} takes names and numbers, not fields", given=value, hint=hint)
    try:
        return value_at(with_values(settings, {inner: value}), inner)
    except ValidationError as error:
        cause = error.errors()[0].get("ctx", {}).get("error")
        if isinstance(cause, InputError):
            raise InputError(f"{place}: {path}: {cause}") from None
        raise input_error(
            f"{place}: {path} cannot be {value!r}", given=value, allowed=rule(error.errors()[0])
        ) from None


def _nearest_path(path: str) -> str | None:
    """The allowed path that looks most like this one, or whose last name does."""
    by_end = {allowed.rpartition(".")[2]: allowed for allowed in axis_paths()}
    return nearest(path, axis_paths()) or by_end.get(nearest(path.rpartition(".")[2], by_end) or "")


def _paths_like(path: str) -> list[str]:
    """The paths that may be swept in the group of this one; where there are none, the names of all groups."""
    group = path.rpartition(".")[0]
    beside = [allowed for allowed in axis_paths() if group and allowed.rpartition(".")[0] == group]
    groups = [f"{allowed.rpartition('.')[0]}.…" if "." in allowed else allowed for allowed in axis_paths()]
    return beside or list(dict.fromkeys(groups))
