"""Measure how much each axis matters: overall by PED-ANOVA (arXiv 2304.10255), and around the best cell."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import pvariance
from typing import TYPE_CHECKING, Any

from mpdit.errors import input_error
from sweeps.planning.plan import Plan
from sweeps.results.ranking import Row

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

BEST_QUANTILE = 0.25  # what counts as good: small grids have too few cells for the customary tenth
FEWEST = 4  # cells below which nothing is said
REPETITIONS, MOST_MOVED = 100, 300  # moved values for an interval; cells beyond which there is none


@dataclass(frozen=True)
class Importance:
    """How much an axis matters: its share of one, and the 95 % interval of it; None where it was not estimated."""

    share: float
    low: float | None = None
    high: float | None = None


def importances(plan: Plan, rows: Sequence[Row]) -> dict[str, Importance]:
    """The importance of each axis with several values for being among the best quarter of the cells.

    Largest first; they sum to 1. Empty where too few cells are scored, or where all are equally good.
    """
    known = [row for row in rows if row.is_scored]
    costs = sorted(row.cost or 0.0 for row in known)
    if len(known) < FEWEST or costs[int(BEST_QUANTILE * len(known))] == costs[-1]:
        return {}  # too few, or no quarter of them is better than the rest
    study = study_of(plan, known)
    if len(study.trials[0].params) == 0:
        return {}
    return _with_intervals(lambda values: _quantile_shares(study, known, values), known)


def local_importances(rows: Sequence[Row]) -> dict[str, Importance]:
    """How far each axis alone moves the value around the best cell, the others staying where the best has them.

    The measure is the variance of ln value over the best cell and those that differ from it in that axis alone, of
    numbers only the next ones above and below, as a share of the sum over all axes. Largest first; empty where no cell
    differs from the best in one axis alone, as in most random searches.
    """
    known = [row for row in rows if row.is_scored]
    if not known or min(row.value or 0.0 for row in known) <= 0:
        return {}
    axes = [axis for axis in known[0].params if len(distinct(known, axis)) > 1]
    lines = {axis: _beside_best(known, axis) for axis in axes}
    return _with_intervals(lambda values: _variance_shares(lines, values), known)


def _beside_best(rows: Sequence[Row], axis: str) -> list[int]:
    """The positions of the first row, and of those that differ from it in that axis alone."""
    best, values = rows[0].params, distinct(rows, axis)
    if axis in numeric({axis: values}):
        at = values.index(best[axis])
        values = values[max(0, at - 1) : at + 2]
    others = {name: value for name, value in best.items() if name != axis}
    return [
        at for at, row in enumerate(rows) if row.params.get(axis) in values and others.items() <= row.params.items()
    ]


def _variance_shares(lines: Mapping[str, Sequence[int]], values: Sequence[float]) -> dict[str, float]:
    moved = {axis: pvariance([math.log(values[at]) for at in line]) for axis, line in lines.items()}
    return _shares(moved)


def _quantile_shares(study: "Study", rows: Sequence[Row], values: Sequence[float]) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator

    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_QUANTILE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that smaller is taken to be better, as it is of costs
        found = evaluator.evaluate(study, target=lambda trial: rows[0].kind.cost(values[trial.number]))
    return _shares(found)


def _shares(found: Mapping[str, float]) -> dict[str, float]:
    total = sum(found.values())
    if not total or not math.isfinite(total):
        return {}
    return {axis: value / total for axis, value in sorted(found.items(), key=lambda pair: -pair[1])}


def _with_intervals(
    shares_of: Callable[[Sequence[float]], dict[str, float]], rows: Sequence[Row]
) -> dict[str, Importance]:
    """The shares, with the middle 95 % of what they are when every value is moved by its error, again and again."""
    shares = shares_of([row.value or 0.0 for row in rows])
    if len(rows) > MOST_MOVED:
        return {axis: Importance(share) for axis, share in shares.items()}
    random = Random(0)
    found = [shares_of(_moved(rows, random)) for _ in range(REPETITIONS)]
    intervals = {axis: sorted(one.get(axis, 0.0) for one in found if one) for axis in shares}
    return {axis: Importance(share, *_middle(intervals[axis])) for axis, share in shares.items()}


def _middle(values: Sequence[float]) -> tuple[float | None, float | None]:
    cut = round(0.025 * len(values))
    return (values[cut], values[-1 - cut]) if values else (None, None)


def _moved(rows: Sequence[Row], random: Random) -> list[float]:
    """The values as other noise and, all cells of a training alike, other training seeds might have made them."""
    of_training: dict[str, float] = {}
    values = []
    for row in rows:
        seed = of_training.setdefault(row.trials[0], random.gauss(0, 1)) * (row.seed_spread or 0.0)
        spread = seed if row.seeds == 1 else 0.0  # of several seeds it is in the error
        value = (row.value or 0.0) * math.exp(spread) + random.gauss(0, 1) * (row.stderr or 0.0)
        values.append(max(value, 0.01 * (row.value or 0.0)) if (row.value or 0.0) > 0 else value)
    return values


def write_study(plan: Plan, rows: Sequence[Row], path: Path) -> None:
    """Write the scored cells as an Optuna study to a journal file for optuna-dashboard; an older file is replaced.

    Raises InputError where no cell is scored.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    known = [row for row in rows if row.is_scored]
    if not known:
        raise input_error(f"no cell of {plan.spec.name} has been scored yet", hint=f"mpdit status {plan.spec.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    study_of(plan, known, JournalStorage(JournalFileBackend(str(path))))


def study_of(plan: Plan, rows: Sequence[Row], storage: "BaseStorage | None" = None) -> "Study":
    """An Optuna study with one finished trial for each row, of every axis that has several values.

    storage: where Optuna keeps the study; None: in memory.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    axes = {axis: values for axis in rows[0].params if len(values := distinct(rows, axis)) > 1}
    distributions = {axis: _distribution(values) for axis, values in axes.items()}
    study = optuna.create_study(study_name=plan.spec.name, direction=rows[0].kind.direction, storage=storage)
    for row in rows:
        params = {axis: row.params[axis] if axis in numeric(axes) else str(row.params[axis]) for axis in axes}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=row.value))
    return study


def numeric(axes: dict[str, list[Any]]) -> set[str]:
    """The axes whose every value is a number."""
    return {axis for axis, values in axes.items() if all(type(value) in (int, float) for value in values)}


def distinct(rows: Sequence[Row], axis: str) -> list[Any]:
    """The values of an axis among the rows: numbers in order, anything else in the rows' order."""
    values = list(dict.fromkeys(row.params.get(axis) for row in rows if axis in row.params))
    return sorted(values) if all(type(value) in (int, float) for value in values) else values


def _distribution(values: list[Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if numeric({"": values}):
        low, high = float(min(values)), float(max(values))
        return FloatDistribution(low, high, log=low > 0 and high / low >= 4)
    return CategoricalDistribution([str(value) for value in values])
