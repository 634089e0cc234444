"""The space of a search: the values of its axes, and points in it.

An axis is a list or a range, and may be active only where another axis has a certain value. A point gives a value to
every searched axis that is active there. The seed is not searched: it is a repetition.
"""

import itertools
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field, ValidationError, model_serializer

from mpdit.errors import input_error, nearest
from pipelines.settings import Settings
from pipelines.yaml_file import rule

Point = dict[str, Any]
Whole = int

SEED, STEPS = "seed", "steps"  # axes that are no choice of the training: how often, and how far
RANGES = ("uniform", "log_uniform", "int")
KINDS = ("values", *RANGES)
DIGITS = 4  # significant, of a value drawn from a range of real numbers: a table and a file can show all of it
ATTEMPTS = 1000  # draws without a new point after which a space counts as exhausted
EXAMPLE = "[0.01, 0.02], {log_uniform: [0.001, 0.1]}, {int: [2, 8], step: 2}"


class Domain(Settings):
    """An axis that is a range, or that is active only `when` other axes have certain values.

    One of values, uniform, log_uniform and int; both ends of a range belong to it. step: the values are the lower end
    and whole steps above it.
    """

    values: list[Any] | None = Field(None, min_length=1)
    uniform: list[float] | None = Field(None, min_length=2, max_length=2)
    log_uniform: list[float] | None = Field(None, min_length=2, max_length=2)
    int: list[Whole] | None = Field(None, min_length=2, max_length=2)
    step: float | None = Field(None, gt=0)
    when: dict[str, list[Any]] | None = None

    @model_serializer
    def _given(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in (*KINDS, "step", "when")}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def kind(self) -> str:
        """values, uniform, log_uniform or int."""
        return next(name for name in KINDS if getattr(self, name) is not None)

    @property
    def ends(self) -> tuple[float, float]:
        """The lowest and the highest value of a range."""
        low, high = getattr(self, self.kind)
        if self.step:
            high = self.on_step(low + math.floor((high - low) / self.step + 1e-9) * self.step)
        return low, high

    def on_step(self, value: float) -> Any:
        """The number of the range nearest to a value: on its step, whole, or rounded to the digits that are shown."""
        low, high = getattr(self, self.kind)
        if self.step:
            value = low + round((value - low) / self.step) * self.step
        if self.kind == "int":
            return round(value)
        return min(max(float(f"{value:.{10 if self.step else DIGITS}g}"), low), high)

    @property
    def count(self) -> Whole | None:
        """How many values there are; None for a range of real numbers."""
        if self.kind == "values":
            return len(self.values or [])
        low, high = self.ends
        return round((high - low) / (self.step or 1)) + 1 if self.step or self.kind == "int" else None

    def at(self, position: float) -> Any:
        """The value at a position from 0 to 1: an entry of a list, or a number of a range, spaced evenly or in log."""
        if self.kind == "values":
            assert self.values
            return self.values[min(int(position * len(self.values)), len(self.values) - 1)]
        low, high = self.ends
        if self.kind == "log_uniform":
            return self.on_step(math.exp(math.log(low) + position * math.log(high / low)))
        if self.count:
            return self.on_step(low + min(int(position * self.count), self.count - 1) * (self.step or 1))
        return self.on_step(low + position * (high - low))

    def holds(self, value: Any) -> bool:
        """Whether the value is one of the axis's."""
        if self.kind == "values":
            return value in (self.values or [])
        low, high = self.ends
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and low <= value <= high and (not self.step or math.isclose(self.on_step(value), value))


Axis = list[Any] | Domain


def parse_axis(given: Any) -> Axis:
    """Parse an axis of a sweep file: a list stays as it is, a mapping becomes a Domain. Raises InputError."""
    if isinstance(given, list):
        return [tuple(value) if isinstance(value, list) else value for value in given]  # an interval, as a key too
    if isinstance(given, Domain):
        return given
    if not isinstance(given, dict):
        raise input_error("an axis is a list of values, or a range", given=repr(given), allowed=EXAMPLE)
    unknown = [name for name in given if name not in Domain.model_fields]
    if unknown:
        fields = list(Domain.model_fields)
        raise input_error(
            f"an axis has no field {str(unknown[0])!r}",
            given=f"{unknown[0]}: {given[unknown[0]]}",
            nearest=nearest(unknown[0], fields),
            allowed=", ".join(fields),
        )
    kinds = [name for name in KINDS if given.get(name) is not None]
    if len(kinds) != 1:
        headline = "an axis is one of " + ", ".join(KINDS)
        raise input_error(headline, given=", ".join(kinds) or "none of them", allowed=EXAMPLE)
    if isinstance(given.get("when"), dict):
        listed = {name: value if isinstance(value, list) else [value] for name, value in given["when"].items()}
        given = {**given, "when": listed}
    try:
        domain = Domain.model_validate(given)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise input_error(f"{where} cannot be used", given=repr(problem["input"]), allowed=rule(problem)) from None
    if domain.kind in RANGES:
        _check_range(domain, given)
    elif domain.step:
        raise input_error("a list of values has no step", given=f"step: {domain.step:g}", hint="leave it out")
    return domain


