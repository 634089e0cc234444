"""How far another training seed moves a value: estimated from all points that were trained with several seeds.

The spread is the standard deviation of one training's value over seeds as a share of the value (of its logarithm).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Literal

from mpdit.errors import InputError
from pipelines.yaml_file import read_yaml, validate
from sweeps.planning.plan import Plan, make_plan
from sweeps.planning.staged_scoring import seed_groups
from sweeps.spec.model import SweepSpec
from sweeps.storage.events import CellScored
from sweeps.storage.layout import Storage
from sweeps.storage.ledger import only, read

Source = Literal["sweep", "storage", "prior"]
Point = int | tuple[str, ...]  # what names a trained point
Values = Mapping[int, float]  # of one cell of it, by training seed

PRIOR_WEIGHT = 1.0  # in degrees of freedom, of what is known from elsewhere beside what is seen here
MOST_FREEDOM = 8.0  # no point's own spread is known better from others, for points differ in it


@dataclass(frozen=True)
class SeedSpread:
    """The spread between training seeds, as a share of the value; where it is from and its degrees of freedom."""

    share: float
    freedom: int
    source: Source


# 11 recipes of a nano model on the digits with two or three seeds each: docs/evaluation.md
PRIOR = SeedSpread(0.13, 14, "prior")


def spread_said(share: float, source: str) -> str:
    """The spread in words, with where it is known from."""
    origins = {
        "sweep": "estimated from this sweep's points with several seeds",
        "storage": "estimated from other sweeps' points with several seeds",
        "prior": "assumed, as measured on the digits: nothing here has several seeds",
    }
    return f"another training seed moves a value by {share:.0%}: {origins[source]}"


def pooled(cells: Iterable[Mapping[Point, Values]], known: SeedSpread | None, source: Source) -> SeedSpread | None:
    """Estimate the spread from points that have several seeds, shrunk towards what is known from elsewhere.

    What a seed does to all points alike is taken out: trainings are compared on the same seeds.

    Args:
        cells: For each cell, the values of the trained points by seed. The cells of a training move together, so
            their variances are averaged, and count once.
        known: The spread from elsewhere, which counts as PRIOR_WEIGHT degrees of freedom at most.
        source: Where the points are from.

    Returns:
        The estimate; `known` where no point has several seeds.
    """
    found = [part for cell in cells if (part := _residual_variance(list(cell.values())))]
    if not found:
        return known
    freedom = max(degrees for _, degrees in found)
    weight = min(known.freedom, PRIOR_WEIGHT) if known else 0.0
    total = freedom * fmean(variance for variance, _ in found) + weight * (known.share**2 if known else 0.0)
    return SeedSpread(sqrt(total / (freedom + weight)), freedom, source)


def _residual_variance(points: Sequence[Values]) -> tuple[float, int] | None:
    """The variance of ln value that neither point nor seed explains, and its degrees of freedom; None if unknown."""
    several = [values for values in points if len(values) > 1 and min(values.values()) > 0]
    if not several:
        return None
    import numpy as np  # only where there are seeds: most rankings need none

    seeds = list(several[0])
    table = np.log([[values[seed] for seed in seeds] for values in several if set(seeds) <= set(values)])
    rest = table - table.mean(1, keepdims=True)
    if len(table) > 1:
        rest -= rest.mean(0)
    degrees = max(1, len(table) - 1) * (len(seeds) - 1)
    return float((rest**2).sum()) / degrees, degrees


def storage_spread(storage: Storage, plan: Plan) -> SeedSpread:
    """The spread that the storage's other sweeps on the same data show; the prior where none has several seeds."""
    found: list[dict[Point, dict[int, float]]] = []
    for name in storage.sweep_names():
        spec = _spec_with_seeds(storage, name) if name != plan.spec.name else None
        if spec and _place(spec) == _place(plan.spec):
            events = read(storage.ledger(name))
            found += _values(make_plan(spec, events), only(events, CellScored))
    return pooled(found, PRIOR, "storage") or PRIOR


def _place(spec: SweepSpec) -> tuple[str, str | None]:
    """Which data set a sweep is on: its kind, and its folder where it has one."""
    return spec.recipe.data.name, getattr(spec.recipe.data, "path", None)


def _spec_with_seeds(storage: Storage, name: str) -> SweepSpec | None:
    """A sweep's file, if it has several seeds and this version can read it."""
    try:
        document = read_yaml(storage.spec(name))
        seeds = document.data["axes"]["seed"]
        return validate(SweepSpec, document) if isinstance(seeds, list) and len(seeds) > 1 else None
    except (InputError, KeyError, TypeError):
        return None


def _values(plan: Plan, cells: Iterable[CellScored]) -> list[dict[Point, dict[int, float]]]:
    """For each cell the values of the trained points by seed."""
    seeds = {trial.id: (at, trial.recipe.seed) for at, group in enumerate(seed_groups(plan)) for trial in group}
    found: dict[str, dict[Point, dict[int, float]]] = {}
    for cell in cells:
        if cell.trial in seeds and cell.value is not None:
            at, seed = seeds[cell.trial]
            found.setdefault(cell.key, {}).setdefault(at, {})[seed] = cell.value
    return list(found.values())