def _check_range(domain: Domain, given: Any) -> None:
    low, high = getattr(domain, domain.kind)
    if not low < high:
        raise input_error(
            f"{domain.kind} goes from a lower end to a higher one", given=f"{domain.kind}: [{low}, {high}]"
        )
    if domain.kind == "log_uniform" and low <= 0:
        raise input_error("log_uniform begins above 0", given=f"log_uniform: [{low}, {high}]", hint="uniform takes 0")
    if domain.kind == "log_uniform" and domain.step:
        raise input_error("log_uniform has no step", given=f"step: {domain.step:g}", hint="write the values as a list")
    if domain.kind == "int" and domain.step and domain.step % 1:
        raise input_error("the step between whole numbers is a whole number", given=f"step: {domain.step}")
    if domain.step and domain.step > high - low:
        raise input_error(
            "the step leaves one value only", given=f"step: {domain.step:g}", allowed=f"up to {high - low:g}"
        )


class Space:
    """The searched axes of a sweep, in order. own: the recipe's value of each axis, used where it is inactive."""

    def __init__(self, axes: Mapping[str, Axis], own: Point) -> None:
        self.domains = {name: axis if isinstance(axis, Domain) else Domain(values=axis) for name, axis in axes.items()}
        self.own = own

    def is_active(self, axis: str, point: Point) -> bool:
        """Whether the axis is active with these values of the others."""
        when = self.domains[axis].when or {}
        return all(point.get(other, self.own.get(other)) in allowed for other, allowed in when.items())

    def active(self, point: Point) -> Point:
        """The point without its inactive axes."""
        return {name: value for name, value in point.items() if self.is_active(name, point)}

    def whole(self, point: Point) -> Point:
        """The point with every axis, in order; an inactive axis has the recipe's own value."""
        return {name: point.get(name, self.own[name]) for name in self.domains}

    @property
    def is_listed(self) -> bool:
        """Whether every axis is a list, so that a grid can be made."""
        return all(domain.kind == "values" for domain in self.domains.values())

    @property
    def size(self) -> int | None:
        """How many points there are at most; None for more than can be counted."""
        counts = [domain.count for domain in self.domains.values()]
        return math.prod(count for count in counts if count) if None not in counts else None

    def grid(self) -> list[Point]:
        """Every combination of listed values; those that differ by an inactive axis alone are one."""
        values = [domain.values or [] for domain in self.domains.values()]
        every = (dict(zip(self.domains, chosen, strict=True)) for chosen in itertools.product(*values))
        return list(unique(map(self.active, every)))

    def random(self, count: int, seed: int) -> list[Point]:
        """Points drawn independently, without repetition; fewer where the space has no more."""
        source = random.Random(f"random search {seed}")
        drawn = (self.at({name: source.random() for name in self.domains}) for _ in itertools.count())
        return self._first_new(drawn, count)

    def quasi_random(self, count: int, seed: int) -> list[Point]:
        """Points of a scrambled Sobol sequence, without repetition; they leave fewer gaps than independent ones."""
        if not self.domains:
            return self.grid()[:count]
        from scipy.stats import qmc

        sobol = qmc.Sobol(len(self.domains), seed=seed)
        drawn = (
            self.at(dict(zip(self.domains, row, strict=True))) for _ in itertools.count() for row in sobol.random(64)
        )
        return self._first_new(drawn, count)

    def at(self, positions: Mapping[str, float]) -> Point:
        """The point at these positions (0 to 1) on each axis."""
        return self.active({name: domain.at(positions[name]) for name, domain in self.domains.items()})

    def _first_new(self, drawn: Iterator[Point], count: int) -> list[Point]:
        found: list[Point] = []
        known: set[str] = set()
        failures = 0
        while len(found) < count and failures < ATTEMPTS:
            point = next(drawn)
            failures = failures + 1 if identity(point) in known else 0
            if not failures:
                known.add(identity(point))
                found.append(point)
        return found


def identity(point: Point) -> str:
    """A text that is the same for the same values."""
    return json.dumps(point, sort_keys=True)


def unique(points: Iterable[Point]) -> Iterator[Point]:
    """The points without repetitions, in order."""
    return iter({identity(point): point for point in points}.values())
